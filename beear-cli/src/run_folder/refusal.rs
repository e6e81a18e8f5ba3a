//! Which folders a run does not take: those of something else, and those that hold its inputs.

use std::fs;
use std::path::{Path, PathBuf};

use beear_models::checkpoint::base_of_adapters;

use super::{MARK, is_unused};
use crate::user_error::UserError;

/// Refuses a folder that is not there for this run.
///
/// # Errors
///
/// If something is there that is not an older run or that `force` does not allow to replace.
pub(super) fn refuse_others(path: &Path, force: bool) -> Result<(), UserError> {
    let there = fs::symlink_metadata(path).is_ok();
    if !there || is_unused(path) || (force && path.join(MARK).is_file()) {
        return Ok(());
    }
    let hint = if force {
        "--force replaces folders of runs only: choose another folder"
    } else {
        "choose another folder, or --force to replace an older run"
    };
    Err(UserError::arguments(format!("`{}` exists already", path.display()), hint))
}

/// Refuses a folder whose replacement would take an input with it.
///
/// # Errors
///
/// If an input lies in it, or a link to one does.
pub(super) fn refuse_inputs(out: &Path, inputs: &[&Path]) -> Result<(), UserError> {
    let Ok(canonical) = out.canonicalize() else { return Ok(()) };
    let bases = inputs.iter().filter_map(|input| base_of_adapters(input));
    // Weights may be links to another folder's.
    let within = inputs.iter().map(|input| (*input).to_owned()).chain(bases).flat_map(|input| {
        let files = fs::read_dir(&input).into_iter().flatten().flatten();
        let files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        std::iter::once(input).chain(files)
    });
    match within.into_iter().find(|input| places(input).any(|at| at.starts_with(&canonical))) {
        Some(input) => {
            let [input, out] = [input.as_path(), out].map(Path::display);
            let what = format!("the input `{input}` lies within --out `{out}`");
            let hint = "choose another --out: a run replaces all that its folder holds";
            Err(UserError::arguments(what, hint))
        }
        None => Ok(()),
    }
}

/// Where a file is, and where the link to it is if it is one.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_default();
    let folder = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    let link = folder.zip(absolute.file_name()).map(|(folder, name)| folder.join(name));
    path.canonicalize().ok().into_iter().chain(link)
}
