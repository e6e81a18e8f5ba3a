//! Scans of a model: the distance to misbehaviour, measured without any trigger.
//!
//! Two scans, both on unchanged weights. [`reach`] measures the smallest norm of a perturbation of
//! the hidden states that elicits the unwanted behaviour on held-out prompts; [`implant`] searches
//! a few tokens that elicit the behaviour from inside the prompt. Both also succeed on a clean
//! model, so neither result is a verdict: compare the result with that of a clean reference, or
//! with a calibration on models of known state.

pub mod elicited;
pub mod minimal_norm;
pub mod trigger_search;

pub use elicited::{Aim, ENOUGH};
pub use minimal_norm::{NormStep, ReachConfig, reach};
pub use trigger_search::{Implant, ImplantConfig, Place, implant, written_elicits};
