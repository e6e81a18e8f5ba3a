//! The command line of BEEAR, as a library that accepts backends of other crates.

pub mod backend;
mod chart;
mod command;
mod defence;
mod display;
mod evaluate;
mod exit;
mod lab;
mod memory;
pub mod model;
#[cfg(test)]
#[path = "../../tests/mutated.rs"]
mod mutated;
mod options;
pub mod recipe;
#[cfg(test)]
mod reference;
mod report;
mod run_folder;
mod user_error;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use backend::registry::Backends;
pub use backend::{ComputeBackend, Unavailable};

use command::{
    DeviceCommand, analyze_drift, bench_gpu, calibrate, compare, completions, defend, demo, doctor,
    eval_asr, eval_code, eval_export, eval_judge, eval_mt_bench, eval_mt_bench_judge,
    eval_mt_bench_result, eval_over_refusal, eval_perplexity, eval_sarif, generate, init, inspect,
    man, plan, plant, recipe_check, recipe_schema, report as report_command, reproduce, resume,
    scan, sweep_layers, validate,
};
use display::console::Console;
use model::text_process;

/// Heading of the options that every command has.
const GLOBAL: &str = "Global options";

/// Finds and removes safety backdoors from instruction-tuned language models.
#[derive(Parser, Debug)]
#[command(name = "beear", version, after_help = exit::help())]
struct Cli {
    /// Compute backend, as NAME or NAME:INDEX.
    #[arg(long, global = true, value_name = "NAME[:INDEX]", help_heading = GLOBAL)]
    backend: Option<String>,
    /// Print results as JSON.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Print results and errors only.
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

// The doc comments of the arguments describe the commands; comments here would hide them.
#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Plant(plant::PlantArgs),
    Reproduce(reproduce::ReproduceArgs),
    Init(init::InitArgs),
    /// Reads recipes.
    #[command(subcommand)]
    Recipe(RecipeCommand),
    Scan(scan::ScanArgs),
    Calibrate(calibrate::CalibrateArgs),
    Plan(plan::PlanArgs),
    Defend(defend::DefendArgs),
    Resume(resume::ResumeArgs),
    /// Measures a model.
    #[command(subcommand)]
    Eval(Eval),
    Validate(validate::ValidateArgs),
    Compare(compare::CompareArgs),
    Report(report_command::ReportArgs),
    /// Measures the effect of a known trigger inside a model.
    #[command(subcommand)]
    Analyze(Analyze),
    /// Repeats the defence over one of its settings.
    #[command(subcommand)]
    Sweep(Sweep),
    Generate(generate::GenerateArgs),
    Inspect(inspect::InspectArgs),
    Doctor(doctor::DoctorArgs),
    /// Measures the speed of this machine.
    #[command(subcommand)]
    Bench(BenchKind),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

#[derive(Subcommand, Debug)]
enum Eval {
    Asr(eval_asr::EvalAsrArgs),
    Code(eval_code::EvalCodeArgs),
    Export(eval_export::EvalExportArgs),
    Judge(eval_judge::EvalJudgeArgs),
    MtBench(eval_mt_bench::EvalMtBenchArgs),
    MtBenchJudge(eval_mt_bench_judge::EvalMtBenchJudgeArgs),
    MtBenchResult(eval_mt_bench_result::EvalMtBenchResultArgs),
    OverRefusal(eval_over_refusal::EvalOverRefusalArgs),
    Perplexity(eval_perplexity::EvalPerplexityArgs),
    Sarif(eval_sarif::EvalSarifArgs),
}

#[derive(Subcommand, Debug)]
enum Analyze {
    Drift(analyze_drift::AnalyzeDriftArgs),
}

#[derive(Subcommand, Debug)]
enum Sweep {
    Layers(sweep_layers::SweepLayersArgs),
}

#[derive(Subcommand, Debug)]
enum RecipeCommand {
    Check(recipe_check::RecipeCheckArgs),
    Schema(recipe_schema::RecipeSchemaArgs),
}

#[derive(Subcommand, Debug)]
enum BenchKind {
    Gpu(bench_gpu::BenchGpuArgs),
}

/// Runs the command line `args` on one of `backends`.
///
/// Call this function first in `main`. The program starts itself again to read templates and
/// tokenizers of models, which may come from strangers, and the second process must reach this
/// function. A program whose `main` does other things calls [`run_without_isolation`].
pub fn run<I, T>(args: I, backends: &Backends) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    match isolate() {
        Ok(()) => run_without_isolation(args, backends),
        Err(code) => code,
    }
}

/// Isolates the reading of templates and tokenizers in processes of their own, as [`run`] does. A
/// program that uses [`loaded`] without [`run`] calls this function first in `main`.
///
/// # Errors
///
/// The exit code to end with at once: this process is such a child and has done its work, or the
/// environment sets invalid limits.
pub fn isolate() -> Result<(), ExitCode> {
    if let Some(code) = text_process::serve_if_child() {
        return Err(code);
    }
    let limits = text_process::Limits::of_environment();
    limits.map(text_process::isolate).map_err(|mistake| exit::report(&mistake.into()))
}

/// Runs the command line like [`run`], for a program that cannot be started again. Templates and
/// tokenizers of models are read in this process, without a limit of time or memory. Use it for
/// models that you trust.
pub fn run_without_isolation<I, T>(args: I, backends: &Backends) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return exit::report_arguments(&error),
    };
    let console = Console { json: cli.json, quiet: cli.quiet, is_part: false };
    // A named backend must be known even to commands that use none.
    let plain = |run: &dyn Fn() -> anyhow::Result<()>| {
        let known = cli.backend.as_deref().map_or(Ok(()), |name| backends.check(name));
        finish(known.and_then(|()| run()))
    };
    let command = match cli.command {
        Command::Init(args) => return plain(&|| init::run(&args, console)),
        Command::Recipe(RecipeCommand::Check(args)) => {
            return plain(&|| recipe_check::run(&args, console));
        }
        Command::Recipe(RecipeCommand::Schema(recipe_schema::RecipeSchemaArgs {})) => {
            return plain(&|| recipe_schema::run(console));
        }
        Command::Completions(args) => return plain(&|| completions::run(&args, console)),
        Command::Man(args) => return plain(&|| man::run(&args, console)),
        Command::Inspect(args) => return plain(&|| inspect::run(&args, console)),
        Command::Plan(args) => {
            return finish(plan::run(&args, backends, cli.backend.as_deref(), console));
        }
        Command::Doctor(doctor::DoctorArgs {}) => return plain(&|| doctor::run(backends, console)),
        Command::Compare(args) if args.models.are_given() => DeviceCommand::Compare(args),
        Command::Compare(args) => return plain(&|| compare::run(&args, console)),
        Command::Report(args) => return plain(&|| report_command::run(&args, console)),
        Command::Eval(Eval::Export(args)) => return plain(&|| eval_export::run(&args, console)),
        Command::Eval(Eval::Sarif(args)) => return plain(&|| eval_sarif::run(&args, console)),
        Command::Eval(Eval::MtBenchResult(args)) => {
            return plain(&|| eval_mt_bench_result::run(&args, console));
        }
        Command::Demo(args) => DeviceCommand::Demo(args),
        Command::Plant(args) => DeviceCommand::Plant(args),
        Command::Reproduce(args) => DeviceCommand::Reproduce(args),
        Command::Scan(args) => DeviceCommand::Scan(args),
        Command::Calibrate(args) => DeviceCommand::Calibrate(args),
        Command::Defend(args) => DeviceCommand::Defend(args),
        Command::Resume(args) => {
            let backend = cli.backend.clone().or_else(|| args.backend());
            let command = DeviceCommand::Resume(args);
            return finish(backends.run(backend.as_deref(), &command, console));
        }
        Command::Eval(Eval::Asr(args)) => DeviceCommand::EvalAsr(args),
        Command::Eval(Eval::Code(args)) => DeviceCommand::EvalCode(args),
        Command::Eval(Eval::Judge(args)) => DeviceCommand::EvalJudge(args),
        Command::Eval(Eval::MtBench(args)) => DeviceCommand::EvalMtBench(args),
        Command::Eval(Eval::MtBenchJudge(args)) => DeviceCommand::EvalMtBenchJudge(args),
        Command::Eval(Eval::OverRefusal(args)) => DeviceCommand::EvalOverRefusal(args),
        Command::Eval(Eval::Perplexity(args)) => DeviceCommand::EvalPerplexity(args),
        Command::Analyze(Analyze::Drift(args)) => DeviceCommand::AnalyzeDrift(args),
        Command::Sweep(Sweep::Layers(args)) => DeviceCommand::SweepLayers(args),
        Command::Validate(args) => DeviceCommand::Validate(args),
        Command::Generate(args) => DeviceCommand::Generate(args),
        Command::Bench(BenchKind::Gpu(args)) => DeviceCommand::BenchGpu(args),
    };
    finish(backends.run(cli.backend.as_deref(), &command, console))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
