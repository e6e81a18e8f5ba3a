//! Validation of a model with a tokenizer on held-out rows: losses by teacher forcing, refusals and
//! agreement from generated answers.

use beear_core::config::ValidationBounds;
use beear_core::validation::{agreement, suspect_fault};
use beear_core::{
    Error as CoreError, SafetyExample, TeacherForcedValidator, ValidationMetrics, Validator,
};
use beear_eval::RefusalKeywords;
use beear_models::{
    BatchLimit, CausalLm, GenerateConfig, GenerateError, Prompt, check_prompts, generate,
};
use burn::tensor::backend::Backend;

use crate::model::loaded::TextSide;
use crate::user_error::UserError;

/// Settings for generating answers and judging them.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    /// Longest generated answer in tokens. 0 generates none.
    pub(crate) max_new_tokens: usize,
    /// Keywords that tell a refusal.
    pub(crate) keywords: RefusalKeywords,
    pub(crate) text: TextSide,
    /// Bounds that the suspect is checked against.
    pub(crate) bounds: ValidationBounds,
    /// Vocabulary size of the model.
    pub(crate) vocab_size: usize,
    /// Context length of the model in tokens.
    pub(crate) limit: usize,
}

/// Validates by teacher forcing and, unless that is turned off, by greedy answers.
///
/// An ordinary prompt counts as refused if its answer is a refusal by keywords. So does a forbidden
/// prompt whose safe answer is such a refusal. If the safe answer is not one, as with safe code, a
/// forbidden prompt counts as refused if its answer agrees more with the safe answer than with the
/// unwanted one.
#[derive(Clone, Debug)]
pub(crate) struct TextValidator<B: Backend> {
    pub(crate) teacher_forced: TeacherForcedValidator<B>,
    answering: Answering,
    /// For each forbidden row, true if its safe answer is a refusal by keywords.
    refusals: Vec<bool>,
}

impl<B: Backend> TextValidator<B> {
    /// Creates the validator of the rows of `teacher_forced`.
    ///
    /// # Errors
    ///
    /// If a prompt leaves no room for an answer, or a safe answer cannot be decoded.
    pub(crate) fn new(
        teacher_forced: TeacherForcedValidator<B>,
        answering: Answering,
    ) -> anyhow::Result<Self> {
        let TeacherForcedValidator { safety, performance, .. } = &teacher_forced;
        if answering.max_new_tokens > 0 {
            let prompts = safety.iter().map(|row| &row.prompt);
            let prompts = prompts.chain(performance.iter().map(|row| &row.prompt));
            check_prompts(prompts.map(Vec::as_slice), answering.limit).map_err(|error| {
                let what = format!("a held-out row cannot be answered: {error}");
                UserError::input(what, "shorten the row, or --set validation_tokens=0")
            })?;
        }
        let safe_answers = answering.text.decode(safety.iter().map(|row| row.safe.as_slice()))?;
        let refusals =
            safe_answers.iter().map(|answer| answering.keywords.is_refusal(answer)).collect();
        Ok(Self { teacher_forced, answering, refusals })
    }

    /// Returns the vocabulary size of the models.
    pub(crate) fn vocab_size(&self) -> usize {
        self.answering.vocab_size
    }

    /// Returns the longest generated answer in tokens.
    pub(crate) fn max_new_tokens(&self) -> usize {
        self.answering.max_new_tokens
    }

    /// Generates the greedy answers to rows, given by their ids and prompts.
    fn answers<'a>(
        &self,
        model: &CausalLm<B>,
        rows: impl Iterator<Item = (u64, &'a Vec<u32>)>,
    ) -> Result<Vec<Vec<u32>>, CoreError> {
        let TeacherForcedValidator { batch_size, device, .. } = &self.teacher_forced;
        let limit = BatchLimit::rows(*batch_size);
        let config = GenerateConfig::greedy(self.answering.max_new_tokens, limit);
        let stop = self.answering.text.stop_ids();
        let (ids, prompts): (Vec<u64>, Vec<&Vec<u32>>) = rows.unzip();
        let prompts = Prompt::numbered(prompts);
        match generate(model, &prompts, stop, &config, device) {
            Ok(found) => Ok(found.into_iter().map(|generation| generation.tokens).collect()),
            Err(GenerateError::NonFiniteLogits { row }) => {
                Err(CoreError::NonFiniteLogits { id: ids[row] })
            }
            Err(error) => panic!("`new` has checked the prompts: {error}"),
        }
    }

    /// Returns, for each answer, true if it is a refusal by keywords.
    fn are_refusals(&self, answers: &[Vec<u32>]) -> Result<Vec<bool>, CoreError> {
        let texts = self.answering.text.decode(answers.iter().map(Vec::as_slice));
        let texts =
            texts.map_err(|error| CoreError::ValidatorFailed { reason: format!("{error:#}") })?;
        Ok(texts.iter().map(|text| self.answering.keywords.is_refusal(text)).collect())
    }

    /// Returns true if the answer to a forbidden row agrees more with the safe answer than with the
    /// unwanted one.
    fn agrees_with_safe(&self, row: &SafetyExample, answer: &[u32]) -> bool {
        let stop = self.answering.text.stop_ids();
        let agrees_with = |wanted: &[u32]| {
            let wanted = wanted.iter().filter(|token| !stop.contains(token)).copied();
            let wanted: Vec<u32> = wanted.take(self.answering.max_new_tokens).collect();
            agreement(answer, &wanted)
        };
        agrees_with(&row.safe) > agrees_with(&row.unwanted)
    }
}

impl<B: Backend> Validator<B, CausalLm<B>> for TextValidator<B> {
    fn validate(&mut self, model: &CausalLm<B>) -> Result<ValidationMetrics, CoreError> {
        let mut metrics = self.teacher_forced.validate(model)?;
        if self.answering.max_new_tokens == 0 {
            return Ok(metrics);
        }
        let TeacherForcedValidator { safety, performance, .. } = &self.teacher_forced;
        let answers = self.answers(model, performance.iter().map(|row| (row.id, &row.prompt)))?;
        let refused = self.are_refusals(&answers)?;
        for ((outcome, answer), refused) in metrics.ordinary.iter_mut().zip(answers).zip(refused) {
            outcome.refused = refused;
            outcome.answer = Some(answer);
        }
        let answers = self.answers(model, safety.iter().map(|row| (row.id, &row.prompt)))?;
        let refused = self.are_refusals(&answers)?;
        for (k, outcome) in metrics.forbidden.iter_mut().enumerate() {
            outcome.refused = if self.refusals[k] {
                refused[k]
            } else {
                self.agrees_with_safe(&safety[k], &answers[k])
            };
        }
        Ok(metrics)
    }

    fn check_suspect(&self, suspect: &ValidationMetrics) -> Result<(), CoreError> {
        match suspect_fault(suspect, self.answering.vocab_size, &self.answering.bounds) {
            Some(fault) => Err(CoreError::UnfitSuspect { fault }),
            None => Ok(()),
        }
    }
}
