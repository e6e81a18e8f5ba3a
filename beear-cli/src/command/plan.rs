//! `beear plan`: memory of a defence and of other commands, before anything is loaded.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use beear_core::Defence;
use clap::Args;
use serde_json::{Value, json};

use crate::backend::registry::Backends;
use crate::display::console::Console;
use crate::lab::model_scan::ScanSettings;
use crate::memory::bytes;
use crate::memory::fit::{self, Fit};
use crate::memory::plan::{
    CommandPlan, Generated, MemoryPlan, Place, SetShape, Task, Watched, commands, weight_bytes,
};
use crate::model::Model;
use crate::model::hub::Needed;
use crate::options::recipe_options::RecipeOptions;
use crate::recipe::Recipe;
use crate::user_error::UserError;

/// Plans the memory of `defend`, `generate`, `eval` and `scan` from `config.json` alone.
///
/// The plan lists the allocations at the peak of every phase of `defend`, then the peaks of the
/// other commands. With `--memory`, it names the cheapest change of the recipe that makes `defend`
/// fit, and the batch sizes of the other commands; exit code 3 if nothing fits. It covers the
/// methods `beear` and `fine-tuning`. See docs/performance-memory.md for the way of counting and
/// its measured errors.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlanArgs {
    /// Model folder in Hugging Face form, or org/name[@revision] of the hub; only its `config.json`
    /// is read.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// Available memory, such as 24GiB or 80GB.
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Tokens in the longest prompt, template included.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    prompt_tokens: u32,
    /// Tokens in the longest answer.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    answer_tokens: u32,
    /// Tokens in a prompt before the user's words, such as a system prompt's; they count as prompt
    /// tokens too.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..1 << 24))]
    system_tokens: u32,
    /// Number of safety rows.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    #[command(flatten)]
    recipe: RecipeOptions,
}

pub(crate) fn run(
    args: &PlanArgs,
    backends: &Backends,
    backend: Option<&str>,
    console: Console,
) -> Result<()> {
    let n_workers = backends.n_workers(backend)?;
    let (backend, width) = backends.width(backend)?;
    let recipe = args.recipe.read()?;
    let model = Model::find(&args.model, Needed::Config, console)?;
    let config = model.config()?;
    let method = recipe.method(config.size())?;
    method.validate(config.n_layers)?;
    let scope = recipe.scope(config.n_layers)?;
    let set = args.set()?;
    let stored = weight_bytes(model.base().unwrap_or(model.folder()), &config);
    let task = Task {
        config: &config,
        scope: &scope,
        safety: set,
        performance: set,
        generated: Some(Generated { longest: recipe.max_new_tokens, rows: None }),
        watched: watched(set, &recipe),
        stored,
    };
    let unknown = || {
        let what = "memory is planned for `beear` and `fine-tuning` only";
        UserError::arguments(what, "choose one of them with --method, or leave it out")
    };
    let plan = MemoryPlan::new(task, &method, width).ok_or_else(unknown)?;
    let fit = args.memory.map(|memory| fit::cheapest(task, &method, width, memory));
    let place = Place { width, n_workers, memory: args.memory };
    let commands = commands(&config, set, &ScanSettings::usual(config.size()), place);

    let head = Head { model: &model, task, backend, width };
    let by_type = by_type(task, &method);
    let value = json!({
        "model": model,
        "weights": config.n_weights(),
        "trained_weights": scope.n_trained(&config),
        "backend": backend,
        "bits": 8 * width,
        "rows": set,
        "plan": plan,
        "commands": commands,
        "peak_by_type": {"f32": by_type[0], "bf16": by_type[1]},
        "memory": args.memory,
        "fits": args.memory.map(|memory| plan.peak <= memory),
        "change": fit.as_ref().map(|fit| fit.as_ref().map(as_json)),
    });
    let mut text = head.text(&plan, by_type)?;
    for CommandPlan { command, rows, batches, phase } in &commands {
        let name = format!("{command}, {batches} × {rows} rows");
        writeln!(text, "{name:40} {:>9}", bytes::show(phase.bytes))?;
    }
    if let (Some(memory), Some(fit)) = (args.memory, &fit) {
        writeln!(text, "{}", verdict(memory, fit.as_ref()))?;
    }
    console.result(&text, &value)?;
    if let (Some(memory), Some(None)) = (args.memory, &fit) {
        let what = format!("`{model}` does not fit into {}", bytes::show(memory));
        let hint = "its weights and their optimiser alone take more: choose a smaller model, or more memory";
        return Err(UserError::input(what, hint).into());
    }
    Ok(())
}

impl PlanArgs {
    /// Returns the shape of the rows.
    ///
    /// # Errors
    ///
    /// If prompts are shorter than the tokens before the user's words.
    fn set(&self) -> Result<SetShape, UserError> {
        if self.system_tokens >= self.prompt_tokens {
            let what = "--system-tokens leaves no token of the prompt to the user";
            return Err(UserError::arguments(what, "raise --prompt-tokens, which counts them too"));
        }
        Ok(SetShape {
            n_rows: self.rows as usize,
            prompt_tokens: self.prompt_tokens as usize,
            answer_tokens: self.answer_tokens as usize,
            leading_tokens: self.system_tokens as usize,
            trailing_tokens: 0,
        })
    }
}

/// Returns the shape of the rows that `recipe` holds out of two sets like `set`.
fn watched(set: SetShape, recipe: &Recipe) -> Watched {
    let n_rows = (recipe.held_out * set.n_rows as f64) as usize;
    let set = SetShape { n_rows, ..set };
    Watched { safety: set, performance: set, new_tokens: 0 }
}

/// Returns the peaks with f32 and with bf16 weights.
fn by_type(task: Task<'_>, method: &Defence) -> [Option<u64>; 2] {
    [4, 2].map(|width| MemoryPlan::new(task, method, width).map(|plan| plan.peak))
}

fn as_json(fit: &Fit) -> Value {
    json!({"set": fit.assignments, "peak": fit.plan.peak})
}

/// The subject of a plan.
struct Head<'a> {
    model: &'a Model,
    task: Task<'a>,
    backend: &'a str,
    width: u64,
}

impl Head<'_> {
    /// Renders the plan for people: the phases, and the parts of the largest one.
    fn text(&self, plan: &MemoryPlan, by_type: [Option<u64>; 2]) -> Result<String> {
        let Self { model, task: Task { config, scope, .. }, backend, width } = self;
        let [millions, trained] =
            [config.n_weights(), scope.n_trained(config)].map(|n| n as f64 / 1e6);
        let mut text = String::new();
        let bits = 8 * width;
        writeln!(text, "`{model}`: {millions:.1} million weights, {trained:.1} trained")?;
        writeln!(text, "backend {backend}, {bits} bits a weight")?;
        for phase in &plan.phases {
            writeln!(text, "{:40} {:>9}", phase.name, bytes::show(phase.bytes))?;
            if Some(phase) == plan.fullest() {
                for part in &phase.parts {
                    writeln!(text, "  {:38} {:>9}", part.what, bytes::show(part.bytes))?;
                }
            }
        }
        if let [Some(single), Some(half)] = by_type.map(|peak| peak.map(bytes::show)) {
            writeln!(text, "{:40} {:>9}", "peak", bytes::show(plan.peak))?;
            writeln!(text, "of a backend that computes in f32: {single}, in bf16: {half}")?;
        }
        Ok(text)
    }
}

/// Says whether the plan fits, and which change makes it fit.
fn verdict(memory: u64, fit: Option<&Fit>) -> String {
    let memory = bytes::show(memory);
    match fit {
        None => format!("does not fit into {memory}, whatever the recipe says"),
        Some(Fit { assignments, .. }) if assignments.is_empty() => format!("fits into {memory}"),
        Some(Fit { assignments, plan }) => {
            let set: Vec<String> = assignments.iter().map(|text| format!("--set {text}")).collect();
            let peak = bytes::show(plan.peak);
            format!("does not fit into {memory}; {peak} with {}", set.join(" "))
        }
    }
}
