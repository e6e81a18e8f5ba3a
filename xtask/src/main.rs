//! Repository chores: `cargo xtask lint` and `cargo xtask ci`, cheapest checks first.

mod tidy;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

/// A check: its name, the cargo arguments, and the command that mends a failure.
type Check = (&'static str, &'static [&'static str], &'static str);

const FORMAT: Check = ("format", &["fmt", "--all", "--check"], "cargo fmt --all");
const CLIPPY: Check = (
    "clippy",
    &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    "cargo clippy --workspace --all-targets --fix",
);
const TESTS: Check = ("tests", &["test", "--workspace"], "read the first failure");

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy::run(),
        Some("lint") => lint(),
        Some("ci") => lint().and_then(|()| cargo(TESTS)),
        _ => {
            eprintln!("usage: cargo xtask tidy | lint | ci");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn lint() -> Result<()> {
    cargo(FORMAT)?;
    tidy::run()?;
    cargo(CLIPPY)
}

fn cargo((name, arguments, mend): Check) -> Result<()> {
    eprintln!("== {name}");
    if !Command::new(env!("CARGO")).args(arguments).status()?.success() {
        bail!("{name} failed; to mend it: {mend}");
    }
    Ok(())
}
