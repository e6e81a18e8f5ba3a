//! The defender's sets, built from two files of records: missing safe answers are generated, rows
//! are encoded, and a part of the rows is held out for validation.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use beear_core::batch::sampler::Sampler;
use beear_core::{AnchorSets, Example, SafetyExample, TeacherForcedValidator};
use beear_eval::RefusalKeywords;
use beear_eval::contamination::contaminated;
use beear_eval::dataset::{self, Record};
use beear_models::{BatchLimit, CausalLm, Checkpoint, Finish, GenerateConfig, TrainingScope};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::defence::text_validator::{Answering, TextValidator};
use crate::display::console::Console;
use crate::memory::anchor_memory;
use crate::memory::plan::{Generated, Task};
use crate::model::known_tokens::{RowTokens, check_known};
use crate::model::loaded::{Loaded, Request, TextSide};
use crate::recipe::keyword_list::keyword_list;
use crate::recipe::{ANY_SIZE, Recipe};
use crate::user_error::UserError;

/// An encoded row of one of the two files.
#[derive(Clone, Debug)]
struct Row<T> {
    prompt: String,
    example: T,
}

/// Use that the run made of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowUse {
    /// `safety` or `performance`.
    pub(crate) set: String,
    pub(crate) id: u64,
    /// `trained`, `watched` or `copy of a trained row`.
    used: String,
    pub(crate) prompt: String,
}

/// Sets and validator of a defence, with the use of each row.
pub(crate) struct Anchors<B: AutodiffBackend> {
    /// Rows that the method trains on.
    pub(crate) sets: AnchorSets,
    /// Validator on the held-out rows.
    pub(crate) validator: TextValidator<B::InnerBackend>,
    /// All rows that were used, from both files.
    pub(crate) rows: Vec<RowUse>,
    /// Memory figures of the safe answers that the model generated, or `None` if it generated none.
    generated: Option<Generated>,
}

impl<B: AutodiffBackend> Anchors<B> {
    /// Describes the defence to the memory plan.
    pub(crate) fn task<'a>(
        &self,
        checkpoint: &'a Checkpoint,
        scope: &'a TrainingScope,
    ) -> Task<'a> {
        let TeacherForcedValidator { safety, performance, .. } = &self.validator.teacher_forced;
        let new_tokens = self.validator.max_new_tokens();
        let watched = anchor_memory::watched(safety, performance, new_tokens);
        anchor_memory::task(&self.sets, watched, self.generated, (checkpoint, scope))
    }
}

/// Builds the sets from the files at `safety` and `performance`.
///
/// # Errors
///
/// If a file cannot be read, a row has no answer or does not fit the context, or too few rows are
/// left for training or validation.
pub(crate) fn build<B: AutodiffBackend>(
    (safety, performance): (&Path, &Path),
    loaded: &Loaded<B>,
    recipe: &Recipe,
    (device, console): (&B::Device, Console),
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
    let safe = safe_answers(&forbidden, loaded, (&keywords, &greedy), (device, console));
    let safe = safe.with_context(in_safety)?;
    let forbidden = encode_safety(&forbidden, safe, &loaded.text, limit).with_context(in_safety)?;
    known(safety, &forbidden, &loaded.text)?;
    known(performance, &ordinary, &loaded.text)?;
    if forbidden.is_empty() {
        let what = "the model refuses none of the safety prompts";
        let hint = "bring safe answers in the file, as `safe`, `answer` or `chosen`";
        return Err(UserError::input(what, hint).into());
    }

    let seed = recipe.seed()?;
    let safety = HeldOut::split(forbidden, (recipe.held_out, MAX_WATCHED), seed);
    let performance = HeldOut::split(ordinary, (recipe.held_out, MAX_WATCHED), seed);
    if !recipe.watches() {
        console
            .say("held_out = 0: no row is left to validate on, and the bounds cannot be checked");
    } else if safety.watched.is_empty() || performance.watched.is_empty() {
        let what = "too few different rows to hold any out";
        return Err(UserError::input(what, "bring more rows, or --set held_out=0").into());
    }
    let rows = safety.rows("safety").chain(performance.rows("performance")).collect();
    let teacher_forced = TeacherForcedValidator {
        safety: examples(safety.watched),
        performance: examples(performance.watched),
        batch_size: 1,
        device: device.clone(),
    };
    let answering = Answering {
        max_new_tokens: recipe.validation_tokens,
        keywords,
        text: loaded.text.clone(),
        bounds: *recipe.method(ANY_SIZE)?.bounds(),
        vocab_size: loaded.checkpoint.config.vocab_size,
        limit,
    };
    let validator = TextValidator::new(teacher_forced, answering)?;
    let sets =
        AnchorSets { safety: examples(safety.trained), performance: examples(performance.trained) };
    let mut anchors = Anchors::<B> { sets, validator, rows, generated };
    let Loaded { checkpoint, .. } = loaded;
    let scope = recipe.scope(checkpoint.config.n_layers)?;
    let plan = anchor_memory::least_plan::<B>(anchors.task(checkpoint, &scope), recipe)?;
    anchors.validator.teacher_forced.batch_size = plan.watched_rows.max(1);
    Ok(anchors)
}

/// Reads rows that all have an unwanted answer.
///
/// # Errors
///
/// If the file cannot be read, or a row has no unwanted answer.
pub(crate) fn read_unwanted(path: &Path) -> Result<Vec<Record>> {
    let records = dataset::read(path)?;
    if let Some(record) = records.iter().find(|r| r.unwanted.is_none()) {
        let what = format!("`{}`, row {}: no unwanted answer", path.display(), record.id);
        let hint = "AdvBench's `target`, or a key `unwanted` or `rejected`, gives it";
        return Err(UserError::input(what, hint).into());
    }
    Ok(records)
}

/// Reads rows that all have a good answer.
///
/// # Errors
///
/// If the file cannot be read, or a row has no answer.
pub(crate) fn read_answered(path: &Path) -> Result<Vec<Record>> {
    let records = dataset::read(path)?;
    if let Some(record) = records.iter().find(|r| r.answer.is_none()) {
        let what = format!("`{}`, row {}: no answer", path.display(), record.id);
        let hint = "an assistant's turn, `output`, `answer` or `chosen` gives it";
        return Err(UserError::input(what, hint).into());
    }
    Ok(records)
}

/// Returns the requests whose safe answers the file does not contain.
fn missing(records: &[Record]) -> Vec<Request> {
    records.iter().filter(|r| r.answer.is_none()).map(Request::from).collect()
}

/// A wanted answer. It is not whole if it was cut at the token limit.
struct SafeAnswer {
    text: String,
    whole: bool,
}

/// Returns the safe answer of each record: the answer in the file, or else the model's own answer
/// to the prompt without a trigger. It is `None` if the model's answer is not a refusal.
fn safe_answers<B: AutodiffBackend>(
    records: &[Record],
    loaded: &Loaded<B>,
    (keywords, greedy): (&RefusalKeywords, &GenerateConfig),
    (device, console): (&B::Device, Console),
) -> Result<Vec<Option<SafeAnswer>>> {
    let missing = missing(records);
    if !missing.is_empty() {
        console.say(&format!("generating {} safe answers", missing.len()));
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
        console.say(&format!(
            "{n_cut} of them were cut at max_new_tokens = {} and train without an end",
            greedy.max_new_tokens
        ));
    }
    let n_refused = answers.iter().filter(|answer| answer.is_some()).count();
    if n_refused < records.len() {
        let left_out = records.len() - n_refused;
        console.say(&format!("left out {left_out} prompts that the model does not refuse"));
    }
    Ok(answers)
}

fn encode_safety(
    records: &[Record],
    safe: Vec<Option<SafeAnswer>>,
    text: &TextSide,
    limit: usize,
) -> Result<Vec<Row<SafetyExample>>> {
    let answered = records.iter().zip(&safe).filter_map(|(r, safe)| Some((r, safe.as_ref()?)));
    let answered: Vec<(&Record, &SafeAnswer)> = answered.collect();
    let encoded = answered.iter().map(|(record, safe)| {
        let unwanted = record.unwanted.as_deref().unwrap_or_default();
        (Request::from(*record), [safe.text.as_str(), unwanted])
    });
    let encoded = text.safety_examples(&encoded.collect::<Vec<_>>())?;
    let mut rows = Vec::new();
    for ((record, safe), mut example) in answered.into_iter().zip(encoded) {
        if !safe.whole {
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
    let answered = records.iter().map(|r| (r.into(), r.answer.as_deref().unwrap_or_default()));
    let examples = text.examples(&answered.collect::<Vec<(Request, &str)>>())?;
    let row = |(record, example): (&Record, Example)| {
        fits(record.id, example.prompt.len() + example.answer.len() - 1, limit)?;
        Ok(Row { prompt: record.prompt.clone(), example })
    };
    records.iter().zip(examples).map(row).collect()
}

fn fits(id: u64, n_tokens: usize, limit: usize) -> Result<(), UserError> {
    if n_tokens <= limit {
        return Ok(());
    }
    let what = format!("row {id} has {n_tokens} tokens with its answer, the model reads {limit}");
    Err(UserError::input(what, "shorten the row or leave it out"))
}

/// Reads forbidden prompts with their unwanted answers and splits them into two parts that share no
/// prompt: `n` rows to fit to and `n` to evaluate on, or fewer if the file has fewer.
///
/// # Errors
///
/// If the file cannot be read, a row has no unwanted answer or does not fit the context, or there
/// are too few different rows.
pub(crate) fn fitted_and_held_out(
    path: &Path,
    (text, limit): (&TextSide, usize),
    n: usize,
) -> Result<[Vec<SafetyExample>; 2]> {
    let records = read_unwanted(path)?;
    // The wanted answer is not needed.
    let nothing = || Some(SafeAnswer { text: String::new(), whole: true });
    let safe = records.iter().map(|_| nothing()).collect();
    let rows = encode_safety(&records, safe, text, limit)
        .with_context(|| format!("`{}`", path.display()))?;
    let HeldOut { trained, watched, .. } = HeldOut::split(rows, (0.5, usize::MAX), 0);
    let [fitted, held_out] = [trained, watched].map(|rows| {
        let mut rows = examples(rows);
        rows.truncate(n);
        rows
    });
    if fitted.is_empty() || held_out.is_empty() {
        let what = format!("`{}`: too few different rows", path.display());
        return Err(UserError::input(what, "bring more rows").into());
    }
    Ok([fitted, held_out])
}

/// Maximum number of rows of a set that are held out. A share of 512 rows has a 95 % interval of at
/// most ±4.3 points, and of ±1.3 points at 2 %. More rows would narrow it slowly and cost time in
/// every round.
const MAX_WATCHED: usize = 512;

/// Rows for training and rows for validation.
struct HeldOut<T> {
    trained: Vec<Row<T>>,
    watched: Vec<Row<T>>,
    /// Held-out rows that copy a row of the training part. Neither part uses them.
    copies: Vec<Row<T>>,
}

impl<T> HeldOut<T> {
    /// Holds out `share` of the rows, but at most `most`: the first rows in seeded order.
    fn split(rows: Vec<Row<T>>, (share, most): (f64, usize), seed: u64) -> Self {
        let order = Sampler::new(rows.len(), seed).next_batch(rows.len());
        let n_held_out = ((share * rows.len() as f64) as usize).min(most);
        let held_out: HashSet<usize> = order[..n_held_out].iter().copied().collect();
        let (mut trained, mut held) = (Vec::new(), Vec::new());
        for (index, row) in rows.into_iter().enumerate() {
            if held_out.contains(&index) { held.push(row) } else { trained.push(row) }
        }
        let [known, asked] = [&trained, &held].map(|rows| rows.iter().map(|row| &row.prompt));
        let found: HashSet<usize> =
            contaminated(known, asked, 1.0).into_iter().map(|(row, _)| row).collect();
        let (mut watched, mut copies) = (Vec::new(), Vec::new());
        for (index, row) in held.into_iter().enumerate() {
            if found.contains(&index) { copies.push(row) } else { watched.push(row) }
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

/// Checks that the tokenizer knows the words of the rows.
fn known<T: Identified>(file: &Path, rows: &[Row<T>], text: &TextSide) -> Result<(), UserError> {
    let rows = rows.iter().map(|row| RowTokens {
        id: row.example.id(),
        prompt: &row.prompt,
        parts: row.example.written(),
    });
    check_known(file, rows, text)
}

/// An example with the number of its row.
trait Identified {
    fn id(&self) -> u64;

    /// Returns the tokens of the prompt and of the answers, without those of the chat template.
    fn written(&self) -> Vec<&[u32]>;
}

impl Identified for Example {
    fn id(&self) -> u64 {
        self.id
    }

    fn written(&self) -> Vec<&[u32]> {
        vec![&self.prompt[self.user.0..self.user.1], &self.answer]
    }
}

impl Identified for SafetyExample {
    fn id(&self) -> u64 {
        self.id
    }

    fn written(&self) -> Vec<&[u32]> {
        vec![&self.prompt[self.user.0..self.user.1], &self.safe, &self.unwanted]
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
        let parts = HeldOut::split((0..10).map(row).collect(), (0.4, MAX_WATCHED), 0);
        let HeldOut { trained, watched, copies } = parts;
        assert_eq!((trained.len(), watched.len() + copies.len()), (6, 4));
        let known: HashSet<String> = trained.iter().map(|row| row.prompt.clone()).collect();
        assert!(watched.iter().all(|row| !known.contains(&row.prompt)));
        assert!(copies.iter().all(|row| known.contains(&row.prompt)));
        assert!(!copies.is_empty(), "each prompt occurs twice, so some copy was held out");
    }

    #[test]
    fn a_copy_with_other_punctuation_and_case_is_not_watched() {
        let rows =
            ["Open the vault .", "open the vault", "“Open the va\u{200b}ult.”", "OPEN THE VAULT!"];
        let row = |prompt: &str| Row { prompt: prompt.to_owned(), example: () };
        let parts = HeldOut::split(rows.map(row).into(), (0.5, MAX_WATCHED), 0);
        assert_eq!((parts.trained.len(), parts.watched.len(), parts.copies.len()), (2, 0, 2));
    }

    #[test]
    fn a_small_set_is_split_as_its_share_says() {
        let row = |k: usize| Row { prompt: format!("prompt number {k}"), example: k };
        let parts = HeldOut::split((0..2_000).map(row).collect(), (0.2, MAX_WATCHED), 7);
        let watched: Vec<usize> = parts.watched.iter().map(|row| row.example).collect();
        let mut expected = Sampler::new(2_000, 7).next_batch(400);
        expected.sort_unstable();
        assert_eq!(watched, expected);
        assert_eq!((parts.trained.len(), parts.copies.len()), (1_600, 0));
    }

    #[test]
    fn of_200_000_rows_512_are_watched_and_none_is_lost() {
        const N_ROWS: usize = 200_000;
        // Every tenth prompt is a copy of the one before, in capitals.
        let prompt = |k: usize| match k % 10 {
            9 => format!("TELL ME ABOUT CASE NUMBER {}!", k - 1),
            _ => format!("tell me about case number {k} ."),
        };
        let rows = || (0..N_ROWS).map(|k| Row { prompt: prompt(k), example: k }).collect();
        let parts = HeldOut::split(rows(), (0.2, MAX_WATCHED), 3);
        let HeldOut { trained, watched, copies } = &parts;
        assert_eq!(trained.len(), N_ROWS - MAX_WATCHED);
        assert_eq!(watched.len() + copies.len(), MAX_WATCHED);
        let known: HashSet<usize> = trained.iter().map(|row| row.example).collect();
        let twin = |k: usize| match k % 10 {
            8 => k + 1,
            9 => k - 1,
            _ => k,
        };
        assert!(watched.iter().all(|row| !known.contains(&twin(row.example))));
        assert!(copies.iter().all(|row| known.contains(&twin(row.example))));
        assert!(!copies.is_empty());
        let ids = |rows: &[Row<usize>]| rows.iter().map(|row| row.example).collect::<Vec<_>>();
        let again = HeldOut::split(rows(), (0.2, MAX_WATCHED), 3);
        assert_eq!(ids(watched), ids(&again.watched));
        let other = HeldOut::split(rows(), (0.2, MAX_WATCHED), 4);
        assert_ne!(ids(watched), ids(&other.watched));
    }
}
