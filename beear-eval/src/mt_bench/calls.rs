//! Calls to the judge that a benchmark requires, computed before any call.
//!
//! As in FastChat, a rating takes a call per model, question and turn; a comparison takes two, with
//! each model shown first once. Questions without exactly two turns have no judged second turn.
//! Math, reasoning and coding are judged with a reference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::answers::{Answer, Answers};
use super::error::MtBenchError;
use super::judge_prompts::{JudgePrompt, JudgePrompts, OutputFormat, PromptType};
use super::question_id::QuestionId;
use super::questions::{Question, needs_reference};
use crate::judge::ChatRequest;
use crate::language_model::{Message, Role};

/// Inputs from which calls are built.
#[derive(Clone, Copy, Debug)]
pub struct Bench<'a> {
    /// Questions of the benchmark.
    pub questions: &'a [Question],
    /// Answers of each model.
    pub answers: &'a BTreeMap<String, Answers>,
    /// Reference answers.
    pub references: &'a Answers,
    /// Prompts for the judge.
    pub prompts: &'a JudgePrompts,
}

/// Game of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Game {
    /// `model_1` is shown as A.
    First,
    /// `model_2` is shown as A.
    Second,
}

/// Models whose answers are judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// Rating of a model's answer.
    Single {
        /// Name of the model.
        model: String,
    },
    /// Comparison of the answers of two models.
    Pair {
        /// Model that is compared.
        model_1: String,
        /// Model of the comparison's other answer.
        model_2: String,
        /// Game, which decides the order of the answers.
        game: Game,
    },
}

/// Call to the judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Id of the question whose answer is judged.
    pub question_id: QuestionId,
    /// Models whose answers are judged.
    pub judged: Judged,
    /// Number of the turn, from 1.
    pub turn: usize,
    /// System prompt of the judge.
    pub system: String,
    /// Prompt of the judge.
    pub user_prompt: String,
    /// Name of the judge prompt.
    pub prompt_name: String,
    /// Format in which the reply is parsed.
    pub output_format: OutputFormat,
}

impl Call {
    /// Converts the call into a request to a [`Judge`](crate::judge::Judge), at temperature 0 as in
    /// FastChat, which allows 2048 tokens.
    #[must_use]
    pub fn request(&self, max_tokens: usize) -> ChatRequest {
        let said = [(Role::System, &self.system), (Role::User, &self.user_prompt)];
        let said = said.into_iter().filter(|(_, text)| !text.is_empty());
        let messages = said.map(|(role, text)| Message::new(role, text.clone())).collect();
        ChatRequest { messages, temperature: 0.0, max_tokens }
    }
}

/// Returns each model paired with the baseline; the baseline itself is left out.
#[must_use]
pub fn pairs_with_baseline(models: &[String], baseline: &str) -> Vec<(String, String)> {
    let others = models.iter().filter(|model| *model != baseline);
    others.map(|model| (model.clone(), baseline.to_owned())).collect()
}

/// Returns every model paired with each later one.
#[must_use]
pub fn all_pairs(models: &[String]) -> Vec<(String, String)> {
    let with_later = |(i, one): (usize, &String)| {
        let pair = |other: &String| (one.clone(), other.clone());
        models[i + 1..].iter().map(pair).collect::<Vec<_>>()
    };
    models.iter().enumerate().flat_map(with_later).collect()
}

impl Bench<'_> {
    /// Returns the calls that rate the answers of `models`, in FastChat's order.
    ///
    /// # Errors
    ///
    /// Returns [`MtBenchError`] if an answer, a reference or a prompt is missing.
    pub fn single_calls(&self, models: &[String]) -> Result<Vec<Call>, MtBenchError> {
        let mut calls = Vec::new();
        for (question, turn) in self.judged_turns() {
            let prompt = self.prompt(question, turn, PromptType::Single)?;
            for model in models {
                let answer = [("answer", self.answer(model, question, turn)?)];
                let judged = Judged::Single { model: model.clone() };
                calls.push(self.call((question, turn), prompt, judged, &answer)?);
            }
        }
        Ok(calls)
    }

    /// Returns the calls that compare the answers of `pairs`, in FastChat's order, with the second
    /// game of each pair after its first.
    ///
    /// # Errors
    ///
    /// Returns [`MtBenchError`] if an answer, a reference or a prompt is missing.
    pub fn pair_calls(&self, pairs: &[(String, String)]) -> Result<Vec<Call>, MtBenchError> {
        let mut calls = Vec::new();
        for (question, turn) in self.judged_turns() {
            let prompt = self.prompt(question, turn, PromptType::Pairwise)?;
            for (model_1, model_2) in pairs {
                let one = self.answer(model_1, question, turn)?;
                let two = self.answer(model_2, question, turn)?;
                for (game, a, b) in [(Game::First, one, two), (Game::Second, two, one)] {
                    let (model_1, model_2) = (model_1.clone(), model_2.clone());
                    let judged = Judged::Pair { model_1, model_2, game };
                    let answers = [("answer_a", a), ("answer_b", b)];
                    calls.push(self.call((question, turn), prompt, judged, &answers)?);
                }
            }
        }
        Ok(calls)
    }

    /// Returns the judged turns: first turns, then second ones, each without and then with a
    /// reference.
    fn judged_turns(&self) -> Vec<(&Question, usize)> {
        let groups = [(1, false), (1, true), (2, false), (2, true)];
        let turns = groups.map(|(turn, with_reference)| {
            let is_of = move |question: &&Question| {
                needs_reference(&question.category) == with_reference
                    && (turn == 1 || question.turns.len() == 2)
            };
            self.questions.iter().filter(is_of).map(move |question| (question, turn))
        });
        turns.into_iter().flatten().collect()
    }

    fn prompt(
        &self,
        question: &Question,
        turn: usize,
        prompt_type: PromptType,
    ) -> Result<&JudgePrompt, MtBenchError> {
        let name = match (prompt_type, needs_reference(&question.category)) {
            (PromptType::Single, false) => "single-v1",
            (PromptType::Single, true) => "single-math-v1",
            (PromptType::Pairwise, false) => "pair-v2",
            (PromptType::Pairwise, true) => "pair-math-v1",
        };
        let ending = if turn == 2 { "-multi-turn" } else { "" };
        self.prompts.get(&format!("{name}{ending}"), prompt_type)
    }

    /// Returns a model's answer after checking that it has all turns up to `turn`.
    fn answer(
        &self,
        model: &str,
        question: &Question,
        turn: usize,
    ) -> Result<&Answer, MtBenchError> {
        let answers = self.answers.get(model);
        let answers =
            answers.ok_or_else(|| MtBenchError::UnknownModel { model: model.to_owned() })?;
        let id = &question.question_id;
        let answer = answers.get(id).filter(|answer| answer.turn(turn).is_some());
        answer.ok_or_else(|| {
            let (model, question) = (model.to_owned(), id.clone());
            MtBenchError::MissingAnswer { model, question, turn }
        })
    }

    fn call(
        &self,
        (question, turn): (&Question, usize),
        prompt: &JudgePrompt,
        judged: Judged,
        answers: &[(&str, &Answer)],
    ) -> Result<Call, MtBenchError> {
        // One turn has `question` and `answer`, two turns have `question_1`, `answer_1` and so on.
        let numbered = |name: &str, t: usize| match turn {
            1 => name.to_owned(),
            _ => format!("{name}_{t}"),
        };
        let mut texts: Vec<(String, &str)> = Vec::new();
        for t in 1..=turn {
            texts.push((numbered("question", t), question.turns[t - 1].as_str()));
            for (name, answer) in answers {
                texts.extend(answer.turn(t).map(|text| (numbered(name, t), text)));
            }
            if needs_reference(&question.category) {
                texts.push((format!("ref_answer_{t}"), self.reference(question, t)?));
            }
        }
        let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (&**name, *text)).collect();
        Ok(Call {
            question_id: question.question_id.clone(),
            judged,
            turn,
            system: prompt.system_prompt.clone(),
            user_prompt: prompt.fill(&texts)?,
            prompt_name: prompt.name.clone(),
            output_format: prompt.output_format,
        })
    }

    /// Returns the reference of the file, or the question's own reference if the file has none for
    /// it.
    fn reference<'q>(
        &'q self,
        question: &'q Question,
        turn: usize,
    ) -> Result<&'q str, MtBenchError> {
        let text = match self.references.get(&question.question_id) {
            Some(answer) => answer.turn(turn),
            None => question.own_reference(turn),
        };
        text.ok_or_else(|| MtBenchError::MissingReference {
            question: question.question_id.clone(),
            category: question.category.clone(),
            turn,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::answers::{Choice, parse_answers};
    use super::super::questions::parse_questions;
    use super::*;

    struct Parts {
        questions: Vec<Question>,
        answers: BTreeMap<String, Answers>,
        references: Answers,
        prompts: JudgePrompts,
    }

    /// Inputs with three questions: 1 is writing, 2 is math, 3 has one turn.
    fn parts() -> Parts {
        let questions = concat!(
            r#"{"question_id":2,"category":"math","turns":["m1","m2"]}"#,
            "\n",
            r#"{"question_id":1,"category":"writing","turns":["w1","w2"]}"#,
            "\n",
            r#"{"question_id":3,"category":"coding","turns":["c1"]}"#,
        );
        let turns = |name: &str, id: u64| Answer {
            question_id: QuestionId::Number(id),
            answer_id: String::new(),
            model_id: name.to_owned(),
            choices: vec![Choice {
                index: 0,
                turns: vec![format!("{name}{id}.1 {{question}}"), format!("{name}{id}.2")],
            }],
            tstamp: 0.0,
        };
        let answers = |name: &str| -> Answers {
            (1..=3).map(|id| (QuestionId::Number(id), turns(name, id))).collect()
        };
        let of = |name: &str| (name.to_owned(), answers(name));
        let prompt = |name: &str, kind: &str, template: &str, format: &str| {
            serde_json::json!({"name": name, "type": kind, "system_prompt": format!("system of {name}"),
                "prompt_template": template, "output_format": format})
            .to_string()
        };
        let prompts = [
            prompt("single-v1", "single", "{question}|{answer}", "[[rating]]"),
            prompt("single-math-v1", "single", "{question}|{ref_answer_1}|{answer}", "[[rating]]"),
            prompt(
                "single-v1-multi-turn",
                "single",
                "{question_1}|{answer_1}|{question_2}|{answer_2}",
                "[[rating]]",
            ),
            prompt(
                "single-math-v1-multi-turn",
                "single",
                "{ref_answer_1}|{ref_answer_2}|{answer_2}",
                "[[rating]]",
            ),
            prompt("pair-v2", "pairwise", "{question}|{answer_a}|{answer_b}", "[[A]]"),
            prompt("pair-math-v1", "pairwise", "{ref_answer_1}|{answer_a}|{answer_b}", "[[A]]"),
            prompt(
                "pair-v2-multi-turn",
                "pairwise",
                "{answer_a_1}|{answer_a_2}|{answer_b_1}|{answer_b_2}",
                "[[A]]",
            ),
            prompt("pair-math-v1-multi-turn", "pairwise", "{answer_a_2}|{answer_b_2}", "[[A]]"),
        ];
        Parts {
            questions: parse_questions(questions, Path::new("file")).unwrap(),
            answers: [of("x"), of("y")].into(),
            references: answers("r"),
            prompts: JudgePrompts::parse(&prompts.join("\n"), Path::new("file")).unwrap(),
        }
    }

    impl Parts {
        fn bench(&self) -> Bench<'_> {
            let Self { questions, answers, references, prompts } = self;
            Bench { questions, answers, references, prompts }
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_rating_takes_a_call_per_model_question_and_turn() {
        let parts = parts();
        let calls = parts.bench().single_calls(&names(&["x", "y"])).unwrap();
        assert_eq!(calls.len(), 10);
        let of_x: Vec<(String, usize, &str, &str)> = calls
            .iter()
            .step_by(2)
            .map(|c| (c.question_id.to_string(), c.turn, &*c.prompt_name, &*c.user_prompt))
            .collect();
        let of = |id: &str, turn, name, prompt| (id.to_owned(), turn, name, prompt);
        let expected = [
            of("1", 1, "single-v1", "w1|x1.1 {question}"),
            of("2", 1, "single-math-v1", "m1|r2.1 {question}|x2.1 {question}"),
            of("3", 1, "single-math-v1", "c1|r3.1 {question}|x3.1 {question}"),
            of("1", 2, "single-v1-multi-turn", "w1|x1.1 {question}|w2|x1.2"),
            of("2", 2, "single-math-v1-multi-turn", "r2.1 {question}|r2.2|x2.2"),
        ];
        assert_eq!(of_x, expected);
        assert_eq!(calls[1].judged, Judged::Single { model: "y".to_owned() });
        let request = calls[0].request(2048);
        let system = Message::new(Role::System, "system of single-v1");
        let user = Message::new(Role::User, "w1|x1.1 {question}");
        assert_eq!(request.messages, [system, user]);
    }

    #[test]
    fn a_comparison_takes_two_calls_with_the_answers_exchanged() {
        let parts = parts();
        let models = names(&["x", "y"]);
        let calls = parts.bench().pair_calls(&all_pairs(&models)).unwrap();
        assert_eq!(calls.len(), 10);
        assert_eq!(calls[0].user_prompt, "w1|x1.1 {question}|y1.1 {question}");
        assert_eq!(calls[1].user_prompt, "w1|y1.1 {question}|x1.1 {question}");
        assert_eq!(calls[7].user_prompt, "y1.1 {question}|y1.2|x1.1 {question}|x1.2");
        let judged = |game| Judged::Pair { model_1: "x".to_owned(), model_2: "y".to_owned(), game };
        assert_eq!(calls[8].judged, judged(Game::First));
        assert_eq!(calls[9].judged, judged(Game::Second));
        assert_eq!(calls[9].prompt_name, "pair-math-v1-multi-turn");
    }

    #[test]
    fn pairs_are_those_of_fastchat() {
        let models = names(&["a", "b", "c"]);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(all_pairs(&models), [pair("a", "b"), pair("a", "c"), pair("b", "c")]);
        assert_eq!(pairs_with_baseline(&models, "b"), [pair("a", "b"), pair("c", "b")]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut parts = parts();
        let calls = |parts: &Parts, model| parts.bench().single_calls(&names(&[model]));
        assert!(matches!(calls(&parts, "z"), Err(MtBenchError::UnknownModel { .. })));
        let two = QuestionId::Number(2);
        parts.references.get_mut(&two).unwrap().choices[0].turns.pop();
        let found = calls(&parts, "x");
        assert!(matches!(found, Err(MtBenchError::MissingReference { turn: 2, .. })));
        // A question's own reference is used only if the file has no row for the question.
        parts.questions[0].reference = Some(vec!["own 1".to_owned(), " ".to_owned()]);
        assert!(matches!(calls(&parts, "x"), Err(MtBenchError::MissingReference { turn: 2, .. })));
        parts.references.remove(&two);
        assert!(matches!(calls(&parts, "x"), Err(MtBenchError::MissingReference { turn: 2, .. })));
        parts.questions[0].reference = Some(vec!["own 1".to_owned(), "own 2".to_owned()]);
        assert_eq!(calls(&parts, "x").unwrap()[4].user_prompt, "own 1|own 2|x2.2");
        parts.answers.get_mut("x").unwrap().remove(&two);
        let found = calls(&parts, "x");
        assert!(matches!(found, Err(MtBenchError::MissingAnswer { turn: 1, .. })), "{found:?}");
        parts.prompts = JudgePrompts::parse(
            r#"{"name":"pair-v2","type":"pairwise","system_prompt":"","prompt_template":"{answer_a}{answer_b}","output_format":"[[A]]"}"#,
            Path::new("file"),
        )
        .unwrap();
        assert!(matches!(calls(&parts, "y"), Err(MtBenchError::UnknownPrompt { .. })));
    }

    #[test]
    fn the_built_in_parts_make_every_call() {
        let (questions, references) = (super::super::builtin(), super::super::references());
        let row = |question: &Question| {
            serde_json::json!({"question_id": question.question_id, "answer_id": "", "model_id": "m",
                "choices": [{"index": 0, "turns": ["first of it", "second of it"]}]})
            .to_string()
        };
        let rows: Vec<String> = questions.iter().map(row).collect();
        let answers = parse_answers(&rows.join("\n"), Path::new("file")).unwrap();
        let answers = [("m".to_owned(), answers.clone()), ("n".to_owned(), answers)].into();
        let prompts = JudgePrompts::builtin();
        let bench = Bench {
            questions: &questions,
            answers: &answers,
            references: &references,
            prompts: &prompts,
        };
        let models = names(&["m", "n"]);
        let single = bench.single_calls(&models).unwrap();
        let pairs = bench.pair_calls(&pairs_with_baseline(&models, "n")).unwrap();
        assert_eq!((single.len(), pairs.len()), (320, 320));
        for call in single.iter().chain(&pairs) {
            assert!(call.user_prompt.contains("first of it"), "{}", call.prompt_name);
            assert_eq!(call.user_prompt.contains("second of it"), call.turn == 2);
        }
    }
}
