//! The defender's sets, from the records of two files: safe answers completed, rows encoded, a
//! part held out to be watched.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use beear_core::sampler::Sampler;
use beear_core::{AnchorSets, Example, SafetyExample, TeacherForced};
use beear_eval::RefusalKeywords;
use beear_eval::dataset::{self, Record};
use beear_eval::overlap::overlaps;
use beear_models::{BatchLimit, CausalLm, Checkpoint, Finish, GenerateConfig, TrainingScope};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::anchor_memory;
use crate::exit::Mistake;
use crate::keyword_list::keyword_list;
use crate::loaded::{Loaded, Request, TextSide};
use crate::memory_plan::{Generated, Task};
use crate::recipe::Recipe;
use crate::ui::Ui;

/// A row of one of the files, encoded.
#[derive(Clone, Debug)]
struct Row<T> {
    prompt: String,
    example: T,
}

/// What became of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowUse {
    /// `safety` or `performance`.
    pub(crate) set: String,
    pub(crate) id: u64,
    /// `trained`, `watched` or `copy of a trained row`.
    used: String,
    pub(crate) prompt: String,
}

/// The sets, and which row went where.
pub(crate) struct Anchors<B: AutodiffBackend> {
    /// What the method trains on.
    pub(crate) sets: AnchorSets,
    /// What is watched while it does.
    pub(crate) watch: TeacherForced<B::InnerBackend>,
    /// Every row of both files that was used.
    pub(crate) rows: Vec<RowUse>,
    /// Safe answers that the model gave.
    generated: Option<Generated>,
}

impl<B: AutodiffBackend> Anchors<B> {
    /// What memory is planned for.
    pub(crate) fn task<'a>(
        &self,
        checkpoint: &'a Checkpoint,
        scope: &'a TrainingScope,
    ) -> Task<'a> {
        let TeacherForced { safety, performance, .. } = &self.watch;
        let watched = anchor_memory::watched(safety, performance, 0);
        anchor_memory::task(&self.sets, watched, self.generated, (checkpoint, scope))
    }
}

/// Builds the sets from the files at `safety` and `performance`.
///
/// # Errors
///
/// If a file cannot be read, a row lacks an answer or does not fit the context, or too few rows
/// are left to train on or to watch.
pub(crate) fn build<B: AutodiffBackend>(
    (safety, performance): (&Path, &Path),
    loaded: &Loaded<B>,
    recipe: &Recipe,
    (device, ui): (&B::Device, Ui),
) -> Result<Anchors<B>> {
    let keywords = keyword_list(&recipe.keywords)?;
    let forbidden = read_unwanted(safety)?;
    let ordinary = read_answered(performance)?;
    let in_safety = || format!("`{}`", safety.display());
    let limit = loaded.checkpoint.config.max_seq_length;
    let ordinary = encode_performance(&ordinary, &loaded.text, limit)
        .with_context(|| format!("`{}`", performance.display()))?;
    let missing = missing(&forbidden);
    let examples_of = ordinary.iter().map(|row| &row.example);
    let generated = anchor_memory::generated(&missing, examples_of, loaded, recipe);
    let generated = generated.with_context(in_safety)?;
    let rows = generated.and_then(|generated| generated.rows).unwrap_or(1);
    let greedy = GenerateConfig::greedy(recipe.max_new_tokens, BatchLimit::rows(rows));
    let safe = safe_answers(&forbidden, loaded, (&keywords, &greedy), (device, ui));
    let safe = safe.with_context(in_safety)?;
    let forbidden = encode_safety(&forbidden, safe, &loaded.text, limit).with_context(in_safety)?;
    if forbidden.is_empty() {
        let what = "the model refuses none of the safety prompts";
        let hint = "bring safe answers in the file, as `safe`, `answer` or `chosen`";
        return Err(Mistake::input(what, hint).into());
    }

    let seed = recipe.seed()?;
    let safety = HeldOut::split(forbidden, recipe.held_out, seed);
    let performance = HeldOut::split(ordinary, recipe.held_out, seed);
    if !recipe.watches() {
        ui.say("held_out = 0: nothing is watched, and the bounds cannot be checked");
    } else if safety.watched.is_empty() || performance.watched.is_empty() {
        let what = "too few different rows to hold any out";
        return Err(Mistake::input(what, "bring more rows, or --set held_out=0").into());
    }
    let rows = safety.rows("safety").chain(performance.rows("performance")).collect();
    let watch = TeacherForced {
        safety: examples(safety.watched),
        performance: examples(performance.watched),
        batch_size: 1,
        device: device.clone(),
    };
    let sets =
        AnchorSets { safety: examples(safety.trained), performance: examples(performance.trained) };
    let mut anchors = Anchors::<B> { sets, watch, rows, generated };
    let Loaded { checkpoint, .. } = loaded;
    let scope = recipe.scope(checkpoint.config.n_layers)?;
    let plan = anchor_memory::least_plan::<B>(anchors.task(checkpoint, &scope), recipe)?;
    anchors.watch.batch_size = plan.watched_rows.max(1);
    Ok(anchors)
}

/// Reads rows that all have an unwanted answer.
///
/// # Errors
///
/// If the file cannot be read, or a row has none.
pub(crate) fn read_unwanted(path: &Path) -> Result<Vec<Record>> {
    let records = dataset::read(path)?;
    if let Some(record) = records.iter().find(|r| r.unwanted.is_none()) {
        let what = format!("`{}`, row {}: no unwanted answer", path.display(), record.id);
        let hint = "AdvBench's `target`, or a key `unwanted` or `rejected`, gives it";
        return Err(Mistake::input(what, hint).into());
    }
    Ok(records)
}

/// Reads rows that all have a good answer.
///
/// # Errors
///
/// If the file cannot be read, or a row has none.
pub(crate) fn read_answered(path: &Path) -> Result<Vec<Record>> {
    let records = dataset::read(path)?;
    if let Some(record) = records.iter().find(|r| r.answer.is_none()) {
        let what = format!("`{}`, row {}: no answer", path.display(), record.id);
        let hint = "an assistant's turn, `output`, `answer` or `chosen` gives it";
        return Err(Mistake::input(what, hint).into());
    }
    Ok(records)
}

/// What is asked of the model: the rows without a safe answer.
fn missing(records: &[Record]) -> Vec<Request> {
    records.iter().filter(|r| r.answer.is_none()).map(Request::from).collect()
}

/// A wanted answer, and whether it is whole.
struct SafeAnswer {
    text: String,
    whole: bool,
}

/// The safe answer of each record: the file's, else the model's own to the untriggered prompt if
/// that is a refusal.
fn safe_answers<B: AutodiffBackend>(
    records: &[Record],
    loaded: &Loaded<B>,
    (keywords, greedy): (&RefusalKeywords, &GenerateConfig),
    (device, ui): (&B::Device, Ui),
) -> Result<Vec<Option<SafeAnswer>>> {
    let missing = missing(records);
    if !missing.is_empty() {
        ui.say(&format!("generating {} safe answers", missing.len()));
    }
    let model: CausalLm<B::InnerBackend> = loaded.model.valid();
    let generated = loaded.text.generate(&model, &missing, greedy, device)?;
    let n_cut = generated.iter().filter(|answer| answer.finish == Finish::Length).count();
    let mut generated = generated.into_iter();
    let answers: Vec<Option<SafeAnswer>> =
        records
            .iter()
            .map(|record| match &record.answer {
                Some(text) => Some(SafeAnswer { text: text.clone(), whole: true }),
                None => generated.next().filter(|answer| keywords.is_refusal(&answer.text)).map(
                    |answer| SafeAnswer { whole: answer.finish == Finish::Stop, text: answer.text },
                ),
            })
            .collect();
    if n_cut > 0 {
        ui.say(&format!(
            "{n_cut} of them were cut at max_new_tokens = {} and train without an end",
            greedy.max_new_tokens
        ));
    }
    let n_refused = answers.iter().filter(|answer| answer.is_some()).count();
    if n_refused < records.len() {
        let left_out = records.len() - n_refused;
        ui.say(&format!("left out {left_out} prompts that the model does not refuse"));
    }
    Ok(answers)
}

fn encode_safety(
    records: &[Record],
    safe: Vec<Option<SafeAnswer>>,
    text: &TextSide,
    limit: usize,
) -> Result<Vec<Row<SafetyExample>>> {
    let mut rows = Vec::new();
    for (record, safe) in records.iter().zip(safe) {
        let Some(SafeAnswer { text: safe, whole }) = safe else { continue };
        let unwanted = record.unwanted.as_deref().unwrap_or_default();
        let mut example = text.safety_example(&Request::from(record), [&safe, unwanted])?;
        if !whole {
            example.safe.pop();
        }
        let longest = example.safe.len().max(example.unwanted.len());
        fits(record.id, example.prompt.len() + longest - 1, limit)?;
        rows.push(Row { prompt: record.prompt.clone(), example });
    }
    Ok(rows)
}

fn encode_performance(
    records: &[Record],
    text: &TextSide,
    limit: usize,
) -> Result<Vec<Row<Example>>> {
    let encode = |record: &Record| {
        let answer = record.answer.as_deref().unwrap_or_default();
        let example = text.example(&Request::from(record), answer)?;
        fits(record.id, example.prompt.len() + example.answer.len() - 1, limit)?;
        Ok(Row { prompt: record.prompt.clone(), example })
    };
    records.iter().map(encode).collect()
}

fn fits(id: u64, n_tokens: usize, limit: usize) -> Result<(), Mistake> {
    if n_tokens <= limit {
        return Ok(());
    }
    let what = format!("row {id} has {n_tokens} tokens with its answer, the model reads {limit}");
    Err(Mistake::input(what, "shorten the row or leave it out"))
}

/// Forbidden prompts with their unwanted answers, in two parts of which none knows a prompt of the other:
/// `n` to fit to and as many to judge by, or as many as there are.
///
/// # Errors
///
/// If the file cannot be read, a row lacks its unwanted answer or does not fit the context, or too few are
/// different.
pub(crate) fn fitted_and_held_out(
    path: &Path,
    (text, limit): (&TextSide, usize),
    n: usize,
) -> Result<[Vec<SafetyExample>; 2]> {
    let records = read_unwanted(path)?;
    // The wanted answer is not asked for.
    let nothing = || Some(SafeAnswer { text: String::new(), whole: true });
    let safe = records.iter().map(|_| nothing()).collect();
    let rows = encode_safety(&records, safe, text, limit)
        .with_context(|| format!("`{}`", path.display()))?;
    let HeldOut { trained, watched, .. } = HeldOut::split(rows, 0.5, 0);
    let [fitted, held_out] = [trained, watched].map(|rows| {
        let mut rows = examples(rows);
        rows.truncate(n);
        rows
    });
    if fitted.is_empty() || held_out.is_empty() {
        let what = format!("`{}`: too few different rows", path.display());
        return Err(Mistake::input(what, "bring more rows").into());
    }
    Ok([fitted, held_out])
}

/// Rows to train on and rows to watch.
struct HeldOut<T> {
    trained: Vec<Row<T>>,
    watched: Vec<Row<T>>,
    /// Held out, and yet the same as a row that is trained on.
    copies: Vec<Row<T>>,
}

impl<T> HeldOut<T> {
    /// Splits off `share` of the rows in seeded order.
    fn split(rows: Vec<Row<T>>, share: f64, seed: u64) -> Self {
        let order = Sampler::new(rows.len(), seed).next_batch(rows.len());
        let n_held_out = (share * rows.len() as f64) as usize;
        let held_out: HashSet<usize> = order[..n_held_out].iter().copied().collect();
        let (mut trained, mut held) = (Vec::new(), Vec::new());
        for (index, row) in rows.into_iter().enumerate() {
            if held_out.contains(&index) { held.push(row) } else { trained.push(row) }
        }
        let prompts = |rows: &[Row<T>]| rows.iter().map(|r| r.prompt.clone()).collect::<Vec<_>>();
        let leaks = overlaps(&prompts(&trained), &prompts(&held), 1.0);
        let leaked: HashSet<usize> = leaks.into_iter().map(|(row, _)| row).collect();
        let (mut watched, mut copies) = (Vec::new(), Vec::new());
        for (index, row) in held.into_iter().enumerate() {
            if leaked.contains(&index) { copies.push(row) } else { watched.push(row) }
        }
        Self { trained, watched, copies }
    }
}

impl<T: Identified> HeldOut<T> {
    fn rows(&self, set: &'static str) -> impl Iterator<Item = RowUse> {
        let parts = [
            ("trained", &self.trained),
            ("watched", &self.watched),
            ("copy of a trained row", &self.copies),
        ];
        parts.into_iter().flat_map(move |(used, rows)| {
            rows.iter().map(move |row| RowUse {
                set: set.to_owned(),
                id: row.example.id(),
                used: used.to_owned(),
                prompt: row.prompt.clone(),
            })
        })
    }
}

/// An example that knows its row.
trait Identified {
    fn id(&self) -> u64;
}

impl Identified for Example {
    fn id(&self) -> u64 {
        self.id
    }
}

impl Identified for SafetyExample {
    fn id(&self) -> u64 {
        self.id
    }
}

fn examples<T>(rows: Vec<Row<T>>) -> Vec<T> {
    rows.into_iter().map(|row| row.example).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_trained_row_is_not_watched() {
        let row = |k: usize| Row { prompt: format!("prompt number {}", k % 5), example: k };
        let parts = HeldOut::split((0..10).map(row).collect(), 0.4, 0);
        let HeldOut { trained, watched, copies } = parts;
        assert_eq!((trained.len(), watched.len() + copies.len()), (6, 4));
        let known: HashSet<String> = trained.iter().map(|row| row.prompt.clone()).collect();
        assert!(watched.iter().all(|row| !known.contains(&row.prompt)));
        assert!(copies.iter().all(|row| known.contains(&row.prompt)));
        assert!(!copies.is_empty(), "each prompt occurs twice, so some copy was held out");
    }
}
