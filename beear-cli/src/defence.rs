//! A defence as a process: reading the rows, running the steps, ending the run.

pub(crate) mod anchors;
pub(crate) mod bounds_text;
pub(crate) mod contamination;
pub(crate) mod defence_run;
pub(crate) mod run_control;
pub(crate) mod run_end;
pub(crate) mod supervisor;
pub(crate) mod text_validator;
pub(crate) mod tracking;
