//! Prompts for judges: `judge_prompts.jsonl` of FastChat, and BEEAR's own prompts under the same
//! names.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::MtBenchError;
use super::lines::{parse, row_error, text_of};
use super::rating::{Preference, preference, preference_by_ratings, rating};
use super::template::Template;

/// Task of a judge prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptType {
    /// Rating of an answer.
    Single,
    /// Comparison of two answers.
    Pairwise,
}

impl PromptType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Pairwise => "pairwise",
        }
    }
}

/// Format of a judge's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputFormat {
    /// Reply parsed with [`rating`](super::rating).
    #[serde(rename = "[[rating]]")]
    Rating,
    /// Reply parsed with [`preference`](super::preference).
    #[serde(rename = "[[A]]")]
    Letter,
    /// Reply parsed with [`preference_by_ratings`](super::preference_by_ratings).
    #[serde(rename = "[[rating_a,rating_b]]")]
    TwoRatings,
}

impl OutputFormat {
    /// Parses the answer preferred by a reply of this format.
    pub(super) fn preference(self, reply: &str) -> Option<Preference> {
        match self {
            Self::Rating => None,
            Self::Letter => preference(reply),
            Self::TwoRatings => preference_by_ratings(reply),
        }
    }

    /// True if a reply contains the rating or preference that the prompt requests.
    #[must_use]
    pub fn is_read(self, reply: &str) -> bool {
        match self {
            Self::Rating => rating(reply).is_some(),
            Self::Letter | Self::TwoRatings => self.preference(reply).is_some(),
        }
    }
}

/// Prompt for a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePrompt {
    /// Name of the prompt: `single-v1` and so on.
    pub name: String,
    /// Task of the judge.
    #[serde(rename = "type")]
    pub prompt_type: PromptType,
    /// System prompt, which has no placeholders.
    pub system_prompt: String,
    /// Template of the question to the judge.
    pub prompt_template: Template,
    /// Purpose of the prompt.
    #[serde(default)]
    pub description: String,
    /// Category, `general` or `math`.
    #[serde(default)]
    pub category: String,
    /// Format of the reply.
    pub output_format: OutputFormat,
}

impl JudgePrompt {
    fn problem(&self) -> Option<&'static str> {
        let has = |names: &[&str]| names.iter().all(|name| self.prompt_template.has(name));
        match (self.prompt_type, self.output_format) {
            (PromptType::Single, OutputFormat::Rating) => {
                (!has(&["answer"]) && !has(&["answer_2"])).then_some("the template shows no answer")
            }
            (PromptType::Pairwise, OutputFormat::Letter | OutputFormat::TwoRatings) => {
                let shown = has(&["answer_a", "answer_b"]) || has(&["answer_a_2", "answer_b_2"]);
                (!shown).then_some("the template does not show two answers")
            }
            (PromptType::Single, OutputFormat::Letter | OutputFormat::TwoRatings) => {
                Some("a `single` prompt is answered with `[[rating]]`")
            }
            (PromptType::Pairwise, OutputFormat::Rating) => {
                Some("a `pairwise` prompt is answered with `[[A]]` or `[[rating_a,rating_b]]`")
            }
        }
    }

    /// Fills in every placeholder of the template.
    ///
    /// # Errors
    ///
    /// Returns [`MtBenchError::NoText`] if a placeholder is missing in `texts`.
    pub fn fill(&self, texts: &[(&str, &str)]) -> Result<String, MtBenchError> {
        let filled = self.prompt_template.fill(texts);
        filled.map_err(|placeholder| MtBenchError::NoText { name: self.name.clone(), placeholder })
    }
}

/// Judge prompts by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgePrompts(BTreeMap<String, JudgePrompt>);

impl JudgePrompts {
    /// Returns BEEAR's own prompts under FastChat's names: `single-v1`, `single-math-v1`,
    /// `pair-v2`, `pair-math-v1`, and the same names with `-multi-turn` for two turns.
    ///
    /// # Panics
    ///
    /// Never panics: a test reads the prompts.
    #[must_use]
    pub fn builtin() -> Self {
        let text = include_str!("../../data/mt_bench/judge_prompts.jsonl");
        Self::parse(text, Path::new("judge_prompts.jsonl")).expect("a test reads them")
    }

    /// Reads `judge_prompts.jsonl`.
    ///
    /// # Errors
    ///
    /// Returns [`MtBenchError`], with a variant per problem.
    pub fn read(path: &Path) -> Result<Self, MtBenchError> {
        Self::parse(&text_of(path)?, path)
    }

    /// Parses the text of `judge_prompts.jsonl`; `path` is used in messages.
    ///
    /// # Errors
    ///
    /// Returns [`MtBenchError`], with a variant per problem.
    pub fn parse(text: &str, path: &Path) -> Result<Self, MtBenchError> {
        let rows: Vec<(usize, JudgePrompt)> = parse(text, path)?;
        let mut prompts = BTreeMap::new();
        for (row, prompt) in rows {
            if let Some(reason) = prompt.problem() {
                return Err(row_error(path, row, reason));
            }
            if let Some(second) = prompts.insert(prompt.name.clone(), prompt) {
                let (path, name) = (path.to_owned(), second.name);
                return Err(MtBenchError::Duplicate { path, row, name });
            }
        }
        Ok(Self(prompts))
    }

    /// Returns the prompt `name`, which must be of type `expected`.
    ///
    /// # Errors
    ///
    /// Returns [`MtBenchError::UnknownPrompt`] or [`MtBenchError::PromptType`].
    pub fn get(&self, name: &str, expected: PromptType) -> Result<&JudgePrompt, MtBenchError> {
        let name = name.to_owned();
        let Some(prompt) = self.0.get(&name) else {
            return Err(MtBenchError::UnknownPrompt { name });
        };
        if prompt.prompt_type != expected {
            let (expected, found) = (expected.name(), prompt.prompt_type.name());
            return Err(MtBenchError::PromptType { name, expected, found });
        }
        Ok(prompt)
    }

    /// Returns all prompts, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &JudgePrompt> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(text: &str) -> Result<JudgePrompts, MtBenchError> {
        JudgePrompts::parse(text, Path::new("file"))
    }

    fn row(kind: &str, template: &str, format: &str) -> String {
        serde_json::json!({"name": "n", "type": kind, "system_prompt": "s", "prompt_template": template,
            "description": "d", "category": "general", "output_format": format})
        .to_string()
    }

    #[test]
    fn the_built_in_prompts_have_the_names_of_fastchat() {
        let prompts = JudgePrompts::builtin();
        let names: Vec<&str> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
        let expected = [
            "pair-math-v1",
            "pair-math-v1-multi-turn",
            "pair-v2",
            "pair-v2-multi-turn",
            "single-math-v1",
            "single-math-v1-multi-turn",
            "single-v1",
            "single-v1-multi-turn",
        ];
        assert_eq!(names, expected);
        for prompt in prompts.iter() {
            let is_math = prompt.name.contains("math");
            assert_eq!(prompt.prompt_template.has("ref_answer_1"), is_math, "{}", prompt.name);
            let second = is_math && prompt.name.ends_with("-multi-turn");
            assert_eq!(prompt.prompt_template.has("ref_answer_2"), second, "{}", prompt.name);
            assert_eq!(prompt.category, if is_math { "math" } else { "general" });
        }
    }

    #[test]
    fn every_mistake_has_its_error() {
        let good = row("single", "{answer}", "[[rating]]");
        let pair = row("pairwise", "{answer_a_2}{answer_b_2}", "[[A]]");
        let read = prompts(&good).unwrap();
        assert_eq!(
            serde_json::to_value(read.get("n", PromptType::Single).unwrap()).unwrap(),
            serde_json::from_str::<serde_json::Value>(&good).unwrap()
        );
        assert!(matches!(
            read.get("m", PromptType::Single),
            Err(MtBenchError::UnknownPrompt { .. })
        ));
        assert!(matches!(
            read.get("n", PromptType::Pairwise),
            Err(MtBenchError::PromptType { .. })
        ));
        let prompt = read.get("n", PromptType::Single).unwrap();
        let none = prompt.fill(&[("question", "q")]);
        assert!(matches!(none, Err(MtBenchError::NoText { placeholder: "answer", .. })));
        let twice = prompts(&format!("{good}\n{pair}"));
        assert!(matches!(twice, Err(MtBenchError::Duplicate { row: 2, .. })));
        let bad = [
            ("single", "{question}", "[[rating]]", "shows no answer"),
            ("single", "{answer}", "[[A]]", "`[[rating]]`"),
            ("pairwise", "{answer_a}{answer_b_2}", "[[A]]", "two answers"),
            ("pairwise", "{answer_a}{answer_b}", "[[rating]]", "`[[A]]`"),
            ("single", "{answer}", "[[rating_a,rating_b]]", "`[[rating]]`"),
            ("pairwise", "{answer_a}{answer_b}", "[[B]]", "unknown variant"),
            ("single", "{answer} {", "[[rating]]", "not closed"),
            ("single", "{answer} {reply}", "[[rating]]", "unknown placeholder `{reply}`"),
            ("double", "{answer}", "[[rating]]", "unknown variant `double`"),
        ];
        for (kind, template, format, expected) in bad {
            let found = prompts(&row(kind, template, format));
            let Err(MtBenchError::Row { row: 1, reason, .. }) = found else { panic!("{template}") };
            assert!(reason.contains(expected), "{reason}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[{]?\\PC{0,40}", template in "\\PC{0,20}") {
            let _ = prompts(&text);
            let _ = prompts(&row("single", &template, "[[rating]]"));
        }
    }
}
