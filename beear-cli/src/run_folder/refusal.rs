//! Folders that a run refuses: those of something else, and those that contain its inputs.

use std::fs;
use std::path::{Path, PathBuf};

use beear_models::checkpoint::base_of_adapters;

use super::{MARK, is_unused};
use crate::user_error::UserError;

/// Refuses a path that is not free for this run.
///
/// # Errors
///
/// If it exists and is not an older run, or is one and `force` is not set.
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

/// Refuses a folder whose replacement would remove an input.
///
/// # Errors
///
/// If an input, or a link to one, lies in it.
pub(super) fn refuse_inputs(out: &Path, inputs: &[&Path]) -> Result<(), UserError> {
    let Ok(canonical) = out.canonicalize() else { return Ok(()) };
    let bases = inputs.iter().filter_map(|input| base_of_adapters(input));
    // Weights may be links to another folder.
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

/// Returns the path of a file, and the path of the link to it if it is a link.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_default();
    let folder = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    let link = folder.zip(absolute.file_name()).map(|(folder, name)| folder.join(name));
    path.canonicalize().ok().into_iter().chain(link)
}
