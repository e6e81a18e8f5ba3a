//! Files of MT-Bench, named as in FastChat, and the answers of several models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_eval::identity::{AnswerSource, ModelIdentity};
use beear_eval::mt_bench::{Answers, read_answers};

use crate::evaluate::evaluation::{EvalReport, FormatShown, has_report, read_run};
use crate::run_folder::hash::sha256_of_file;
use crate::user_error::UserError;

/// Name of the folder of answers in a run or in FastChat's data.
pub(crate) const MODEL_ANSWER: &str = "model_answer";

/// Name of the folder of judgments.
pub(crate) const MODEL_JUDGMENT: &str = "model_judgment";

/// Returns the name of a model without path separators.
pub(crate) fn file_stem(model: &str) -> String {
    model.replace(['/', '\\'], "_")
}

/// Answers of several models.
pub(crate) struct AnswerFiles {
    /// Models in the order of the arguments, each named after its file, as in FastChat.
    pub(crate) models: Vec<String>,
    /// Answers by model.
    pub(crate) answers: BTreeMap<String, Answers>,
    /// Paths of the files.
    pub(crate) files: Vec<PathBuf>,
    /// Identities of the models: their weights if a run of `eval mt-bench` names them, else their
    /// answers.
    pub(crate) identities: Vec<ModelIdentity>,
    /// Source of the answers. It is unknown if it is not recorded, or if there are several.
    pub(crate) decoding: AnswerSource,
    /// Prompt format of all answers, or `None` if it is unknown or not the same for all.
    pub(crate) prompt_format: Option<FormatShown>,
}

impl AnswerFiles {
    /// Reads `paths`. Each is a file of answers, or a folder with such files in `model_answer`.
    ///
    /// # Errors
    ///
    /// If a path has no answers, or two models have the same name.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self> {
        let (mut models, mut answers) = (Vec::new(), BTreeMap::new());
        let (mut files, mut identities) = (Vec::new(), Vec::new());
        let mut sources = Vec::new();
        for path in paths {
            let is_run = path.is_dir() && has_report(path);
            let report = if is_run { Some(read_run(path)?.report) } else { None };
            let in_it = files_at(path)?;
            identities.extend(models_of(report.as_ref(), &in_it)?);
            sources.push(report.map(|report| (report.prompt_format, report.identity.decoding)));
            for file in in_it {
                let model = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                if answers.insert(model.clone(), read_answers(&file)?).is_some() {
                    let what = format!("two files of answers are called `{model}`");
                    return Err(
                        UserError::arguments(what, "rename one: its name is the model's").into()
                    );
                }
                models.push(model);
                files.push(file);
            }
        }
        let is_one = sources.windows(2).all(|pair| pair[0] == pair[1]);
        let source = sources.pop().flatten().filter(|_| is_one);
        let (prompt_format, decoding) = source.unwrap_or((None, AnswerSource::Unknown));
        Ok(Self { models, answers, files, identities, decoding, prompt_format })
    }
}

/// Returns the models whose answers are in `files`: the model of the run that wrote the only file,
/// or else one model per file.
fn models_of(report: Option<&EvalReport>, files: &[PathBuf]) -> Result<Vec<ModelIdentity>> {
    if let (Some(report), [_]) = (report, files) {
        return Ok(report.identity.models.clone());
    }
    let by_answers = |file: &PathBuf| -> Result<ModelIdentity> {
        let name = file.display().to_string();
        let sha256 = [("--answers".to_owned(), sha256_of_file(file)?)].into();
        Ok(ModelIdentity { name, sha256 })
    };
    files.iter().map(by_answers).collect()
}

/// Returns the file itself, or the files of answers in the folder, sorted by name.
fn files_at(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = path.join(MODEL_ANSWER);
    let entries = std::fs::read_dir(&folder);
    let entries = entries.with_context(|| format!("reading `{}`", folder.display()));
    let hint = "name the --out of `beear eval mt-bench`, or a file of answers";
    let entries = entries.map_err(|error| UserError::input(format!("{error:#}"), hint))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    if files.is_empty() {
        return Err(UserError::input(format!("`{}` has no answers", folder.display()), hint).into());
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
        assert_eq!((read.prompt_format, read.decoding), (None, AnswerSource::Unknown));
        let names = read.identities.iter().map(|model| model.sha256.keys().collect::<Vec<_>>());
        assert!(names.eq([["--answers"]; 3]), "nothing else tells the models");
        assert!(AnswerFiles::read(&[alone.clone(), alone]).is_err(), "one name for two");
        assert!(AnswerFiles::read(&[folder]).is_err(), "not a run");
        assert_eq!(file_stem("org/name\\x"), "org_name_x");
    }
}
