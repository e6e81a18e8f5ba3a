//! Groups of options that several commands share.

pub(crate) mod anchor_files;
pub(crate) mod asked;
pub(crate) mod compared_models;
pub(crate) mod judge_args;
pub(crate) mod mmlu;
pub(crate) mod planted;
pub(crate) mod questions;
pub(crate) mod recipe_options;
pub(crate) mod run_options;
pub(crate) mod scan_options;
pub(crate) mod track_options;
pub(crate) mod trigger;
