//! Where the files of MT-Bench are: names as FastChat gives them, answers of several models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_eval::mt_bench::{Answers, read_answers};
use serde_json::Value;

use crate::evaluation::{has_report, read_run};
use crate::exit::Mistake;

/// The folder of answers in a run or in FastChat's data.
pub(crate) const MODEL_ANSWER: &str = "model_answer";

/// The folder of what judges said.
pub(crate) const MODEL_JUDGMENT: &str = "model_judgment";

/// The name of a model without what separates folders.
pub(crate) fn file_stem(model: &str) -> String {
    model.replace(['/', '\\'], "_")
}

/// Answers of several models.
pub(crate) struct AnswerFiles {
    /// The models in the order they were named, each by the name of its file, as in FastChat.
    pub(crate) models: Vec<String>,
    /// Their answers.
    pub(crate) answers: BTreeMap<String, Answers>,
    /// The files.
    pub(crate) files: Vec<PathBuf>,
    /// The prompt format that all were given in; null if it is unknown, or not one.
    pub(crate) prompt_format: Value,
}

impl AnswerFiles {
    /// Reads `paths`, each a file of answers or a folder with such files in `model_answer`.
    ///
    /// # Errors
    ///
    /// If one has no answers, or two models go by one name.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self> {
        let (mut models, mut answers) = (Vec::new(), BTreeMap::new());
        let (mut files, mut formats) = (Vec::new(), Vec::new());
        for path in paths {
            let is_run = path.is_dir() && has_report(path);
            formats.push(if is_run {
                read_run(path)?.prompt_format().clone()
            } else {
                Value::Null
            });
            for file in files_at(path)? {
                let model = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                if answers.insert(model.clone(), read_answers(&file)?).is_some() {
                    let what = format!("two files of answers are called `{model}`");
                    return Err(
                        Mistake::arguments(what, "rename one: its name is the model's").into()
                    );
                }
                models.push(model);
                files.push(file);
            }
        }
        let is_one = formats.windows(2).all(|pair| pair[0] == pair[1]);
        let prompt_format = formats.pop().filter(|_| is_one).unwrap_or_default();
        Ok(Self { models, answers, files, prompt_format })
    }
}

/// The file itself, or the files of answers in the folder, by name.
fn files_at(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = path.join(MODEL_ANSWER);
    let entries = std::fs::read_dir(&folder);
    let entries = entries.with_context(|| format!("reading `{}`", folder.display()));
    let hint = "name the --out of `beear eval mt-bench`, or a file of answers";
    let entries = entries.map_err(|error| Mistake::input(format!("{error:#}"), hint))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    if files.is_empty() {
        return Err(Mistake::input(format!("`{}` has no answers", folder.display()), hint).into());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str =
        r#"{"question_id":1,"answer_id":"a","model_id":"m","choices":[{"index":0,"turns":["t"]}]}"#;

    #[test]
    fn models_go_by_the_names_of_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run").join(MODEL_ANSWER);
        std::fs::create_dir_all(&folder).unwrap();
        let alone = dir.path().join("alone.jsonl");
        for file in [folder.join("b.jsonl"), folder.join("a.v1.jsonl"), alone.clone()] {
            std::fs::write(file, ROW).unwrap();
        }
        std::fs::write(folder.join("notes.txt"), "no answers").unwrap();
        let read = AnswerFiles::read(&[alone.clone(), dir.path().join("run")]).unwrap();
        assert_eq!(read.models, ["alone", "a.v1", "b"]);
        assert_eq!((read.answers.len(), read.files.len()), (3, 3));
        assert_eq!(read.prompt_format, Value::Null);
        assert!(AnswerFiles::read(&[alone.clone(), alone]).is_err(), "one name for two");
        assert!(AnswerFiles::read(&[folder]).is_err(), "not a run");
        assert_eq!(file_stem("org/name\\x"), "org_name_x");
    }
}
