//! Generation of a model's answers to the questions, with each turn asked after the model's own
//! answers to the earlier turns.
//!
//! Departures from FastChat's `gen_model_answer.py`: questions of the same temperature are batched,
//! and a model that cannot answer is an error, not the answer `ERROR`.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::answers::{Answer, Answers, Choice};
use super::error::MtBenchError;
use super::question_id::QuestionId;
use super::questions::Question;
use crate::language_model::{Conversation, Decoding, LanguageModel, Message, Role};
use crate::text_hash::text_hash;

/// Settings of generated answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerConfig {
    /// Name of the model in the files.
    pub model_id: String,
    /// Number of answers to each question; only the first is judged.
    pub n_choices: usize,
    /// Maximum length of an answer to a turn, in tokens; 1024 in FastChat.
    pub max_new_tokens: usize,
    /// Number of questions per batch. All turns and choices of a batch are stored together.
    pub batch_size: usize,
    /// Time of the answers, in seconds since 1970.
    pub tstamp: f64,
}

/// Returns the questions without an answer in `answers`, or with too few choices or a different
/// number of turns.
#[must_use]
pub fn unanswered<'a>(
    questions: &'a [Question],
    answers: &Answers,
    n_choices: usize,
) -> Vec<&'a Question> {
    let is_answered = |question: &Question| {
        answers.get(&question.question_id).is_some_and(|answer| {
            let is_whole = |choice: &Choice| choice.turns.len() == question.turns.len();
            answer.choices.len() >= n_choices && answer.choices.iter().all(is_whole)
        })
    };
    questions.iter().filter(|question| !is_answered(question)).collect()
}

/// Asks `model` the questions without an answer in `known`, and passes each answer to `keep` as
/// soon as its batch is done. Returns the number of questions asked.
///
/// An answer depends on its question, the model and the choice's index alone: a resumed run gives
/// the same answers as an uninterrupted one.
///
/// # Errors
///
/// Returns [`MtBenchError::Model`] and the errors of `keep`. Answers kept before the error remain.
///
/// # Panics
///
/// Panics if the configuration has a size of 0, or the model does not answer every conversation.
pub fn generate_answers<L: LanguageModel<Error: Display>>(
    model: &L,
    questions: &[Question],
    known: &Answers,
    config: &AnswerConfig,
    keep: &mut dyn FnMut(Answer) -> Result<(), MtBenchError>,
) -> Result<usize, MtBenchError> {
    assert!(config.batch_size > 0 && config.n_choices > 0, "sizes are at least 1");
    let open = unanswered(questions, known, config.n_choices);
    // Temperatures are not negative, so their bits are ordered like their values.
    let temperature_of = |question: &Question| question.temperature().to_bits();
    let temperatures: BTreeSet<u64> =
        open.iter().map(|question| temperature_of(question)).collect();
    for bits in temperatures {
        let alike = open.iter().copied().filter(|question| temperature_of(question) == bits);
        for batch in alike.collect::<Vec<_>>().chunks(config.batch_size) {
            let mut choices = vec![Vec::new(); batch.len()];
            for index in 0..config.n_choices as u64 {
                let said = answer_batch(model, batch, index, (f64::from_bits(bits), config))?;
                for (choices, turns) in choices.iter_mut().zip(said) {
                    choices.push(Choice { index, turns });
                }
            }
            for (question, choices) in batch.iter().zip(choices) {
                keep(answer(question, choices, config))?;
            }
        }
    }
    Ok(open.len())
}

/// Returns the model's answer in each turn of each question.
fn answer_batch<L: LanguageModel<Error: Display>>(
    model: &L,
    batch: &[&Question],
    choice: u64,
    (temperature, config): (f64, &AnswerConfig),
) -> Result<Vec<Vec<String>>, MtBenchError> {
    let mut said: Vec<Vec<String>> = vec![Vec::new(); batch.len()];
    let n_turns = batch.iter().map(|question| question.turns.len()).max().unwrap_or(0);
    for turn in 0..n_turns {
        let asked: Vec<usize> =
            (0..batch.len()).filter(|row| batch[*row].turns.len() > turn).collect();
        let conversations: Vec<Conversation> =
            asked.iter().map(|row| conversation(batch[*row], &said[*row])).collect();
        // The seed of the first turn is the choice, the seeds of later turns are far from every
        // choice: with equal seeds the draws of a second answer would equal those of the first.
        let seed = choice + ((turn as u64) << 32);
        let decoding = Decoding { max_new_tokens: config.max_new_tokens, temperature, seed };
        let completions = model.generate(&conversations, &decoding);
        let completions =
            completions.map_err(|error| MtBenchError::Model { reason: error.to_string() })?;
        assert_eq!(completions.len(), asked.len(), "a model answers every conversation");
        for (row, completion) in asked.into_iter().zip(completions) {
            said[row].push(completion.text.trim().to_owned());
        }
    }
    Ok(said)
}

/// Returns the conversation of the answered turns with their answers, followed by the next turn.
fn conversation(question: &Question, said: &[String]) -> Conversation {
    let id = match &question.question_id {
        QuestionId::Number(number) => *number,
        QuestionId::Text(text) => text_hash(text),
    };
    let turns = question.turns.iter().zip(said).flat_map(|(asked, answered)| {
        [Message::new(Role::User, asked), Message::new(Role::Assistant, answered)]
    });
    let next = Message::new(Role::User, &question.turns[said.len()]);
    Conversation { id, messages: turns.chain([next]).collect() }
}

fn answer(question: &Question, choices: Vec<Choice>, config: &AnswerConfig) -> Answer {
    let id = &question.question_id;
    let said = choices.iter().flat_map(|choice| &choice.turns);
    let content = said.fold(format!("{}\n{id}", config.model_id), |all, turn| all + "\n" + turn);
    Answer {
        question_id: id.clone(),
        answer_id: format!("{:016x}", text_hash(&content)),
        model_id: config.model_id.clone(),
        choices,
        tstamp: config.tstamp,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::super::answers::{append_answer, resume_answers};
    use super::super::questions::parse_questions;
    use super::*;
    use crate::language_model::{Completion, Finish, LogLikelihood};

    /// Model that repeats the conversation and the decoding, and fails for `too long`.
    #[derive(Default)]
    struct Echo {
        batches: RefCell<Vec<(Vec<u64>, f64, u64)>>,
    }

    impl LanguageModel for Echo {
        type Error = String;

        fn generate(
            &self,
            conversations: &[Conversation],
            decoding: &Decoding,
        ) -> Result<Vec<Completion>, String> {
            let ids = conversations.iter().map(|conversation| conversation.id).collect();
            self.batches.borrow_mut().push((ids, decoding.temperature, decoding.seed));
            let answer = |conversation: &Conversation| {
                let said = conversation.messages.iter().map(|m| m.content.as_str());
                let said = said.collect::<Vec<_>>().join("+");
                if said.contains("too long") {
                    return Err("1 token too many".to_owned());
                }
                let text = format!(" <{said}>{}\n", decoding.seed % 10);
                Ok(Completion { text, finish: Finish::Stop })
            };
            conversations.iter().map(answer).collect()
        }

        fn log_likelihood(&self, _: &[Conversation]) -> Result<Vec<LogLikelihood>, String> {
            Err("answers do not need it".to_owned())
        }
    }

    fn questions() -> Vec<Question> {
        let rows = [
            (1, "writing", r#"["a","b"]"#),
            (2, "math", r#"["c","d"]"#),
            (3, "roleplay", r#"["e"]"#),
            (4, "stem", r#"["f","g"]"#),
            (5, "writing", r#"["h","i"]"#),
        ];
        let rows = rows.map(|(id, category, turns)| {
            format!(r#"{{"question_id":{id},"category":"{category}","turns":{turns}}}"#)
        });
        parse_questions(&rows.join("\n"), Path::new("file")).unwrap()
    }

    fn config(n_choices: usize) -> AnswerConfig {
        let model_id = "echo".to_owned();
        AnswerConfig { model_id, n_choices, max_new_tokens: 9, batch_size: 2, tstamp: 1.5 }
    }

    fn run(model: &Echo, known: &Answers, n_choices: usize) -> Vec<Answer> {
        let mut kept = Vec::new();
        let mut keep = |answer| {
            kept.push(answer);
            Ok(())
        };
        let n = generate_answers(model, &questions(), known, &config(n_choices), &mut keep);
        assert_eq!(n.unwrap(), kept.len());
        kept
    }

    #[test]
    fn the_second_turn_sees_the_answer_to_the_first() {
        let answers = run(&Echo::default(), &Answers::new(), 2);
        let writing = answers.iter().find(|a| a.question_id == QuestionId::Number(1)).unwrap();
        let seven = (1_u64 << 32) % 10;
        let expected = [0, 1].map(|index| Choice {
            index,
            turns: vec![format!("<a>{index}"), format!("<a+<a>{index}+b>{}", (seven + index) % 10)],
        });
        assert_eq!(writing.choices, expected);
        assert_eq!((writing.model_id.as_str(), writing.answer_id.len()), ("echo", 16));
        let ids: BTreeSet<&String> = answers.iter().map(|answer| &answer.answer_id).collect();
        assert_eq!(ids.len(), 5);
    }

    #[test]
    fn questions_of_a_temperature_are_asked_together() {
        let model = Echo::default();
        run(&model, &Answers::new(), 1);
        let later = 1 << 32;
        let expected = [
            (vec![2], 0.0, 0),
            (vec![2], 0.0, later),
            (vec![4], 0.1, 0),
            (vec![4], 0.1, later),
            (vec![1, 3], 0.7, 0),
            (vec![1], 0.7, later),
            (vec![5], 0.7, 0),
            (vec![5], 0.7, later),
        ];
        assert_eq!(*model.batches.borrow(), expected);
    }

    #[test]
    fn a_question_may_bring_its_own_temperature() {
        let model = Echo::default();
        let mut questions = questions();
        questions.truncate(2);
        questions[0].required_temperature = Some(0.0);
        let mut keep = |_| Ok(());
        generate_answers(&model, &questions, &Answers::new(), &config(1), &mut keep).unwrap();
        let batches = model.batches.borrow();
        let expected = [(vec![1, 2], 0.0, 0), (vec![1, 2], 0.0, 1 << 32)];
        assert_eq!(*batches, expected);
    }

    #[test]
    fn a_run_taken_up_again_answers_what_is_left_and_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("echo.jsonl");
        let whole = run(&Echo::default(), &Answers::new(), 1);
        assert!(resume_answers(&path).unwrap().is_empty());
        for answer in &whole[..2] {
            append_answer(&path, answer).unwrap();
        }
        let kept = std::fs::read(&path).unwrap();
        // Killed while writing the third answer.
        let torn = &serde_json::to_string(&whole[2]).unwrap()[..30];
        std::fs::write(&path, [&kept, torn.as_bytes()].concat()).unwrap();
        let known = resume_answers(&path).unwrap();
        assert_eq!(known.len(), 2);
        let rest = run(&Echo::default(), &known, 1);
        assert_eq!(rest, whole[2..]);
        for answer in &rest {
            append_answer(&path, answer).unwrap();
        }
        let all = resume_answers(&path).unwrap();
        assert!(
            all.values().eq(run(&Echo::default(), &Answers::new(), 1)
                .into_iter()
                .map(|answer| (answer.question_id.clone(), answer))
                .collect::<Answers>()
                .values())
        );
        assert!(run(&Echo::default(), &all, 1).is_empty());
        // The request has more choices than there are answers.
        assert_eq!(run(&Echo::default(), &all, 2).len(), 5);
    }

    #[test]
    fn what_was_answered_before_a_failure_is_kept() {
        let mut questions = questions();
        questions[4].turns[1] = "too long".to_owned();
        let mut kept = Vec::new();
        let mut keep = |answer: Answer| {
            kept.push(answer.question_id);
            Ok(())
        };
        let known = Answers::new();
        let found = generate_answers(&Echo::default(), &questions, &known, &config(1), &mut keep);
        assert!(
            matches!(found, Err(MtBenchError::Model { reason }) if reason == "1 token too many")
        );
        assert_eq!(kept, [2, 4, 1, 3].map(QuestionId::Number));
    }
}
