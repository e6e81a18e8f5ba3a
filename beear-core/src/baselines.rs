//! The baselines of BEEAR: other methods for a defender who knows no trigger, on the same rows.
//!
//! Each baseline has one round: it trains the weights from the first step to the last, as its
//! authors do, and the [`Outcome`] holds the validation results before and after. All train the
//! weights with the settings of [`RemoveConfig`](crate::RemoveConfig), so that a sweep uses the
//! same names for each.

pub mod defence;
pub mod fine_tuning;
pub mod latent_adversarial;
pub mod layer_consistency;
pub mod sample_perturbation;
