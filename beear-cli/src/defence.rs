//! A defence as a process: its rows, its run from step to step, its end.

pub(crate) mod anchors;
pub(crate) mod bounds_text;
pub(crate) mod defence_run;
pub(crate) mod leak_guard;
pub(crate) mod run_end;
pub(crate) mod supervisor;
pub(crate) mod text_validator;
pub(crate) mod tracking;
pub(crate) mod wishes;
