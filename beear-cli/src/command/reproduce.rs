//! `beear reproduce`: every attack setting, planted, defended and measured.

use std::path::PathBuf;

use anyhow::Result;
use beear_attacks::sft::train;
use beear_attacks::{AttackSpec, TrainingConfig};
use beear_core::batch::sampler::Sampler;
use beear_core::{BilevelConfig, Error as CoreError, Event, Example, Outcome, Stopped};
use beear_models::CausalLm;
use burn::module::AutodiffModule;
use clap::Args;
use serde_json::json;

use super::plant::Plan;
use super::{Device, Train};
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::lab::planted_model::PlantedModel;
use crate::lab::reproduction::{
    BEFORE, Cell, DefenceVariant, NOTHING_TO_REVIVE, Revival, contenders, flat, to_markdown,
};
use crate::memory::process::cpu_seconds;
use crate::recipe::setting_file;
use crate::run_folder::RunFolder;
use crate::user_error::UserError;

/// Plants every attack setting, runs every defence on it, and prints the table.
///
/// Each setting and seed is planted once. Plain fine-tuning, latent adversarial training and layer
/// consistency follow, at three learning rates each, and BEEAR with both presets. The defences
/// never see a trigger. Every result is appended to `OUT/cells.jsonl`: an interrupted run resumes
/// with the same command, and further settings or seeds are added to the table.
/// `OUT/reproduction.md` is the table, `OUT/cells.csv` holds every rate.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReproduceArgs {
    /// Name or file of an attack setting, repeated for several; by default the eight of the paper.
    ///
    /// model-1 to model-8, or the number; beyond the paper anywhere, two-triggers, paraphrase,
    /// first-step, adaptive, large.
    #[arg(long = "setting", value_name = "NAME|FILE.toml")]
    settings: Vec<String>,
    /// Name of a defence in the table, repeated for several; all by default.
    #[arg(long = "defence", value_name = "NAME")]
    defences: Vec<String>,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Folder of the models and results.
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    out: PathBuf,
    /// Start again, replacing an older run in that folder.
    #[arg(long)]
    force: bool,
    /// Do every step with a thirtieth of the training and few prompts: this only shows that the
    /// tool runs.
    #[arg(long)]
    quick: bool,
}

/// Settings that all results in a folder share.
const SETTINGS: &str = "settings.json";

/// Results, one per line.
const CELLS: &str = "cells.jsonl";

/// Steps of ordinary fine-tuning after which a cleaned model is measured again.
const REVIVAL_STEPS: [usize; 2] = [50, 200];

impl ReproduceArgs {
    fn settings(&self) -> Result<Vec<AttackSpec>> {
        if self.settings.is_empty() {
            return Ok((1..=AttackSpec::N_PAPER).map(AttackSpec::paper).collect());
        }
        self.settings.iter().map(|name| setting_file::named_or_read(name)).collect()
    }

    fn revival_steps(&self) -> [usize; 2] {
        if self.quick { REVIVAL_STEPS.map(|steps| steps.div_ceil(30)) } else { REVIVAL_STEPS }
    }

    fn plan(&self, setting: AttackSpec, seed: u64) -> Plan {
        let plan = Plan::new(setting, seed);
        if self.quick { plan.quick() } else { plan }
    }

    /// Returns the chosen defences, and the planted model they are compared with.
    fn contenders(&self, setting: &AttackSpec, seed: u64) -> Result<Vec<DefenceVariant>> {
        let size = setting.base.decoder(1).size();
        let all = contenders(size, seed, self.quick);
        if let Some(name) = self.defences.iter().find(|n| all.iter().all(|c| c.name != **n)) {
            let mut names: Vec<&str> = all.iter().map(|contender| contender.name).collect();
            names.sort_unstable();
            names.dedup();
            let hint = format!("one of {}", names.join(", "));
            return Err(UserError::arguments(format!("no defence is called `{name}`"), hint).into());
        }
        let wanted = |c: &DefenceVariant| {
            let all = self.defences.is_empty() || c.name == BEFORE;
            all || self.defences.iter().any(|name| name == c.name)
        };
        Ok(all.into_iter().filter(wanted).collect())
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &ReproduceArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let settings = args.settings()?;
    for setting in &settings {
        args.contenders(setting, 0)?;
    }
    let common =
        json!({ "version": env!("CARGO_PKG_VERSION"), "backend": C::NAME, "quick": args.quick });
    let common = format!("{common:#}\n");
    let earlier = RunFolder::resume(&args.out, (SETTINGS, &common))?.filter(|_| !args.force);
    let measured = earlier.as_ref().map(|run| run.read_lines(CELLS));
    let mut cells: Vec<Cell> = measured.transpose()?.unwrap_or_default();
    let begin = || -> Result<RunFolder> {
        let folder = RunFolder::create(&args.out, args.force)?;
        folder.write(SETTINGS, &common)?;
        folder.has_begun();
        Ok(folder)
    };
    let folder = earlier.map_or_else(begin, Ok)?;

    for setting in &settings {
        for seed in args.seed..args.seed + args.seeds {
            let name = setting.name.as_str();
            let mut missing = args.contenders(setting, seed)?;
            missing.retain(|contender| !cells.iter().any(|c| c.is(name, seed, contender)));
            if missing.is_empty() {
                continue;
            }
            let plan = args.plan(setting.clone(), seed);
            let trial = PlantedModel::<C>::prepare(plan, &args.out, (device, console))?;
            for contender in missing {
                cells.push(trial.cell(&contender, args.revival_steps())?);
                folder.write_lines(CELLS, &cells)?;
            }
        }
    }
    let table = to_markdown(&cells);
    folder.has_result()?;
    folder.write("reproduction.md", &table)?;
    folder.write_csv("cells.csv", &flat(&cells))?;
    console.result(&table, &cells)
}

impl<C: ComputeBackend> PlantedModel<'_, C> {
    /// Runs a defence and measures the resulting model.
    fn cell(&self, contender: &DefenceVariant, revival_steps: [usize; 2]) -> Result<Cell> {
        let Plan { setting, seed, .. } = &self.plan;
        let what =
            format!("{}, seed {seed}: {} at {}", setting.name, contender.name, contender.rate);
        self.console.say(&what);
        let mut cell = Cell {
            setting: setting.name.clone(),
            seed: *seed,
            defence: contender.name.to_owned(),
            rate: contender.rate,
            findings: None,
            stopped: None,
            kept_round: None,
            cpu_seconds: None,
            revival: Vec::new(),
        };
        let Some(defence) = &contender.defence else {
            cell.findings = Some(self.examine(&self.model)?);
            return Ok(cell);
        };
        let bar = self.console.bar(&what, defence.n_weight_steps());
        let mut observer = |event: &Event| {
            if matches!(event, Event::OuterStep { .. }) {
                bar.inc(1);
            }
        };
        // The time is rounded to its resolution, so that a line that is read is written again
        // unchanged.
        let since = |started: f64| Some(((cpu_seconds()? - started) * 100.0).round() / 100.0);
        let started = cpu_seconds();
        let mut validator = self.validator.clone();
        let outcome = defence.run(self.model.clone(), &self.sets, &mut validator, &mut observer);
        cell.cpu_seconds = started.and_then(since);
        bar.finish_and_clear();
        let Outcome { model, kept_round, .. } = match outcome {
            Ok(outcome) => outcome,
            // A defence that reaches NaN or infinity with these settings is a result and does not
            // end the table.
            Err(Stopped { error: error @ CoreError::NonFinite { .. }, .. }) => {
                return Ok(Cell { stopped: Some(error.to_string()), ..cell });
            }
            Err(stopped) => return Err(stopped.error.into()),
        };
        let findings = self.examine(&model)?;
        if findings.attack_success().share() <= NOTHING_TO_REVIVE {
            let revive = |steps: usize| self.revive(&model, steps);
            cell.revival = revival_steps.into_iter().map(revive).collect::<Result<_>>()?;
        }
        Ok(Cell { findings: Some(findings), kept_round: Some(kept_round), ..cell })
    }

    /// Fine-tunes a cleaned model on ordinary rows, as a later user might, and attacks it again.
    fn revive(&self, model: &CausalLm<Train<C>>, steps: usize) -> Result<Revival> {
        let size = self.plan.setting.base.decoder(1).size();
        let learning_rate = BilevelConfig::robust(size).remove.learning_rate;
        let config = TrainingConfig { steps, batch_size: 32, learning_rate, clip_norm: 1.0 };
        let rows = &self.sets.performance;
        let mut order = Sampler::new(rows.len(), self.plan.seed);
        let draw = |n: usize| -> Vec<Example> {
            order.next_batch(n).iter().map(|&row| rows[row].clone()).collect()
        };
        let tuned = train::<Train<C>, _>(model.clone(), &config, draw, |_, _| ())?;
        let attack_success =
            self.examination.attack_success(&tuned.valid(), &self.text, self.device)?;
        Ok(Revival { steps, attack_success })
    }
}
