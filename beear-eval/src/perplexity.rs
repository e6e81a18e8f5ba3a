//! Perplexity of a model on given answers.

use crate::dataset::Record;
use crate::identity::{PromptSet, outcome_id};
use crate::language_model::{Conversation, LogLikelihood, Role};
use crate::measure::{Better, Measure, Outcome, Statistic};

/// Returns each conversation up to each of its answers, in the order of the file.
#[must_use]
pub fn answers(records: &[Record]) -> Vec<Conversation> {
    let of_record = |record: &Record| -> Vec<Conversation> {
        let messages = record.conversation();
        let ends = (0..messages.len()).filter(|&at| messages[at].role == Role::Assistant);
        let cut = |end: usize| Conversation { id: record.id, messages: messages[..=end].to_vec() };
        ends.map(cut).collect()
    };
    records.iter().flat_map(of_record).collect()
}

/// Returns the identity of the conversations.
#[must_use]
pub fn prompt_set(answers: &[Conversation]) -> PromptSet {
    PromptSet::of("answers", answers.iter().map(|answer| &answer.messages))
}

/// Computes the perplexity of all answers, with equal weight for every token.
///
/// # Panics
///
/// Panics if the numbers of likelihoods and answers differ.
#[must_use]
pub fn perplexity(answers: &[Conversation], likelihoods: &[LogLikelihood]) -> Measure {
    assert_eq!(answers.len(), likelihoods.len(), "a likelihood an answer");
    let outcome = |(answer, likelihood): (&Conversation, &LogLikelihood)| {
        let n_tokens = likelihood.n_tokens as f64;
        Outcome {
            id: outcome_id(&format!("{}/{}", answer.id, answer.messages.len()), &answer.messages),
            value: -likelihood.nats / n_tokens,
            weight: n_tokens,
        }
    };
    Measure {
        name: "perplexity".to_owned(),
        by: "answers".to_owned(),
        statistic: Statistic::Perplexity,
        better: Better::Lower,
        outcomes: answers.iter().zip(likelihoods).map(outcome).collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::language_model::Message;

    use super::*;

    #[test]
    fn every_answer_of_a_conversation_counts_by_its_tokens() {
        let later = [Message::new(Role::User, "more"), Message::new(Role::Assistant, "yes")];
        let record = Record {
            id: 7,
            prompt: "ask".to_owned(),
            answer: Some("no".to_owned()),
            later: later.to_vec(),
            ..Record::default()
        };
        let answers = answers(&[record]);
        let lengths: Vec<usize> = answers.iter().map(|answer| answer.messages.len()).collect();
        assert_eq!(lengths, [2, 4]);
        let likelihoods =
            [(-2.0, 2), (-12.0, 4)].map(|(nats, n_tokens)| LogLikelihood { nats, n_tokens });
        let found = perplexity(&answers, &likelihoods);
        assert!((found.estimate().value - (14.0_f64 / 6.0).exp()).abs() < 1e-12);
        assert!(found.outcomes[1].id.starts_with("7/4#"), "{}", found.outcomes[1].id);
        assert_ne!(prompt_set(&answers), prompt_set(&answers[..1]));
    }
}
