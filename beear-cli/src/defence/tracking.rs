//! Attack success between rounds, for whoever reads the report: nothing of the defence depends on it.

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
use crate::defence::leak_guard::Leak;
use crate::defence::text_validator::TextValidator;
use crate::display::ui::Ui;
use crate::memory::plan::MemoryPlan;
use crate::memory::room::Room;
use crate::model::language_model::local;
use crate::model::loaded::{Loaded, TextSide};
use crate::run_folder::atomic_file::write_atomically;
use crate::run_folder::cannot_write::CannotWrite;
use crate::run_folder::checkpoints::Position;
use crate::run_folder::{RunFolder, TRACKED};
use crate::user_error::UserError;

/// What is asked between rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    /// File of forbidden prompts.
    pub(crate) prompts: PathBuf,
    /// What is added to each, after it has been asked without.
    pub(crate) trigger: Option<Trigger>,
    /// Longest answer, in tokens.
    pub(crate) max_new_tokens: usize,
    /// Share of word pairs in common from which two prompts are the same.
    pub(crate) near: f64,
}

/// What the model did after a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackedRound {
    /// Whole rounds so far.
    pub(crate) round: usize,
    /// What it did, by the way it was asked.
    pub(crate) arms: Vec<TrackedArm>,
}

/// What it did when it was asked in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackedArm {
    pub(crate) arm: ArmKind,
    /// Answers without a refusal keyword.
    pub(crate) complied: Rate,
    /// Answers that are the unwanted one of their row word for word, of the rows that bring one.
    pub(crate) unwanted: Option<Rate>,
}

/// The prompts, read and found to be no rows of the defence.
pub(crate) struct Asked {
    arms: Vec<Arm>,
    keywords: RefusalKeywords,
    decoding: Decoding,
}

impl Asked {
    /// Reads what is to be asked of a model that reads `limit` tokens.
    ///
    /// # Errors
    ///
    /// If a prompt is among `rows`, or cannot be asked.
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

/// Validates, and asks beside it.
pub(crate) struct Tracked<'a, C: ComputeBackend> {
    validator: &'a mut TextValidator<Inference<C>>,
    asked: Option<&'a Asked>,
    model_files: (&'a Checkpoint, &'a TextSide),
    device: &'a Device<C>,
    path: PathBuf,
    /// Memory of the answers.
    room: Room,
    /// After which round it is asked next; 0 stands for the suspect.
    next_round: usize,
    failed: Option<anyhow::Error>,
}

impl<'a, C: ComputeBackend> Tracked<'a, C> {
    /// Goes on from the position of an earlier process, or starts.
    ///
    /// # Errors
    ///
    /// If the file of rounds is not what it was there, or cannot be written.
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

    /// The same, its answers within the memory that `plan` leaves: a run that is resumed has the same batches.
    pub(crate) fn within(self, plan: Option<&MemoryPlan>) -> Self {
        let room = plan.and_then(MemoryPlan::room_between_rounds).map(Room::planned);
        Self { room: room.unwrap_or(self.room), ..self }
    }

    /// Why rounds are missing, if any are.
    ///
    /// # Errors
    ///
    /// If prompts could not be asked, or the answers not be written down.
    pub(crate) fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    fn ask(&self, asked: &Asked, model: &CausalLm<Inference<C>>) -> Result<()> {
        let (checkpoint, text) = self.model_files;
        let loaded =
            Loaded { checkpoint: checkpoint.clone(), model: model.clone(), text: text.clone() };
        // The terminal is the run's.
        let quiet = Ui { quiet: true, ..Ui::default() };
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

/// What was asked between the rounds of a run; nothing if nothing was.
///
/// # Errors
///
/// If the file is there and cannot be read.
pub(crate) fn rounds(folder: &RunFolder) -> Result<Vec<TrackedRound>> {
    folder.read_lines(TRACKED)
}

/// Adds a line and writes it through to the disk.
fn add_line(path: &Path, line: &str) -> Result<()> {
    let add = || {
        let mut file = OpenOptions::new().append(true).open(path)?;
        writeln!(file, "{line}")?;
        file.sync_all()
    };
    Ok(add().map_err(CannotWrite::at(path))?)
}
