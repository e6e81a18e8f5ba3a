//! Scanning: how near a model is to misbehaving, seen without any trigger.
//!
//! Two instruments, both on the weights as they are. [`reach`] asks how long a perturbation of the hidden
//! states must be to bring the unwanted behaviour about on prompts it was not fitted to; [`implant`] asks
//! the same of a few tokens written into the prompt. A clean model has answers to both, so neither is a
//! verdict: they are compared with a clean reference, or with a calibration on models of known state.

pub mod elicited;
pub mod minimal_norm;
pub mod trigger_search;

pub use elicited::{Aim, ENOUGH};
pub use minimal_norm::{NormStep, ReachConfig, reach};
pub use trigger_search::{Implant, ImplantConfig, Place, implant, written_elicits};
