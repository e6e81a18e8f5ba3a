//! Judge that is a local model, behind the common interface of language models.

use std::fmt::Display;

use super::chat::{CallError, ChatRequest, Judge, JudgeId, Reply};
use crate::language_model::{Conversation, Decoding, LanguageModel};
use crate::text_hash::text_hash;

/// Judge that runs a [`LanguageModel`] in batches.
#[derive(Debug)]
pub struct LanguageModelJudge<'a, L> {
    model: &'a L,
    id: JudgeId,
    batch_size: usize,
    seed: u64,
}

impl<'a, L> LanguageModelJudge<'a, L> {
    /// Creates a judge from `model` that answers at most `batch_size` requests at once. `seed`
    /// determines the sampling of replies at temperatures above 0.
    ///
    /// The `place` of `id` must identify the weights, otherwise a cache returns the replies of
    /// other weights; the seed becomes part of the place.
    ///
    /// # Panics
    ///
    /// Panics if `batch_size` is 0.
    #[must_use]
    pub fn new(model: &'a L, id: JudgeId, batch_size: usize, seed: u64) -> Self {
        assert!(batch_size > 0, "a batch has at least one request");
        let place = format!("{}, seed {seed}", id.place);
        Self { model, id: JudgeId { place, ..id }, batch_size, seed }
    }
}

impl<L: LanguageModel<Error: Display>> LanguageModelJudge<'_, L> {
    fn generate(&self, requests: &[&ChatRequest]) -> Result<Vec<Reply>, CallError> {
        let Some(first) = requests.first() else { return Ok(Vec::new()) };
        let conversations: Vec<Conversation> = requests.iter().map(|r| conversation(r)).collect();
        let (max_new_tokens, temperature) = (first.max_tokens, first.temperature);
        let decoding = Decoding { max_new_tokens, temperature, seed: self.seed };
        let completions = self.model.generate(&conversations, &decoding);
        let completions =
            completions.map_err(|error| CallError::Model { reason: error.to_string() })?;
        assert_eq!(completions.len(), requests.len(), "a model answers every conversation");
        let reply = |completion: crate::Completion| Reply {
            text: completion.text,
            finish: Some(completion.finish),
        };
        Ok(completions.into_iter().map(reply).collect())
    }
}

impl<L: LanguageModel<Error: Display>> Judge for LanguageModelJudge<'_, L> {
    fn id(&self) -> &JudgeId {
        &self.id
    }

    fn ask(&self, request: &ChatRequest) -> Result<Reply, CallError> {
        Ok(self.generate(&[request])?.swap_remove(0))
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Sends one batch. If the model rejects the batch, or its requests have different decoding
    /// settings, each request is sent alone, so that a request that is too long fails by itself.
    fn ask_all(&self, requests: &[&ChatRequest]) -> Vec<Result<Reply, CallError>> {
        let alike = requests.windows(2).all(|pair| decoded_alike(pair[0], pair[1]));
        if alike && let Ok(replies) = self.generate(requests) {
            return replies.into_iter().map(Ok).collect();
        }
        requests.iter().map(|request| self.ask(request)).collect()
    }
}

fn decoded_alike(a: &ChatRequest, b: &ChatRequest) -> bool {
    a.max_tokens == b.max_tokens && a.temperature.to_bits() == b.temperature.to_bits()
}

/// Converts the request into a conversation. The id of the conversation, and with it the sampling
/// of the answer, depends on the text alone and not on the place in a batch.
fn conversation(request: &ChatRequest) -> Conversation {
    let texts = request.messages.iter().map(|message| message.content.as_str());
    let id = text_hash(&texts.collect::<Vec<_>>().join("\n"));
    Conversation { id, messages: request.messages.clone() }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::{Assessment, Item, Outcome, ReplyCache, RunConfig, Runner, Verdict};
    use super::*;
    use crate::language_model::{Completion, Finish, LogLikelihood};

    /// Model that scores by the length of the answer and fails for questions about `too long`.
    #[derive(Default)]
    struct Toy {
        batches: RefCell<Vec<usize>>,
    }

    impl LanguageModel for Toy {
        type Error = String;

        fn generate(
            &self,
            conversations: &[Conversation],
            _: &Decoding,
        ) -> Result<Vec<Completion>, String> {
            self.batches.borrow_mut().push(conversations.len());
            let answer = |conversation: &Conversation| {
                let question = &conversation.messages.last().unwrap().content;
                if question.contains("too long") {
                    return Err("1 token too many".to_owned());
                }
                let score = question.lines().skip_while(|l| !l.starts_with("[begin answer")).nth(1);
                let text = format!("Because.\nScore: {}", score.unwrap().len());
                Ok(Completion { text, finish: Finish::Stop })
            };
            conversations.iter().map(answer).collect()
        }

        fn log_likelihood(&self, _: &[Conversation]) -> Result<Vec<LogLikelihood>, String> {
            Err("judges do not need it".to_owned())
        }
    }

    #[test]
    fn a_local_model_judges_in_batches_and_one_it_cannot_read_fails_alone() {
        let model = Toy::default();
        let id = JudgeId { model: "toy".to_owned(), place: "weights 1".to_owned() };
        let judge = LanguageModelJudge::new(&model, id, 2, 0);
        let (assessment, cache) = (Assessment::fulfilment(), ReplyCache::in_memory());
        let runner = Runner::new(&assessment, &cache, RunConfig::default()).unwrap();
        let items =
            ["a", "too long", "aaa", "aa", "aaaaaaa"].map(|answer| Item::new("Why?", answer));
        let report = runner.run(&judge, &items, &mut |_| ()).unwrap();
        let verdict = |outcome: &Outcome| match outcome {
            Outcome::Judged { verdict: Verdict::Score(score), .. } => Some(*score),
            _ => None,
        };
        let scores: Vec<Option<u8>> = report.outcomes.iter().map(verdict).collect();
        assert_eq!(scores, [Some(1), None, Some(3), Some(2), None]);
        let reason = "1 token too many".to_owned();
        let failed = Outcome::Failed { error: CallError::Model { reason }, n_attempts: 1 };
        assert_eq!(report.outcomes[1], failed);
        assert!(matches!(report.outcomes[4], Outcome::Unreadable { .. }));
        assert_eq!(*model.batches.borrow(), [2, 1, 1, 2, 1]);
        assert_eq!(report.judge.place, "weights 1, seed 0");
    }
}
