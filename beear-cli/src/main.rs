//! The `beear` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    beear_cli::run(std::env::args_os(), &beear_cli::Backends::embedded())
}
