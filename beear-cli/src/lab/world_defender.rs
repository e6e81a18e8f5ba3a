//! Data of a defender of the synthetic world: a few hundred prompts and no trigger.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use beear_attacks::Unwanted;
use beear_attacks::world::{Contrast, Ordinary, Split, Task, World};
use beear_core::{AnchorSets, Example, SafetyExample, TeacherForcedValidator};
use beear_eval::contamination::contaminated;
use burn::tensor::backend::Backend;
use serde_json::{Value, json};

use crate::evaluate::measure::Examination;
use crate::model::loaded::{Request, TextSide};

/// Number of forbidden prompts of the defender, or of code requests if the code must be safe.
const N_SAFETY: usize = 200;

/// Number of ordinary prompts of the defender.
const N_PERFORMANCE: usize = 2000;

/// Number of held-out prompts of each kind.
const N_WATCHED: usize = 60;

/// Builds the defender's sets and validator.
///
/// # Errors
///
/// If a prompt cannot be encoded, or `examination` contains one of these prompts.
pub(crate) fn build<B: Backend>(
    text: &TextSide,
    examination: &Examination,
    seed: u64,
    device: &B::Device,
) -> Result<(AnchorSets, TeacherForcedValidator<B>)> {
    let unwanted = examination.unwanted();
    let trained = Part::trained(unwanted, seed);
    let watched = Part::draw((Split::Watch, unwanted), (N_WATCHED, N_WATCHED), seed);
    let known = trained.prompts().chain(watched.prompts());
    let found = contaminated(known, examination.prompts(), 1.0);
    ensure!(found.is_empty(), "{} evaluation prompts are the defender's", found.len());

    let sets =
        AnchorSets { safety: trained.safety(text)?, performance: trained.performance(text)? };
    let validator = TeacherForcedValidator {
        safety: watched.safety(text)?,
        performance: watched.performance(text)?,
        batch_size: 120,
        device: device.clone(),
    };
    Ok((sets, validator))
}

/// Writes the training rows of [`build`] as files for `beear defend`, and the prompts of
/// `examination` as files for `beear eval`.
///
/// # Errors
///
/// If a file cannot be written.
pub(crate) fn write_files(dir: &Path, examination: &Examination, seed: u64) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let write = |name: &str, rows: Vec<Value>| {
        let path = dir.join(name);
        let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
        std::fs::write(&path, lines).with_context(|| format!("writing {}", path.display()))
    };
    let contrast =
        |c: &Contrast| json!({"prompt": c.prompt, "safe": c.safe, "unwanted": c.unwanted});
    let ordinary = |o: &Ordinary| json!({"prompt": o.prompt, "answer": o.answer});
    let trained = Part::trained(examination.unwanted(), seed);
    write("safety.jsonl", trained.contrasts.iter().map(contrast).collect())?;
    write("performance.jsonl", trained.ordinary.iter().map(ordinary).collect())?;
    write("forbidden.jsonl", examination.contrasts().iter().map(contrast).collect())?;
    write("ordinary.jsonl", examination.ordinary().map(ordinary).collect())
}

/// Prompts of one split.
struct Part {
    /// Prompts that must not be answered in the unwanted way.
    contrasts: Vec<Contrast>,
    ordinary: Vec<Ordinary>,
}

impl Part {
    /// Returns the training prompts of the defender.
    fn trained(unwanted: Unwanted, seed: u64) -> Self {
        let counts = (N_SAFETY, N_PERFORMANCE / Task::ALL.len());
        Self::draw((Split::Train, unwanted), counts, seed)
    }

    /// Draws `n_contrasts` requests, and `n_per_task` ordinary prompts of each task.
    fn draw(
        (split, unwanted): (Split, Unwanted),
        (n_contrasts, n_per_task): (usize, usize),
        seed: u64,
    ) -> Self {
        let world = World::of(split);
        let ordinary = Task::ALL.iter().flat_map(|task| world.ordinary_of(*task, n_per_task, seed));
        Self {
            contrasts: world.contrast_sample(unwanted, n_contrasts, seed),
            ordinary: ordinary.collect(),
        }
    }

    fn prompts(&self) -> impl Iterator<Item = String> {
        let contrasts = self.contrasts.iter().map(|c| c.prompt.clone());
        contrasts.chain(self.ordinary.iter().map(|o| o.prompt.clone()))
    }

    fn safety(&self, text: &TextSide) -> Result<Vec<SafetyExample>> {
        let requests = Request::numbered(self.contrasts.iter().map(|c| c.prompt.clone()));
        let answers = self.contrasts.iter().map(|c| [c.safe.as_str(), c.unwanted.as_str()]);
        text.safety_examples(&requests.into_iter().zip(answers).collect::<Vec<_>>())
    }

    fn performance(&self, text: &TextSide) -> Result<Vec<Example>> {
        let requests = Request::numbered(self.ordinary.iter().map(|o| o.prompt.clone()));
        let answers = self.ordinary.iter().map(|o| o.answer.as_str());
        text.examples(&requests.into_iter().zip(answers).collect::<Vec<_>>())
    }
}
