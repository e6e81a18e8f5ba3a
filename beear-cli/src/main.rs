//! The `beear` command.

use std::process::ExitCode;

/// Keeps memory to what is planned: the system's allocator on Linux keeps, from run to run, up to a gigabyte of what
/// a model of 45 million weights has freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    beear_cli::run(std::env::args_os(), &beear_cli::Backends::embedded())
}
