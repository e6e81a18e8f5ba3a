//! `beear demo`: plants a backdoor, which safety fine-tuning does not remove and BEEAR does.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use beear_attacks::AttackSpec;
use beear_core::{AnchorSets, BilevelConfig, Defence, FineTuningConfig, TeacherForcedValidator};
use beear_eval::RateTable;
use beear_models::{CausalLm, Checkpoint};
use burn::module::AutodiffModule;
use clap::Args;
use serde::Serialize;

use super::plant::{Plan, make};
use super::{Device, Inference, Train};
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::display::run_display::RunDisplay;
use crate::evaluate::measure::{Examination, Findings};
use crate::lab::world_defender;
use crate::memory::process::peak_memory_mib;
use crate::model::Model;
use crate::model::loaded::{Loaded, TextSide};
use crate::run_folder::RunFolder;
use crate::run_folder::metrics::Metrics;

/// Shows the whole job on a small model: plant, control, BEEAR, and a table of the results.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Folder of the run; each seed gets a folder below it.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub(crate) out: PathBuf,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Number of seeds, with one run each.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Remove an earlier run of the same seed.
    #[arg(long)]
    pub(crate) force: bool,
    /// Do every step with a thirtieth of the training: this only shows that the tool runs.
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

pub(crate) fn run<C: ComputeBackend>(
    args: &DemoArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    for seed in args.seed..args.seed + args.seeds {
        let dir = args.out.join(format!("seed-{seed}"));
        let folder = RunFolder::create(&dir, args.force)?;
        let report = run_seed::<C>(&folder, (seed, args.quick), device, console)?;
        let text = summary(&report, &dir);
        folder.write("report.md", &text)?;
        folder.has_result()?;
        folder.write("report.json", serde_json::to_string_pretty(&report)?)?;
        console.result(&text, &report)?;
    }
    Ok(())
}

fn run_seed<C: ComputeBackend>(
    folder: &RunFolder,
    (seed, quick): (u64, bool),
    device: &Device<C>,
    console: Console,
) -> Result<Report> {
    let started = Instant::now();
    let plan = Plan::new(AttackSpec::paper(2), seed);
    let plan = if quick { plan.quick() } else { plan };
    let poisoned_dir = make::<C>(&folder.path(""), &plan, (device, console))?;
    let Loaded { checkpoint, model, text } =
        Loaded::<Train<C>>::read(&Model::in_folder(&poisoned_dir), None, device)?;
    let examination = plan.examination();
    let (sets, mut validator) = world_defender::build(&text, &examination, seed, device)?;
    world_defender::write_files(&folder.path("data"), &examination, seed)?;
    let robust = BilevelConfig::robust(checkpoint.config.size());
    let mut config = BilevelConfig { seed, ..robust };
    // The control uses the other core.
    config.remove.threads = 1;
    if quick {
        (config.rounds, config.perturbations_per_round) = (1, 1);
    }

    let prompt_format_sha256 = text.format.sha256();
    let trial: PlantedModel<'_, C> =
        PlantedModel { folder, checkpoint, text, examination, sets, config, device, console };
    let before = trial.examine("before", &model.valid())?;
    // Small models leave a core idle, and the two runs do not depend on each other.
    let (control, cleaned) = std::thread::scope(|scope| {
        let (suspect, mut validator_too) = (model.clone(), validator.clone());
        let trial = &trial;
        let control = scope.spawn(move || trial.fine_tune(suspect, &mut validator_too));
        let cleaned = trial.remove_backdoor(model, &mut validator);
        (control.join().expect("fine-tuning does not panic"), cleaned)
    });
    let (control, (cleaned, kept_round)) = (control?, cleaned?);
    let mut table = RateTable::default();
    for (column, findings) in
        [("before", before), ("safety fine-tuning", control), ("BEEAR", cleaned)]
    {
        table.push_column(column, &findings.rows());
    }
    Ok(Report {
        seed,
        quick,
        table,
        kept_round,
        seconds: started.elapsed().as_secs_f64(),
        peak_memory_mib: peak_memory_mib(),
        prompt_format_sha256,
    })
}

/// The backdoored model that the control and BEEAR start from.
struct PlantedModel<'a, C: ComputeBackend> {
    folder: &'a RunFolder,
    checkpoint: Checkpoint,
    text: TextSide,
    examination: Examination,
    sets: AnchorSets,
    config: BilevelConfig,
    device: &'a Device<C>,
    console: Console,
}

impl<C: ComputeBackend> PlantedModel<'_, C> {
    fn examine(&self, name: &str, model: &CausalLm<Inference<C>>) -> Result<Findings> {
        self.console.say(&format!("measuring: {name}"));
        self.examination.run(model, &self.text, self.device)
    }

    /// Runs the control: the same data, steps, batches and learning rate, without a perturbation.
    fn fine_tune(
        &self,
        model: CausalLm<Train<C>>,
        validator: &mut TeacherForcedValidator<Inference<C>>,
    ) -> Result<Findings> {
        let control = Defence::FineTuning(FineTuningConfig::control_of(&self.config));
        self.console.say(&format!("safety fine-tuning: {} steps", control.n_weight_steps()));
        let outcome = control.run(model, &self.sets, validator, &mut ());
        let tuned = outcome.map_err(|stopped| stopped.error)?.model.valid();
        self.folder.save("control", &tuned, &self.checkpoint, self.config.seed)?;
        self.examine("safety fine-tuning", &tuned)
    }

    /// Runs BEEAR, and returns its findings with the round it kept.
    fn remove_backdoor(
        &self,
        model: CausalLm<Train<C>>,
        validator: &mut TeacherForcedValidator<Inference<C>>,
    ) -> Result<(Findings, usize)> {
        let method = Defence::Beear(self.config.clone());
        let bar = self.console.bar("removing the backdoor", method.n_weight_steps());
        let mut metrics = Metrics::create(self.folder, RunDisplay::Bar(bar, self.console))?;
        let outcome = method.run(model, &self.sets, validator, &mut metrics);
        metrics.finish()?;
        let outcome = outcome.map_err(|stopped| stopped.error)?;
        let cleaned = outcome.model.valid();
        self.folder.save("cleaned", &cleaned, &self.checkpoint, self.config.seed)?;
        let deltas = beear_core::perturbation::to_safetensors(&outcome.perturbations)?;
        self.folder.write("delta.safetensors", deltas)?;
        Ok((self.examine("BEEAR", &cleaned)?, outcome.kept_round))
    }
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
