//! A defence from its inputs to a folder with the cleaned model. Several processes can run it one
//! after the other.

mod saved_model;

use anyhow::Result;
use beear_core::{AnchorSets, Defence, Error as CoreError, Outcome, Saved, Stopped};
use beear_models::{CausalLm, Checkpoint, TrainingScope, n_trained};
use burn::module::AutodiffModule;
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::json;

use crate::backend::heap;
use crate::backend::workers;
use crate::backend::{ComputeBackend, width};
use crate::command::{Device, Inference, Train};
use crate::defence::anchors::{self, Anchors, RowUse};
use crate::defence::run_control::{Reason, RunControl};
use crate::defence::run_end::{interrupted, keep_last_good, show};
use crate::defence::supervisor::{Schedule, Supervisor};
use crate::defence::text_validator::TextValidator;
use crate::defence::tracking::{Asked, Tracked};
use crate::display::console::Console;
use crate::display::dashboard::{Dashboard, Setup};
use crate::display::run_display::RunDisplay;
use crate::memory::plan::MemoryPlan;
use crate::memory::preflight;
use crate::memory::process::peak_memory_mib;
use crate::model::Model;
use crate::model::loaded::{Loaded, TextSide};
use crate::options::run_options::RunOptions;
use crate::recipe::Recipe;
use crate::recipe::keyword_list::keyword_list;
use crate::report;
use crate::run_folder::checkpoints::{Checkpoints, Restored};
use crate::run_folder::job::Job;
use crate::run_folder::manifest::{Ending, Manifest, ROWS, SETTINGS};
use crate::run_folder::metrics::Metrics;
use crate::run_folder::{LAST_GOOD, RunFolder, TRACKED, remove_any};

/// A defence whose input has been read and validated.
pub(crate) struct DefenceRun<'a, C: ComputeBackend> {
    job: Job,
    suspect: Model,
    recipe: Recipe,
    method: Defence,
    scope: TrainingScope,
    devices: Vec<Device<C>>,
    checkpoint: Checkpoint,
    text: TextSide,
    /// Model before training. It is `None` once training has begun, because two copies would take
    /// twice the memory.
    model: Option<CausalLm<Train<C>>>,
    n_trained: usize,
    sets: AnchorSets,
    validator: TextValidator<Inference<C>>,
    asked: Option<Asked>,
    rows: Vec<RowUse>,
    planned: Option<MemoryPlan>,
    device: &'a Device<C>,
    console: Console,
}

impl<'a, C: ComputeBackend> DefenceRun<'a, C> {
    /// Reads and validates all input.
    ///
    /// # Errors
    ///
    /// If the recipe, the model or the rows cannot be used.
    pub(crate) fn prepare(
        (job, suspect): (Job, Model),
        recipe: Recipe,
        device: &'a Device<C>,
        console: Console,
    ) -> Result<Self> {
        let size = suspect.open()?.config.size();
        let method = recipe.method(size)?;
        method.validate(size.n_layers)?;
        let devices = workers::devices::<C>(&method, job.workers.get(), device)?;
        let scope = recipe.scope(size.n_layers)?;
        let format = recipe.prompt_format.as_deref();
        let loaded = Loaded::<Train<C>>::read(&suspect, format, device)?;
        let files = (job.safety.as_path(), job.performance.as_path());
        heap::suit_threads(loaded.checkpoint.config.n_weights(), method.remove().threads);
        let anchors = anchors::build(files, &loaded, &recipe, (device, console))?;
        let task = anchors.task(&loaded.checkpoint, &scope);
        let planned = MemoryPlan::new(task, &method, width::<C>());
        let Anchors { sets, validator, rows, .. } = anchors;
        let Loaded { checkpoint, model, text } = loaded;
        let asked = job.track.as_ref().map(|track| {
            let seen = (rows.as_slice(), keyword_list(&recipe.keywords)?);
            Asked::read(track, seen, (&text, checkpoint.config.max_seq_length))
        });
        let asked = asked.transpose()?;
        let model = scope.apply(model, method.seed());
        Ok(Self {
            job,
            suspect,
            recipe,
            method,
            scope,
            devices,
            checkpoint,
            text,
            n_trained: n_trained(&model),
            model: Some(model),
            sets,
            validator,
            asked,
            rows,
            planned,
            device,
            console,
        })
    }

    /// Runs the defence in a reserved folder.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or the method fails.
    pub(crate) fn start(self, mut folder: RunFolder, options: RunOptions) -> Result<()> {
        let n_checkpoints = self.job.checkpoints.most_at_once();
        let trained = (n_checkpoints as u64, self.n_trained, width::<C>());
        preflight::space(&folder, &self.checkpoint, trained, self.console)?;
        preflight::memory(self.planned.as_ref(), self.console);
        folder.start()?;
        folder.write(SETTINGS, self.recipe.resolved(&self.method)?)?;
        folder.write_lines(ROWS, &self.rows)?;
        let mut manifest = self.manifest()?;
        manifest.add_inputs(&self.job, &self.suspect)?;
        manifest.add_records(&folder)?;
        manifest.write(&folder)?;
        folder.has_begun();
        self.run((&folder, manifest), None, options)
    }

    /// Returns a manifest with everything that is known before the first step, except hashes.
    fn manifest(&self) -> Result<Manifest> {
        let job = (&self.job, &self.suspect);
        let mut manifest = Manifest::begin::<C>(job, &self.recipe, (&self.method, &self.text))?;
        manifest.add("weights", json!(self.checkpoint.config.n_weights()));
        manifest.add("trained_weights", json!(self.n_trained));
        manifest.add("train", json!(self.scope));
        let left_out = self.checkpoint.left_out()?;
        let left_out: Vec<String> = left_out.iter().map(ToString::to_string).collect();
        for file in &left_out {
            self.console.say(&format!("not copied beside the cleaned weights: {file}"));
        }
        manifest.add("left_out", json!(left_out));
        Ok(manifest)
    }

    /// Resumes the defence in the folder of an earlier process.
    ///
    /// # Errors
    ///
    /// Errors of [`start`](Self::start), and an error if an input of the run has changed.
    pub(crate) fn resume(self, folder: RunFolder, options: RunOptions) -> Result<()> {
        let manifest = Manifest::read(&folder)?;
        manifest.same_facts(&self.manifest()?, &folder)?;
        let restored = self.job.checkpoints_in(&folder).newest()?;
        if let Some(restored) = &restored {
            restored.position.check(&folder)?;
        }
        for stale in ["model", "adapter", LAST_GOOD] {
            remove_any(&folder.path(stale))?;
        }
        match &restored {
            Some(restored) => self.console.say(&format!(
                "going on after step {}, round {}",
                restored.position.step,
                restored.position.rounds + 1
            )),
            None => self.console.say("no checkpoint is whole: starting from the beginning"),
        }
        self.run((&folder, manifest), restored, options)
    }

    fn run(
        mut self,
        (folder, mut manifest): (&RunFolder, Manifest),
        restored: Option<Restored>,
        options: RunOptions,
    ) -> Result<()> {
        let console = self.console;
        let (trained, all) = (self.n_trained, self.checkpoint.config.n_weights());
        console.say(&format!("training {trained} of {all} weights"));
        let checkpoints = self.job.checkpoints_in(folder);
        let path = folder.path("");
        let run_control = if options.tui {
            RunControl::behind_dashboard(&path, options.max_time)?
        } else {
            RunControl::listen(&path, options.max_time)?
        };
        let mut restored = restored;
        let (solved, seconds) = loop {
            let (solved, stopped, seconds) = self.attempt(
                (folder, &checkpoints),
                (&run_control, options.tui),
                restored.as_ref(),
            )?;
            match solved {
                Err(Stopped { error: CoreError::Interrupted, .. }) => {
                    return Err(interrupted(folder, stopped, self.has_checkpoints()));
                }
                Err(stopped) if is_not_finite(&stopped.error) && !was_halved(restored.as_ref()) => {
                    match self.rolled_back((folder, &checkpoints), &stopped.error)? {
                        Some(again) => restored = Some(again),
                        None => break (Err(stopped), seconds),
                    }
                }
                solved => break (solved, seconds),
            }
        };
        match solved {
            Ok(outcome) => {
                run_control.fulfilled();
                self.finish((folder, manifest), (outcome, seconds))
            }
            Err(stopped) => {
                // Resuming the run would fail in the same way.
                manifest.fail(folder, &stopped.error)?;
                self.job.remove_old_checkpoints(folder)?;
                report::write_or_say(folder, console);
                let error = keep_last_good(stopped, (&self.checkpoint, self.method.seed()), folder);
                if folder.path(LAST_GOOD).exists() {
                    folder.has_result()?;
                } else if folder.has_older() {
                    console.say("the older run is back: this one has left no weights");
                    folder.has_failed();
                }
                Err(error)
            }
        }
    }

    /// Runs the method, from the beginning or from a checkpoint, until it ends, is stopped or
    /// fails.
    #[expect(clippy::type_complexity, reason = "what the method ends with, beside why and when")]
    fn attempt(
        &mut self,
        (folder, checkpoints): (&RunFolder, &Checkpoints),
        (run_control, tui): (&RunControl, bool),
        restored: Option<&Restored>,
    ) -> Result<(
        Result<Outcome<Train<C>, CausalLm<Train<C>>>, Stopped<CausalLm<Train<C>>>>,
        Option<Reason>,
        f64,
    )> {
        let display = self.display(run_control, tui)?;
        let metrics = match restored {
            Some(from) => Metrics::reopen(folder, &from.position.metrics, display)?,
            None => Metrics::create(folder, display)?,
        };
        let schedule = Schedule {
            every: self.job.checkpoints.checkpoint_every,
            from: restored.map(|restored| restored.position.clone()),
        };
        let metrics = metrics.watched(self.recipe.watches());
        let mut supervisor = Supervisor::new(metrics, (folder, checkpoints), run_control, schedule);
        let tensor = restored.map(|restored| |name: &str| restored.tensors.tensor(name));
        let saved = restored
            .zip(tensor.as_ref())
            .map(|(restored, tensors)| Saved { progress: &restored.progress, tensors });
        let model = match self.model.take() {
            Some(model) => model,
            None => self.reloaded()?,
        };
        let mut tracked = Tracked::<C>::new(
            (&mut self.validator, self.asked.as_ref()),
            (&self.checkpoint, &self.text),
            self.device,
            (folder, restored.map(|restored| &restored.position)),
        )?
        .within(self.planned.as_ref());
        let from = (model, self.devices.as_slice());
        let solved =
            workers::run((&self.method, saved), from, &self.sets, &mut tracked, &mut supervisor);
        if let Err(error) = tracked.finish() {
            supervisor.say(&format!("`{TRACKED}` is not whole: {error:#}"));
        }
        let seconds = supervisor.seconds();
        let reason = supervisor.finish()?;
        Ok((solved, reason, seconds))
    }

    fn has_checkpoints(&self) -> bool {
        self.job.checkpoints.are_written()
    }

    /// Opens the progress display of an attempt: the bar or the dashboard.
    fn display(&self, run_control: &RunControl, tui: bool) -> Result<RunDisplay> {
        if !tui {
            let bar = self.console.bar("removing backdoors", self.method.n_weight_steps());
            return Ok(RunDisplay::Bar(bar, self.console));
        }
        let name = self.recipe.method_name()?.to_possible_value();
        let name = name.as_ref().map_or("", |name| name.get_name());
        let setup = Setup {
            title: format!("{} · {name} · {}", self.suspect.name(), C::NAME),
            watched: self.recipe.watches(),
            has_checkpoints: self.has_checkpoints(),
            planned_memory: self.planned.as_ref().map(|plan| plan.peak),
            ..Setup::of(&self.method)
        };
        let dashboard = Box::new(Dashboard::open(setup, run_control.asker())?);
        Ok(RunDisplay::Dashboard(dashboard, self.console, Vec::new()))
    }

    /// Returns the newest checkpoint with halved learning rates, or `None` if there is no
    /// checkpoint or its rates have been halved before.
    fn rolled_back(
        &self,
        (folder, checkpoints): (&RunFolder, &Checkpoints),
        error: &CoreError,
    ) -> Result<Option<Restored>> {
        let Some(mut restored) = checkpoints.newest()? else { return Ok(None) };
        if was_halved(Some(&restored)) {
            return Ok(None);
        }
        restored.progress.halve_rates();
        let step = restored.position.step;
        self.console.say(&format!("{error}: back to step {step}, at half the learning rates"));
        let hidden = RunDisplay::Bar(ProgressBar::hidden(), self.console);
        let mut metrics = Metrics::reopen(folder, &restored.position.metrics, hidden)?;
        metrics.add(&json!({
            "event": "rolled_back",
            "step": step,
            "rate_factor": restored.progress.rate_factor(),
            "because": error.to_string(),
        }));
        restored.position.metrics = metrics.sync()?;
        restored.position.rate_factor = restored.progress.rate_factor();
        Ok(Some(restored))
    }

    fn reloaded(&self) -> Result<CausalLm<Train<C>>> {
        let model = self.checkpoint.load(self.device)?;
        Ok(self.scope.apply(model, self.method.seed()))
    }

    fn finish(
        mut self,
        (folder, mut manifest): (&RunFolder, Manifest),
        (outcome, seconds): (Outcome<Train<C>, CausalLm<Train<C>>>, f64),
    ) -> Result<()> {
        let Outcome { model: trained, kept_round, perturbations, initial, rounds } = outcome;
        let model = trained.valid();
        drop(trained);
        folder.save("model", &model, &self.checkpoint, self.method.seed())?;
        let adapter = self.save_adapter(&model, folder)?;
        // Two models at a time would take twice the memory.
        drop(model);
        let saved = self.validate_saved(folder, &initial)?;
        if let Defence::Beear(_) = self.method {
            let deltas = beear_core::perturbation::to_safetensors(&perturbations)?;
            folder.write("delta.safetensors", &deltas)?;
        }
        let measured = peak_memory_mib().map(|mib| mib << 20);
        let memory = json!({
            "planned_peak": self.planned.as_ref().map(|plan| plan.peak),
            "measured_peak": measured,
            "plan": self.planned,
        });
        folder.write("memory.json", format!("{memory:#}\n"))?;
        folder.has_result()?;
        let ending = Ending {
            rounds: &rounds,
            kept_round,
            initial: initial.summary(),
            saved,
            adapter: adapter.as_deref(),
            seconds,
            peak_memory: measured,
        };
        manifest.end(folder, &self.recipe, &ending)?;
        self.job.remove_old_checkpoints(folder)?;
        report::write_or_say(folder, self.console);
        show(folder, &manifest, self.console)
    }
}

fn was_halved(restored: Option<&Restored>) -> bool {
    restored.is_some_and(|restored| restored.position.rate_factor < 1.0)
}

fn is_not_finite(error: &CoreError) -> bool {
    matches!(error, CoreError::NonFinite { .. } | CoreError::NonFiniteLogits { .. })
}
