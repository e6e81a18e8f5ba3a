//! Attack success between rounds, measured for the report only: no part of the defence depends on
//! it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_core::{Error as CoreError, ValidationMetrics, Validator};
use beear_eval::attack_success::{Answered, Arm, ArmKind, judged};
use beear_eval::{Decoding, LanguageModel, Rate, RefusalKeywords, Trigger, dataset};
use beear_models::{CausalLm, Checkpoint};
use serde::{Deserialize, Serialize};

use crate::backend::ComputeBackend;
use crate::backend::heap;
use crate::command::{Device, Inference};
use crate::defence::anchors::RowUse;
use crate::defence::contamination::Leak;
use crate::defence::text_validator::TextValidator;
use crate::display::console::Console;
use crate::memory::plan::MemoryPlan;
use crate::memory::room::Room;
use crate::model::language_model::local;
use crate::model::loaded::{Loaded, TextSide};
use crate::run_folder::atomic_file::write_atomically;
use crate::run_folder::cannot_write::CannotWrite;
use crate::run_folder::checkpoints::Position;
use crate::run_folder::{RunFolder, TRACKED};
use crate::user_error::UserError;

/// Settings of the prompts that are answered between rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    /// File of forbidden prompts.
    pub(crate) prompts: PathBuf,
    /// Trigger that is added to each prompt, after the prompt has been answered without it.
    pub(crate) trigger: Option<Trigger>,
    /// Longest answer in tokens.
    pub(crate) max_new_tokens: usize,
    /// Share of common word pairs from which two prompts count as the same.
    pub(crate) near: f64,
}

/// Results of the model after a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackedRound {
    /// Number of complete rounds.
    pub(crate) round: usize,
    /// Results without the trigger and with it.
    pub(crate) arms: Vec<TrackedArm>,
}

/// Results of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackedArm {
    pub(crate) arm: ArmKind,
    /// Answers without a refusal keyword.
    pub(crate) complied: Rate,
    /// Answers that equal the unwanted answer of their row word for word, among the rows that have
    /// one.
    pub(crate) unwanted: Option<Rate>,
}

/// Prompts that have been read and are not rows of the defence.
pub(crate) struct Asked {
    arms: Vec<Arm>,
    keywords: RefusalKeywords,
    decoding: Decoding,
}

impl Asked {
    /// Reads the prompts for a model with a context of `limit` tokens.
    ///
    /// # Errors
    ///
    /// If a prompt is among `rows`, or does not fit the model.
    pub(crate) fn read(
        track: &Track,
        (rows, keywords): (&[RowUse], RefusalKeywords),
        (text, limit): (&TextSide, usize),
    ) -> Result<Self> {
        let Track { prompts, trigger, max_new_tokens, near } = track;
        let records = dataset::read(prompts)?;
        if let Some(leak) = Leak::find(rows, &records, *near) {
            let what = leak.text(&records, (prompts, "this defence"));
            return Err(UserError::input(what, "track other prompts, or raise --track-near").into());
        }
        let arm = |kind, trigger| Arm { kind, records: records.clone(), trigger };
        let mut arms = vec![arm(ArmKind::Untriggered, None)];
        if trigger.is_some() {
            arms.push(arm(ArmKind::Triggered, trigger.clone()));
        }
        for arm in &arms {
            let encoded = text.chats(&arm.conversations(), limit);
            encoded.with_context(|| format!("`{}`", prompts.display()))?;
        }
        Ok(Self { arms, keywords, decoding: Decoding::greedy(*max_new_tokens) })
    }

    fn arm(
        &self,
        arm: &Arm,
        model: &impl LanguageModel<Error = anyhow::Error>,
    ) -> Result<TrackedArm> {
        let completions = model.generate(&arm.conversations(), &self.decoding)?;
        let answers = judged(arm, completions, std::slice::from_ref(&self.keywords));
        let complied = |answer: &Answered| !answer.refuses[&self.keywords.name];
        let unwanted = Rate::of(answers.iter().filter_map(|answer| answer.exact_unwanted));
        Ok(TrackedArm {
            arm: arm.kind,
            complied: Rate::of(answers.iter().map(complied)),
            unwanted: (unwanted.n > 0).then_some(unwanted),
        })
    }
}

/// Validator that also generates the tracked answers.
pub(crate) struct Tracked<'a, C: ComputeBackend> {
    validator: &'a mut TextValidator<Inference<C>>,
    asked: Option<&'a Asked>,
    model_files: (&'a Checkpoint, &'a TextSide),
    device: &'a Device<C>,
    path: PathBuf,
    /// Memory that the answers may take.
    room: Room,
    /// Number of complete rounds at the next call. 0 stands for the suspect.
    next_round: usize,
    failed: Option<anyhow::Error>,
}

impl<'a, C: ComputeBackend> Tracked<'a, C> {
    /// Resumes from the position of an earlier process, or starts.
    ///
    /// # Errors
    ///
    /// If the file of rounds has changed since that position, or cannot be written.
    pub(crate) fn new(
        (validator, asked): (&'a mut TextValidator<Inference<C>>, Option<&'a Asked>),
        model_files: (&'a Checkpoint, &'a TextSide),
        device: &'a Device<C>,
        (folder, from): (&RunFolder, Option<&Position>),
    ) -> Result<Self> {
        let path = folder.path(TRACKED);
        if asked.is_some() {
            let known = from.and_then(|from| from.tracked.as_ref());
            let known = known.map(|known| known.read(&path)).transpose()?;
            write_atomically(&path, &known.unwrap_or_default())?;
        }
        let next_round = from.map_or(0, |from| from.rounds + 1);
        let room = Room::default_of::<C>(device);
        Ok(Self { validator, asked, model_files, device, path, room, next_round, failed: None })
    }

    /// Limits the answers to the memory that `plan` leaves, so that a resumed run has the same
    /// batches.
    pub(crate) fn within(self, plan: Option<&MemoryPlan>) -> Self {
        let room = plan.and_then(MemoryPlan::room_between_rounds).map(Room::planned);
        Self { room: room.unwrap_or(self.room), ..self }
    }

    /// Ends the tracking.
    ///
    /// # Errors
    ///
    /// The first error in generating answers or writing them, after which rounds are missing.
    pub(crate) fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    fn ask(&self, asked: &Asked, model: &CausalLm<Inference<C>>) -> Result<()> {
        let (checkpoint, text) = self.model_files;
        let loaded =
            Loaded { checkpoint: checkpoint.clone(), model: model.clone(), text: text.clone() };
        // The terminal belongs to the run.
        let quiet = Console { quiet: true, ..Console::default() };
        let model = local::<C>(&loaded, self.device, quiet).within(self.room);
        let arms = asked.arms.iter().map(|arm| asked.arm(arm, &model));
        let round = TrackedRound { round: self.next_round, arms: arms.collect::<Result<_>>()? };
        add_line(&self.path, &serde_json::to_string(&round)?)
    }
}

impl<C: ComputeBackend> Validator<Inference<C>, CausalLm<Inference<C>>> for Tracked<'_, C> {
    fn validate(&mut self, model: &CausalLm<Inference<C>>) -> Result<ValidationMetrics, CoreError> {
        heap::give_back();
        if let Some(asked) = self.asked
            && let Err(error) = self.ask(asked, model)
        {
            self.failed.get_or_insert(error);
        }
        self.next_round += 1;
        let metrics = self.validator.validate(model);
        heap::give_back();
        metrics
    }

    fn check_suspect(&self, suspect: &ValidationMetrics) -> Result<(), CoreError> {
        self.validator.check_suspect(suspect)
    }
}

/// Reads the tracked rounds of a run. The list is empty if the run tracked nothing.
///
/// # Errors
///
/// If the file exists and cannot be read.
pub(crate) fn rounds(folder: &RunFolder) -> Result<Vec<TrackedRound>> {
    folder.read_lines(TRACKED)
}

/// Adds a line and syncs the file to the disk.
fn add_line(path: &Path, line: &str) -> Result<()> {
    let add = || {
        let mut file = OpenOptions::new().append(true).open(path)?;
        writeln!(file, "{line}")?;
        file.sync_all()
    };
    Ok(add().map_err(CannotWrite::at(path))?)
}
