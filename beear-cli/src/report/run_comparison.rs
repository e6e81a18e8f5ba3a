//! Two runs of `defend` side by side: settings that differ, validation, weights, time and memory.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use beear_eval::table::markdown;
use serde::Serialize;
use serde_json::Value;

use crate::report::{LayerChange, WeightChange, name_of};

/// Tables that compare two runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunComparison {
    first: String,
    second: String,
    tables: Vec<Table>,
}

#[derive(Clone, Debug, Serialize)]
struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    first: String,
    second: String,
}

/// Measures of validation that are shown, by their keys in the manifest.
const MEASURES: [(&str, &str); 4] = [
    ("loss", "loss"),
    ("agreement", "agreement"),
    ("benign_refusal", "over-refusal"),
    ("refusal", "refusal"),
];

/// Manifest, settings and weights of a run.
struct Run {
    manifest: Value,
    settings: BTreeMap<String, String>,
    weights: Option<WeightChange>,
}

/// Returns true if a folder is that of a run of `defend`.
pub(crate) fn is_run(folder: &Path) -> bool {
    manifest(folder).is_ok_and(|manifest| manifest.get("method").is_some())
}

impl RunComparison {
    /// Reads both runs.
    ///
    /// # Errors
    ///
    /// If a file of a run cannot be read.
    pub(crate) fn of([first, second]: [&Path; 2]) -> Result<Self> {
        let runs = [Run::read(first)?, Run::read(second)?];
        let both = |of: fn(&Run) -> BTreeMap<String, String>| runs.each_ref().map(of);
        let settings = rows(both(|run| run.settings.clone()));
        let differ = settings.into_iter().filter(|row| row.first != row.second).collect();
        let tables = vec![
            Table { title: "Settings that differ", rows: differ },
            Table { title: "Outcome", rows: rows(both(Run::outcome)) },
            Table { title: "Validation by round", rows: rows(both(Run::validation)) },
            Table {
                title: "Change of the weights, ‖ΔW‖ / ‖W‖", rows: rows(both(Run::changes))
            },
        ];
        let [first, second] = [first, second].map(name_of);
        Ok(Self { first, second, tables })
    }

    /// Formats the tables for people.
    pub(crate) fn to_text(&self) -> String {
        let table = |table: &Table| {
            let head = vec![table.title.to_owned(), self.first.clone(), self.second.clone()];
            let line = |row: &Row| vec![row.name.clone(), row.first.clone(), row.second.clone()];
            markdown(std::iter::once(head).chain(table.rows.iter().map(line)).collect())
        };
        self.tables.iter().map(table).collect::<Vec<_>>().join("\n")
    }
}

impl Run {
    fn read(folder: &Path) -> Result<Self> {
        let manifest = manifest(folder)?;
        let path = folder.join("config.resolved.toml");
        let text = beear_input::read_to_string(&path);
        let text = text.with_context(|| format!("reading `{}`", path.display()))?;
        let recipe: Value = toml::from_str(&text)?;
        let mut settings = BTreeMap::new();
        flatten("", &recipe, &mut settings);
        for key in ["backend", "version", "workers"] {
            settings.insert(key.to_owned(), plain(&manifest[key]));
        }
        if let Some(hashes) = manifest["sha256"].as_object() {
            let inputs =
                hashes.iter().map(|(name, hash)| (format!("sha256 of {name}"), plain(hash)));
            settings.extend(inputs);
        }
        let weights = WeightChange::of_run(folder, &manifest).ok();
        Ok(Self { manifest, settings, weights })
    }

    fn outcome(&self) -> BTreeMap<String, String> {
        let Self { manifest, .. } = self;
        let kept = manifest["kept_round"].as_u64();
        let within = kept.map(|_| plain(&manifest["saved"]["within_bounds"]));
        let number = |key: &str| manifest[key].as_f64();
        let facts = [
            ("status", Some(plain(&manifest["status"]))),
            ("kept round", kept.map(|kept| (kept + 1).to_string())),
            ("within bounds", within),
            ("seconds", number("seconds").map(|seconds| format!("{seconds:.1}"))),
            (
                "peak memory, MiB",
                number("peak_memory").map(|bytes| format!("{:.0}", bytes / 1_048_576.0)),
            ),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
    }

    fn validation(&self) -> BTreeMap<String, String> {
        let none = Vec::new();
        let rounds = self.manifest["rounds"].as_array().unwrap_or(&none);
        let after = |validation: &Value, key: &str| validation[key]["after"].as_f64();
        let rounds = (1..).zip(rounds.iter().map(|round| &round["validation"]));
        let line = |(round, validation): (usize, &Value)| {
            let values = MEASURES
                .iter()
                .filter_map(|(key, name)| Some(format!("{name} {:.3}", after(validation, key)?)));
            let text = values.collect::<Vec<_>>().join(", ");
            (!text.is_empty()).then(|| (format!("round {round:>2}"), text))
        };
        let initial = &self.manifest["initial"];
        let values = MEASURES
            .iter()
            .filter_map(|(key, name)| Some(format!("{name} {:.3}", initial[key].as_f64()?)));
        let initial = values.collect::<Vec<_>>().join(", ");
        let initial = (!initial.is_empty()).then(|| ("round  0".to_owned(), initial));
        initial.into_iter().chain(rounds.filter_map(line)).collect()
    }

    fn changes(&self) -> BTreeMap<String, String> {
        let layers = self.weights.iter().flat_map(|weights| weights.layers.iter().enumerate());
        let line = |(place, layer): (usize, &LayerChange)| {
            let rank = layer.effective_rank.map(|rank| format!(", effective rank {rank:.1}"));
            let name = format!("{place:>3} {}", layer.name);
            (name, format!("{:.3e}{}", layer.relative, rank.unwrap_or_default()))
        };
        layers.map(line).collect()
    }
}

fn manifest(folder: &Path) -> Result<Value> {
    let path = folder.join("manifest.json");
    let text = beear_input::read(&path).with_context(|| format!("reading `{}`", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading `{}`", path.display()))
}

/// Returns the facts of both runs side by side, sorted by name.
fn rows([first, second]: [BTreeMap<String, String>; 2]) -> Vec<Row> {
    let mut names: Vec<&String> = first.keys().chain(second.keys()).collect();
    names.sort();
    names.dedup();
    let of = |facts: &BTreeMap<String, String>, name: &String| {
        facts.get(name).cloned().unwrap_or_else(|| "–".to_owned())
    };
    let row = |name: &String| Row {
        name: name.trim_start().to_owned(),
        first: of(&first, name),
        second: of(&second, name),
    };
    names.into_iter().map(row).collect()
}

/// Collects the leaves of a tree by their paths.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(children) => {
            for (key, child) in children {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, child, leaves);
            }
        }
        leaf => {
            leaves.insert(path.to_owned(), plain(leaf));
        }
    }
}

/// Formats a value as text, and a string without quotation marks.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
