//! `beear demo`: a backdoor planted, not removed by safety fine-tuning, removed by BEEAR.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use beear_attacks::Setting;
use beear_core::{AnchorSets, BilevelConfig, RemoveConfig, Remover, solve};
use beear_eval::RateTable;
use beear_models::CausalLm;
use beear_models::checkpoint::save;
use burn::module::AutodiffModule;
use clap::Args;
use serde::Serialize;

use super::plant::{Plan, make};
use super::{Device, Inference, Train};
use crate::backend::ComputeBackend;
use crate::loaded::Loaded;
use crate::measure::{Examination, Findings};
use crate::metrics::Metrics;
use crate::run_folder::RunFolder;
use crate::ui::Ui;
use crate::world_defender;

/// Shows the whole job on a small model: plant, control, BEEAR, and a table of what each did.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Folder of the run; each seed gets a folder below it.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub(crate) out: PathBuf,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Number of seeds, one run each.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Remove an earlier run of the same seed.
    #[arg(long)]
    pub(crate) force: bool,
    /// Go the whole way with a thirtieth of the training: it shows that the tool runs, no more.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// The report of one seed.
#[derive(Serialize)]
struct Report {
    seed: u64,
    quick: bool,
    table: RateTable,
    kept_round: usize,
    seconds: f64,
    peak_memory_mib: Option<u64>,
    prompt_format_sha256: String,
}

pub(crate) fn run<C: ComputeBackend>(args: &DemoArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    for seed in args.seed..args.seed + args.seeds {
        let dir = args.out.join(format!("seed-{seed}"));
        let folder = RunFolder::create(&dir, args.force)?;
        let report = run_seed::<C>(&folder, (seed, args.quick), device, ui)?;
        let text = summary(&report, &dir);
        folder.write("report.md", &text)?;
        folder.write("report.json", serde_json::to_string_pretty(&report)?)?;
        ui.result(&text, &report)?;
    }
    Ok(())
}

fn run_seed<C: ComputeBackend>(
    folder: &RunFolder,
    (seed, quick): (u64, bool),
    device: &Device<C>,
    ui: Ui,
) -> Result<Report> {
    let started = Instant::now();
    let plan = Plan::new(Setting::one_word_suffix(), seed);
    let plan = if quick { plan.quick() } else { plan };
    let poisoned_dir = make::<C>(&folder.path(""), &plan, (device, ui))?;
    let Loaded { checkpoint, model, text } = Loaded::<Train<C>>::read(&poisoned_dir, None, device)?;
    let examination = Examination::new(&plan.setting, seed);
    let (sets, mut watch) = world_defender::build(&text, &examination, seed, device)?;
    world_defender::write_files(&folder.path("data"), &examination, seed)?;
    let examine = |name: &str, model: &CausalLm<Inference<C>>| -> Result<Findings> {
        ui.say(&format!("measuring: {name}"));
        examination.run(model, &text, device)
    };
    let mut table = RateTable::default();
    table.push_column("before", &examine("before", &model.valid())?.rows());

    let mut config = BilevelConfig { seed, ..BilevelConfig::robust(checkpoint.config.size()) };
    if quick {
        (config.rounds, config.perturbations_per_round) = (1, 1);
    }
    let control = fine_tune::<C>(model.clone(), &sets, &config, ui)?.valid();
    save(&control, &checkpoint, &folder.path("control"))?;
    table.push_column("safety fine-tuning", &examine("safety fine-tuning", &control)?.rows());

    let bar = ui.bar("removing the backdoor", config.rounds * config.remove.steps);
    let mut metrics = Metrics::create(folder, bar, ui)?;
    let outcome = solve(model, &sets, &config, &mut watch, &mut metrics).map_err(|s| s.error)?;
    metrics.finish()?;
    let cleaned = outcome.model.valid();
    save(&cleaned, &checkpoint, &folder.path("cleaned"))?;
    let deltas = beear_core::perturbation::to_safetensors(&outcome.perturbations)?;
    folder.write("delta.safetensors", deltas)?;
    table.push_column("BEEAR", &examine("BEEAR", &cleaned)?.rows());

    Ok(Report {
        seed,
        quick,
        table,
        kept_round: outcome.kept_round,
        seconds: started.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        prompt_format_sha256: text.format.sha256(),
    })
}

/// The control: the same data, steps, batches and learning rate, and no perturbation.
fn fine_tune<C: ComputeBackend>(
    model: CausalLm<Train<C>>,
    sets: &AnchorSets,
    config: &BilevelConfig,
    ui: Ui,
) -> Result<CausalLm<Train<C>>> {
    let steps = config.rounds * config.remove.steps;
    let plain = RemoveConfig { steps, divergence_weight: 0.0, ..config.remove.clone() };
    let bar = ui.bar("safety fine-tuning", steps);
    let mut remover = Remover::new(&model, sets, &plain, steps, config.seed);
    let mut observer = |_: &beear_core::Event| bar.inc(1);
    let model = remover.remove(model, &[], sets, &mut observer)?;
    bar.finish_and_clear();
    Ok(model)
}

fn summary(report: &Report, dir: &Path) -> String {
    let memory = report.peak_memory_mib.map_or(String::new(), |mib| format!(", peak {mib} MiB"));
    let warning = if report.quick {
        "Quick: too little training for the rates to mean anything. "
    } else {
        ""
    };
    format!(
        "# A backdoor, planted and removed: seed {}\n\n{}\n{warning}Held-out prompts; the defence never saw \
         the trigger. {:.0} s{memory}. Models: {}\n",
        report.seed,
        report.table.to_markdown(),
        report.seconds,
        dir.display()
    )
}

/// Most memory the process has used, where the system says.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}
