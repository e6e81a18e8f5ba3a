//! Settings of lm-evaluation-harness: the part of a result file that must be equal in two results
//! for a comparison.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GROUP, subject};

/// Keys of the file that affect the prompts of a model.
const KEYS: [&str; 3] = ["chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn"];

/// Keys of the file's `config`.
const CONFIG_KEYS: [&str; 3] = ["limit", "gen_kwargs", "fewshot_seed"];

/// Tables of the file with a row for each task.
const TASK_KEYS: [&str; 2] = ["versions", "n-samples"];

/// Settings by their names in the file; a setting that is missing or null in the file is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HarnessSettings(BTreeMap<String, Value>);

impl HarnessSettings {
    /// Extracts the settings from the JSON of a result.
    pub(super) fn of(file: &Value) -> Self {
        let of = |place: &Value, key: &str| Some((key.to_owned(), place.get(key)?.clone()));
        let mut settings: BTreeMap<String, Value> =
            KEYS.iter().filter_map(|key| of(file, key)).collect();
        if let Some(config) = file.get("config") {
            settings.extend(CONFIG_KEYS.iter().filter_map(|key| of(config, key)));
        }
        for key in TASK_KEYS {
            let rows = file.get(key).and_then(Value::as_object).into_iter().flatten();
            let of_mmlu = rows.filter(|(task, _)| *task == GROUP || subject(task).is_some());
            settings
                .extend(of_mmlu.map(|(task, value)| (format!("{key} of {task}"), value.clone())));
        }
        settings.retain(|_, value| !value.is_null());
        Self(settings)
    }

    /// Returns the first setting that differs, with both values; `none` stands for a missing
    /// setting.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(String, [String; 2])> {
        let names = self.0.keys().chain(other.0.keys());
        let text = |settings: &Self, name: &str| {
            settings.0.get(name).map_or_else(|| "none".to_owned(), Value::to_string)
        };
        let differing = names.filter(|name| self.0.get(*name) != other.0.get(*name)).min()?;
        Some((differing.clone(), [self, other].map(|settings| text(settings, differing))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(change: impl Fn(&mut Value)) -> HarnessSettings {
        let mut file = json!({
            "config": {"model": "hf", "limit": null, "fewshot_seed": 1234},
            "chat_template_sha": "ab",
            "versions": {"mmlu": 2, "mmlu_anatomy": 1.0, "hellaswag": 1.0},
            "n-samples": {"mmlu_anatomy": {"original": 135, "effective": 135}},
        });
        change(&mut file);
        HarnessSettings::of(&file)
    }

    #[test]
    fn another_limit_template_version_or_number_of_questions_is_a_difference() {
        let whole = settings(|_| ());
        assert_eq!(whole.difference(&whole), None);
        let found = whole.difference(&settings(|file| file["config"]["limit"] = json!(10.0)));
        assert_eq!(found, Some(("limit".to_owned(), ["none", "10.0"].map(str::to_owned))));
        let found = whole.difference(&settings(|file| file["chat_template_sha"] = Value::Null));
        assert_eq!(found.map(|(name, _)| name).as_deref(), Some("chat_template_sha"));
        let found = whole.difference(&settings(|file| file["versions"]["mmlu"] = json!(1)));
        assert_eq!(found.map(|(name, _)| name).as_deref(), Some("versions of mmlu"));
        let fewer = settings(|file| file["n-samples"]["mmlu_anatomy"]["effective"] = json!(9));
        let found = whole.difference(&fewer).map(|(name, _)| name);
        assert_eq!(found.as_deref(), Some("n-samples of mmlu_anatomy"));
        let of_another_task = settings(|file| file["versions"]["hellaswag"] = json!(7));
        assert_eq!(whole.difference(&of_another_task), None);
        assert_eq!(
            whole.difference(&settings(|file| file["config"]["model"] = json!("vllm"))),
            None
        );
    }
}
