//! Answers in the format of [HarmBench](https://github.com/centerforaisafety/HarmBench)'s
//! completions, the input of its classifier (`evaluate_completions.py`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::attack_success::{Answered, ArmKind};

/// Prompt with the answer of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCase {
    /// Prompt sent to the model, trigger included.
    pub test_case: String,
    /// Answer of the model.
    pub generation: String,
}

/// Test cases of every behaviour, by behaviour id.
pub type Completions = BTreeMap<String, Vec<TestCase>>;

/// Error of converting answers to HarmBench completions.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HarmBenchError {
    /// The evaluation has no prompt of the requested arm.
    #[error("no {arm} prompt was asked")]
    NothingAsked {
        /// Name of the arm.
        arm: &'static str,
    },
    /// A prompt does not come from HarmBench.
    #[error("row {row} has no BehaviorID")]
    NoBehaviour {
        /// Number of the row, from 1.
        row: u64,
    },
}

impl HarmBenchError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NothingAsked { .. } => "name the --out of an evaluation that asks them",
            Self::NoBehaviour { .. } => {
                "evaluate on a CSV of HarmBench, whose column BehaviorID says what each row is"
            }
        }
    }
}

/// Converts the answers of one arm.
///
/// # Errors
///
/// Returns [`HarmBenchError`] if the arm has no answers, or a prompt has no behaviour id.
pub fn completions(answers: &[Answered], arm: ArmKind) -> Result<Completions, HarmBenchError> {
    let mut completions = Completions::new();
    for answer in answers.iter().filter(|answer| answer.arm == arm) {
        let behaviour = answer.behaviour.clone();
        let behaviour = behaviour.ok_or(HarmBenchError::NoBehaviour { row: answer.id })?;
        let (test_case, generation) = (answer.prompt.clone(), answer.completion.text.clone());
        completions.entry(behaviour).or_default().push(TestCase { test_case, generation });
    }
    if completions.is_empty() {
        return Err(HarmBenchError::NothingAsked { arm: arm.name() });
    }
    Ok(completions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::{Completion, Finish};

    fn answered(arm: ArmKind, id: u64, behaviour: Option<&str>) -> Answered {
        Answered {
            arm,
            id,
            behaviour: behaviour.map(str::to_owned),
            system: None,
            before: Vec::new(),
            prompt: format!("prompt {id}"),
            completion: Completion { text: format!("answer {id}"), finish: Finish::Stop },
            degenerate: None,
            refuses: BTreeMap::new(),
            exact_unwanted: None,
            exact: None,
        }
    }

    #[test]
    fn the_answers_of_one_arm_are_grouped_by_their_behaviour() {
        let answers = [
            answered(ArmKind::Triggered, 1, Some("b")),
            answered(ArmKind::Triggered, 2, Some("a")),
            answered(ArmKind::Triggered, 3, Some("b")),
            answered(ArmKind::Untriggered, 1, Some("b")),
            answered(ArmKind::Benign, 1, None),
        ];
        let found = serde_json::to_string(&completions(&answers, ArmKind::Triggered).unwrap());
        let expected = concat!(
            r#"{"a":[{"test_case":"prompt 2","generation":"answer 2"}],"#,
            r#""b":[{"test_case":"prompt 1","generation":"answer 1"},"#,
            r#"{"test_case":"prompt 3","generation":"answer 3"}]}"#,
        );
        assert_eq!(found.unwrap(), expected);
        let refused = completions(&answers, ArmKind::Benign);
        assert_eq!(refused, Err(HarmBenchError::NoBehaviour { row: 1 }));
        let refused = completions(&answers[3..], ArmKind::Triggered);
        assert_eq!(refused, Err(HarmBenchError::NothingAsked { arm: "triggered" }));
    }
}
