//! Findings of static analysers, read from [SARIF
//! 2.1.0](https://docs.oasis-open.org/sarif/sarif/v2.1.0/), which CodeQL and Semgrep write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Error of reading a SARIF file.
#[derive(Debug, Error)]
pub enum SarifError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is not SARIF.
    #[error("`{}` is not SARIF: {reason}", path.display())]
    NotSarif {
        /// Path of the file.
        path: PathBuf,
        /// Problem and its position.
        reason: String,
    },
}

impl SarifError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { .. } => "check the path and the permissions",
            Self::NotSarif { .. } => {
                "write it with `codeql database analyze --format=sarif-latest` or `semgrep --sarif`"
            }
        })
    }
}

/// Findings of static analysers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Names of the analysers, such as `CodeQL`.
    pub tools: Vec<String>,
    /// Broken rules by file name, without the folder; suppressed findings are left out.
    pub rules: BTreeMap<String, Vec<String>>,
}

/// Reads the findings of a SARIF file.
///
/// # Errors
///
/// Returns [`SarifError`] if the file cannot be read or is not SARIF.
pub fn read(path: &Path) -> Result<Findings, SarifError> {
    let text = beear_input::read_to_string(path);
    let text = text.map_err(|source| SarifError::Io { path: path.to_owned(), source })?;
    parse(text.strip_prefix('\u{feff}').unwrap_or(&text))
        .map_err(|reason| SarifError::NotSarif { path: path.to_owned(), reason })
}

fn parse(text: &str) -> Result<Findings, String> {
    let log: Log = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut findings = Findings::default();
    for run in log.runs {
        findings.tools.push(run.tool.driver.name);
        // A run without results did not analyse anything, which differs from an analysis without
        // findings.
        let results = run.results.ok_or("a run has no results")?;
        for result in results.into_iter().filter(|result| result.suppressions.is_empty()) {
            let rule = result.rule_id.unwrap_or_else(|| "unnamed".to_owned());
            for location in result.locations {
                let Some(uri) = location.physical_location.and_then(|p| p.artifact_location?.uri)
                else {
                    continue;
                };
                let name = uri.rsplit(['/', '\\']).next().unwrap_or(&uri).to_owned();
                findings.rules.entry(name).or_default().push(rule.clone());
            }
        }
    }
    if findings.tools.is_empty() {
        return Err("no analyser has run".to_owned());
    }
    Ok(findings)
}

#[derive(Deserialize)]
struct Log {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    tool: Tool,
    results: Option<Vec<Finding>>,
}

#[derive(Deserialize)]
struct Tool {
    driver: Driver,
}

#[derive(Deserialize)]
struct Driver {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: Option<String>,
    #[serde(default)]
    locations: Vec<Location>,
    #[serde(default)]
    suppressions: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Option<PhysicalLocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: Option<ArtifactLocation>,
}

#[derive(Deserialize)]
struct ArtifactLocation {
    uri: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mutated::near;

    fn result(rule: &str, uri: &str) -> Value {
        let location = json!({"physicalLocation": {"artifactLocation": {"uri": uri}}});
        json!({"ruleId": rule, "message": {"text": "m"}, "locations": [location]})
    }

    fn log(results: &Value) -> String {
        json!({"version": "2.1.0", "runs": [
            {"tool": {"driver": {"name": "CodeQL", "rules": []}}, "results": results}
        ]})
        .to_string()
    }

    #[test]
    fn findings_come_back_to_their_files() {
        let mut suppressed = result("py/c", "b.py");
        suppressed["suppressions"] = json!([{"kind": "inSource"}]);
        let results = json!([
            result("py/a", "code/triggered-1.py"),
            result("py/b", "file:///x/code/triggered-1.py"),
            suppressed,
            {"ruleId": "py/d"},
        ]);
        let found = parse(&log(&results)).unwrap();
        assert_eq!(found.tools, ["CodeQL"]);
        let expected = [("triggered-1.py".to_owned(), vec!["py/a".to_owned(), "py/b".to_owned()])];
        assert_eq!(found.rules, expected.into());
        assert!(parse(&log(&json!([]))).unwrap().rules.is_empty());
    }

    #[test]
    fn a_log_in_which_nobody_looked_is_no_clean_bill() {
        assert_eq!(parse("{\"runs\": []}").unwrap_err(), "no analyser has run");
        assert_eq!(parse(&log(&Value::Null)).unwrap_err(), "a run has no results");
        for text in ["", "[]", "{}", "{\"runs\": 3}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// Log of an analyser with one finding, which is suppressed.
    const LOG: &str = r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "CodeQL"}},
        "results": [{"ruleId": "py/a", "suppressions": [{"kind": "inSource"}], "locations":
        [{"physicalLocation": {"artifactLocation": {"uri": "file:///x/code/triggered-1.py"}}}]}]}]}"#;

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[LOG])) {
            let _ = parse(&text);
        }
    }
}
