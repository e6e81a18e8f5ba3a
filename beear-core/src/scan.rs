//! Scanning: how near a model is to misbehaving, seen without any trigger.
//!
//! Two instruments, both on the weights as they are. [`reach`] asks how long a perturbation of the hidden
//! states must be to bring the unwanted behaviour about on prompts it was not fitted to; [`implant`] asks
//! the same of a few tokens written into the prompt. A clean model has answers to both, so neither is a
//! verdict: they are compared with a clean reference, or with a calibration on models of known state.

pub mod elicited;
pub mod implant;
pub mod reach;

pub use elicited::{Aim, ENOUGH};
pub use implant::{Implant, ImplantConfig, Place, implant, written_elicits};
pub use reach::{ReachConfig, Rung, reach};
