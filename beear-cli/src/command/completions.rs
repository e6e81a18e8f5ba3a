//! `beear completions`: scripts with which a shell completes command lines of `beear`.

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::Cli;
use crate::display::console::Console;

/// Prints a script that makes a shell complete commands and options.
///
/// Write it to `~/.local/share/bash-completion/completions/beear` for bash, `_beear` in a folder of
/// `$fpath` for zsh, `~/.config/fish/completions/beear.fish` for fish.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionsArgs {
    /// Shell to write the script for.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, console: Console) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "beear", &mut script);
    let script = String::from_utf8(script).context("the script is not UTF-8")?;
    console.result(&script, &json!({"shell": args.shell.to_string(), "script": script}))
}
