//! Repository chores: `cargo xtask lint`, `ci` and `backends`, cheapest checks first; `gen`,
//! `prose` and `bench`.

mod bench;
mod prose;
mod tidy;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

/// Check that cargo runs.
#[derive(Clone, Copy)]
struct Check {
    name: &'static str,
    /// Arguments of cargo.
    arguments: &'static [&'static str],
    /// Command, or advice, that fixes a failure.
    mend: &'static str,
}

impl Check {
    const fn new(
        name: &'static str,
        arguments: &'static [&'static str],
        mend: &'static str,
    ) -> Self {
        Self { name, arguments, mend }
    }
}

const FORMAT: Check = Check::new("format", &["fmt", "--all", "--check"], "cargo fmt --all");
const CLIPPY: Check = Check::new(
    "clippy",
    &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    "cargo clippy --workspace --all-targets --fix",
);
/// Backends that are too heavy for every build. Their features replace the default ones, so that a
/// backend is shown to work alone.
const BACKENDS: [Check; 2] = [
    Check::new("cuda", &check_backend("cuda"), "read the first error"),
    Check::new("wgpu", &check_backend("wgpu"), "read the first error"),
];
/// Pages, schemas and snapshots that are generated from the program. The tests that compare them
/// also write them.
const GENERATED: Check = Check::new(
    "generated files",
    &[
        "test",
        "--workspace",
        "--lib",
        "--test",
        "cli",
        "--",
        "reference",
        "recipes",
        "help::",
        "dashboard",
        "init",
        "own_data",
    ],
    "cargo xtask gen",
);
const TESTS: Check = Check::new("tests", &["test", "--workspace"], "read the first failure");

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy::run(),
        Some("lint") => lint(),
        Some("ci") => lint().and_then(|()| cargo(TESTS)),
        Some("gen") => generate(std::env::args().nth(2).as_deref()),
        Some("prose") => prose::run(),
        Some("bench") => bench::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("backends") => backends(std::env::args().nth(2).as_deref()),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | lint | ci | gen [--check] | prose | backends [cuda|wgpu] | bench PYTHON [RUNS [MODEL]]"
            );
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

const fn check_backend(feature: &'static str) -> [&'static str; 6] {
    ["check", "--package", "beear-cli", "--no-default-features", "--features", feature]
}

/// Type-checks one heavy backend, or all.
fn backends(only: Option<&str>) -> Result<()> {
    let chosen = || BACKENDS.into_iter().filter(|check| only.is_none_or(|only| only == check.name));
    if chosen().count() == 0 {
        bail!("no heavy backend is called {}: cuda and wgpu are", only.unwrap_or_default());
    }
    chosen().try_for_each(cargo)
}

fn lint() -> Result<()> {
    cargo(FORMAT)?;
    tidy::run()?;
    cargo(CLIPPY)
}

/// Writes everything that is generated, or checks that all of it is up to date.
fn generate(mode: Option<&str>) -> Result<()> {
    match mode {
        None => with_variables(GENERATED, &[("UPDATE_DOCS", "1"), ("INSTA_UPDATE", "always")]),
        Some("--check") => cargo(GENERATED),
        Some(other) => bail!("gen takes --check or nothing, not {other}"),
    }
}

fn cargo(check: Check) -> Result<()> {
    with_variables(check, &[])
}

fn with_variables(check: Check, variables: &[(&str, &str)]) -> Result<()> {
    let Check { name, arguments, mend } = check;
    eprintln!("== {name}");
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).envs(variables.iter().copied());
    if !command.status()?.success() {
        bail!("{name} failed; to mend it: {mend}");
    }
    Ok(())
}
