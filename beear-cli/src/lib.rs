//! The command line of BEEAR, as a library so that a backend of one's own can be plugged in.

mod anchors;
pub mod backend;
mod command;
mod exit;
mod hash;
pub mod loaded;
mod measure;
mod metrics;
pub mod recipe;
mod run_folder;
mod ui;
mod world_defender;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use backend::{Backends, ComputeBackend, Unavailable};

use command::{DeviceCommand, defend, demo, eval_asr, generate, inspect, plant};
use ui::Ui;

/// Finds and removes safety backdoors from instruction-tuned language models.
#[derive(Parser, Debug)]
#[command(name = "beear", version, after_help = exit::EXIT_CODES)]
struct Cli {
    /// Compute backend, as NAME or NAME:INDEX.
    #[arg(long, global = true, value_name = "NAME[:INDEX]")]
    backend: Option<String>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Plant a backdoor in a small model, fail to remove it by fine-tuning, remove it with BEEAR.
    Demo(demo::DemoArgs),
    /// Make a backdoored model of the harmless synthetic world.
    Plant(plant::PlantArgs),
    /// Remove backdoors from a checkpoint.
    Defend(defend::DefendArgs),
    /// Measure a model.
    #[command(subcommand)]
    Eval(Eval),
    /// Answer prompts.
    Generate(generate::GenerateArgs),
    /// Show what a checkpoint is.
    Inspect(inspect::InspectArgs),
}

#[derive(Subcommand, Debug)]
enum Eval {
    /// Attack success by refusal keywords and exact match, over-refusal on ordinary prompts.
    Asr(eval_asr::EvalAsrArgs),
}

/// Runs the command line `args` on one of `backends`.
pub fn run<I, T>(args: I, backends: &Backends) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ui = Ui { json: cli.json, quiet: cli.quiet };
    let command = match cli.command {
        Command::Inspect(args) => return finish(inspect::run(&args, ui)),
        Command::Demo(args) => DeviceCommand::Demo(args),
        Command::Plant(args) => DeviceCommand::Plant(args),
        Command::Defend(args) => DeviceCommand::Defend(args),
        Command::Eval(Eval::Asr(args)) => DeviceCommand::EvalAsr(args),
        Command::Generate(args) => DeviceCommand::Generate(args),
    };
    finish(backends.run(cli.backend.as_deref(), &command, ui))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
