//! MMLU from the results of EleutherAI's
//! [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness), the files written
//! by `lm_eval --output_path`.

mod settings;
mod subjects;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::interval::Z_95;
use crate::measure::Estimate;
pub use settings::HarnessSettings;
use subjects::SUBJECTS;

/// MMLU accuracy of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mmlu {
    /// Share of right answers.
    pub accuracy: f64,
    /// Standard error of the accuracy, if the file contains one.
    pub standard_error: Option<f64>,
    /// Rows of the file from which the accuracy is taken.
    pub of: MmluSource,
    /// Number of worked examples before each question, if the file contains it.
    pub n_shot: Option<u64>,
    /// Settings under which the questions were asked.
    pub settings: HarnessSettings,
}

/// Source of the MMLU accuracy within a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MmluSource {
    /// The group's own row, in which every question has equal weight.
    Group,
    /// The mean of these subjects with equal weights, because the group has no row.
    Subjects(Vec<String>),
}

/// Error of reading MMLU from a file.
#[derive(Debug, Error)]
pub enum HarnessError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is not JSON, or not a result of the harness.
    #[error("`{}` is no result of lm-evaluation-harness: {reason}", path.display())]
    NoResults {
        /// Path of the file.
        path: PathBuf,
        /// Problem of the file.
        reason: String,
    },
    /// The file contains other tasks only.
    #[error("`{}` has no MMLU, but {tasks}", path.display())]
    NoMmlu {
        /// Path of the file.
        path: PathBuf,
        /// Tasks in the file.
        tasks: String,
    },
    /// A row of MMLU has no valid accuracy.
    #[error("`{}`: `{key}` of `{task}` is not {expected}", path.display())]
    BadRow {
        /// Path of the file.
        path: PathBuf,
        /// Task of the row.
        task: String,
        /// Key with the invalid value.
        key: &'static str,
        /// Expected content of the key.
        expected: &'static str,
    },
}

impl HarnessError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the path and the permissions",
            Self::NoResults { .. } => {
                "name the `results_*.json` that `lm_eval --output_path` writes"
            }
            Self::NoMmlu { .. } => "run `lm_eval --tasks mmlu` on both models",
            Self::BadRow { .. } => "the file is damaged: copy or make it again",
        }
    }
}

impl Mmlu {
    /// Reads a result of the harness: the row `mmlu`, or the mean of its subjects (`mmlu_*`, in
    /// older files `hendrycksTest-*`) if that row is missing.
    ///
    /// # Errors
    ///
    /// Returns [`HarnessError`], with a variant per problem.
    pub fn read(path: &Path) -> Result<Self, HarnessError> {
        let text = beear_input::read_to_string(path)
            .map_err(|source| HarnessError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, HarnessError> {
        let none = |reason: String| HarnessError::NoResults { path: path.to_owned(), reason };
        let file: Value = serde_json::from_str(text).map_err(|error| none(error.to_string()))?;
        let results = file.get("results").and_then(Value::as_object);
        let results = results.ok_or_else(|| none("it has no `results`".to_owned()))?;
        let n_shot = |task: &str| file.get("n-shot")?.get(task)?.as_u64();
        let settings = HarnessSettings::of(&file);
        if let Some(group) = results.get(GROUP) {
            let Row { accuracy, standard_error } = Row::of(GROUP, group, path)?;
            let n_shot =
                n_shot(GROUP).or_else(|| subjects(results).find_map(|(task, _)| n_shot(task)));
            return Ok(Self { accuracy, standard_error, of: MmluSource::Group, n_shot, settings });
        }
        let rows = subjects(results).map(|(task, row)| Row::of(task, row, path));
        let rows = rows.collect::<Result<Vec<Row>, _>>()?;
        if rows.is_empty() {
            let tasks: Vec<String> =
                results.keys().take(5).map(|task| format!("`{task}`")).collect();
            let tasks =
                if tasks.is_empty() { "no task at all".to_owned() } else { tasks.join(", ") };
            return Err(HarnessError::NoMmlu { path: path.to_owned(), tasks });
        }
        let mut names: Vec<String> =
            subjects(results).filter_map(|(task, _)| Some(subject(task)?.to_owned())).collect();
        names.sort_unstable();
        let n = rows.len() as f64;
        let squares = rows.iter().map(|row| row.standard_error.map(|error| error * error));
        Ok(Self {
            accuracy: rows.iter().map(|row| row.accuracy).sum::<f64>() / n,
            standard_error: squares.sum::<Option<f64>>().map(|sum| sum.sqrt() / n),
            of: MmluSource::Subjects(names),
            n_shot: subjects(results).find_map(|(task, _)| n_shot(task)),
            settings,
        })
    }

    /// Returns the accuracy with its 95 % interval; the interval is 0..=1 without a standard error.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        let value = self.accuracy;
        match self.standard_error {
            Some(error) => {
                let (low, high) = (value - Z_95 * error, value + Z_95 * error);
                Estimate { value, low: low.max(0.0), high: high.min(1.0) }
            }
            None => Estimate { value, low: 0.0, high: 1.0 },
        }
    }

    /// Describes the accuracy in words, with its standard error and source.
    #[must_use]
    pub fn to_text(&self) -> String {
        let error = match self.standard_error {
            Some(error) => format!("standard error {:.2} %", 100.0 * error),
            None => "without a standard error".to_owned(),
        };
        let of = match &self.of {
            MmluSource::Group => "the harness's own number".to_owned(),
            MmluSource::Subjects(names) => {
                let (n, all) = (names.len(), SUBJECTS.len());
                format!("the mean of {n} of {all} subjects, for the file has no row `{GROUP}`")
            }
        };
        format!("{:.2} %, {error}, {of}", 100.0 * self.accuracy)
    }
}

/// Task that covers all of MMLU.
const GROUP: &str = "mmlu";

/// Returns the rows of single subjects with the names of their tasks. Rows of subject groups and
/// other tests named after MMLU are left out.
fn subjects(results: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    results
        .iter()
        .map(|(task, row)| (task.as_str(), row))
        .filter(|(task, _)| subject(task).is_some())
}

/// Returns the subject of a task; None if the task is not a single subject.
fn subject(task: &str) -> Option<&str> {
    let name = task.strip_prefix("mmlu_").or_else(|| task.strip_prefix("hendrycksTest-"))?;
    Some(name).filter(|name| SUBJECTS.contains(name))
}

/// Result of a task.
struct Row {
    accuracy: f64,
    standard_error: Option<f64>,
}

impl Row {
    /// Parses the row of `task`, with the current keys (including the name of a filter) or the
    /// older ones.
    fn of(task: &str, row: &Value, path: &Path) -> Result<Self, HarnessError> {
        let bad = |key, expected| {
            let (path, task) = (path.to_owned(), task.to_owned());
            HarnessError::BadRow { path, task, key, expected }
        };
        let value = |keys: [&str; 2]| keys.into_iter().find_map(|key| row.get(key));
        let accuracy = value(["acc,none", "acc"]).and_then(Value::as_f64);
        let accuracy = accuracy.filter(|share| (0.0..=1.0).contains(share));
        let accuracy = accuracy.ok_or_else(|| bad("acc", "a share"))?;
        let standard_error = match value(["acc_stderr,none", "acc_stderr"]) {
            // The harness writes a text for a missing standard error.
            None | Some(Value::Null | Value::String(_)) => None,
            Some(error) => {
                let error = error.as_f64().filter(|error| (0.0..=1.0).contains(error));
                let error = error.ok_or_else(|| bad("acc_stderr", "a standard error"))?;
                // Equal answers are too few to show their variation.
                Some(error).filter(|error| *error > 0.0)
            }
        };
        Ok(Self { accuracy, standard_error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;

    /// Result of version 0.4: groups, groups of subjects, subjects, and an unrelated test.
    const NEW: &str = r#"{"results": {
        "mmlu": {"acc,none": 0.61, "acc_stderr,none": 0.0039, "alias": "mmlu"},
        "mmlu_stem": {"acc,none": 0.4, "acc_stderr,none": 0.01, "alias": " - stem"},
        "mmlu_astronomy": {"alias": "  - astronomy", "acc,none": 0.5, "acc_stderr,none": 0.03},
        "mmlu_virology": {"alias": "  - virology", "acc,none": 0.7, "acc_stderr,none": 0.04},
        "mmlu_pro": {"exact_match,custom-extract": 0.2}, "hellaswag": {"acc,none": 0.9}},
        "n-shot": {"mmlu_astronomy": 5, "mmlu_virology": 5}, "config": {"limit": null}}"#;

    /// Result of version 0.3.
    const OLD: &str = r#"{"results": {
        "hendrycksTest-astronomy": {"acc": 0.5, "acc_stderr": 0.03, "acc_norm": 0.4, "acc_norm_stderr": 0.1},
        "hendrycksTest-virology": {"acc": 0.7, "acc_stderr": 0.04, "acc_norm": 0.6, "acc_norm_stderr": 0.1}},
        "versions": {"hendrycksTest-astronomy": 1}}"#;

    fn parse(text: &str) -> Result<Mmlu, HarnessError> {
        Mmlu::parse(text, Path::new("results.json"))
    }

    #[test]
    fn the_row_of_the_group_is_taken_where_there_is_one() {
        let mmlu = parse(NEW).unwrap();
        let expected = Mmlu {
            accuracy: 0.61,
            standard_error: Some(0.0039),
            of: MmluSource::Group,
            n_shot: Some(5),
            settings: mmlu.settings.clone(),
        };
        assert_eq!(mmlu, expected);
        let Estimate { low, high, .. } = mmlu.estimate();
        assert!((low - 0.602_356).abs() < 1e-6 && (high - 0.617_644).abs() < 1e-6, "{low} {high}");
        assert_eq!(mmlu.to_text(), "61.00 %, standard error 0.39 %, the harness's own number");
    }

    #[test]
    fn subjects_are_averaged_where_there_is_no_group_and_it_is_said() {
        let ungrouped = NEW.replace("\"mmlu\": {", "\"other\": {");
        for (text, n_shot) in [(ungrouped.as_str(), Some(5)), (OLD, None)] {
            let mmlu = parse(text).unwrap();
            let names = ["astronomy", "virology"].map(str::to_owned).to_vec();
            assert_eq!((&mmlu.of, mmlu.n_shot), (&MmluSource::Subjects(names), n_shot));
            assert!((mmlu.accuracy - 0.6).abs() < 1e-12);
            // √(0.03² + 0.04²) / 2.
            assert!((mmlu.standard_error.unwrap() - 0.025).abs() < 1e-12);
            assert!(
                mmlu.to_text()
                    .ends_with("the mean of 2 of 57 subjects, for the file has no row `mmlu`")
            );
        }
    }

    #[test]
    fn without_a_standard_error_nothing_is_known_of_the_interval() {
        let mmlu =
            parse(r#"{"results": {"mmlu": {"acc,none": 0.5, "acc_stderr,none": "N/A"}}}"#).unwrap();
        assert_eq!(mmlu.estimate(), Estimate { value: 0.5, low: 0.0, high: 1.0 });
        assert_eq!(mmlu.to_text(), "50.00 %, without a standard error, the harness's own number");
    }

    #[test]
    fn every_mistake_has_its_error() {
        assert!(matches!(Mmlu::read(Path::new("nowhere.json")), Err(HarnessError::Io { .. })));
        assert!(matches!(parse("{"), Err(HarnessError::NoResults { .. })));
        assert!(matches!(parse("{\"result\": {}}"), Err(HarnessError::NoResults { .. })));
        let message =
            parse(r#"{"results": {"mmlu_pro": {}, "mmlu_stem": {}}}"#).unwrap_err().to_string();
        assert_eq!(message, "`results.json` has no MMLU, but `mmlu_pro`, `mmlu_stem`");
        let message = parse("{\"results\": {}}").unwrap_err().to_string();
        assert_eq!(message, "`results.json` has no MMLU, but no task at all");
        for row in [
            r#"{"acc,none": 61}"#,
            r#"{"acc,none": "0.6"}"#,
            "{}",
            "3",
            r#"{"acc": 0.5, "acc_stderr": -1}"#,
        ] {
            let refused = parse(&format!(r#"{{"results": {{"mmlu": {row}}}}}"#));
            assert!(matches!(refused, Err(HarnessError::BadRow { .. })), "{row}");
        }
    }

    #[test]
    fn there_are_57_subjects_all_different() {
        let different: std::collections::HashSet<&&str> = SUBJECTS.iter().collect();
        assert_eq!(different.len(), 57);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[NEW, OLD])) {
            if let Ok(mmlu) = parse(&text) {
                let Estimate { value, low, high } = mmlu.estimate();
                proptest::prop_assert!(0.0 <= low && low <= value && value <= high && high <= 1.0);
                let _ = mmlu.to_text();
            }
        }
    }
}
