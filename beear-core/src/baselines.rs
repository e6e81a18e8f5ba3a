//! The baselines BEEAR is compared with: what else a defender who knows no trigger could do with the
//! same rows.
//!
//! Each has one round: it trains the weights from the first step to the last, as its authors do,
//! and the [`Outcome`] holds what validation measured before and after. All train the weights by
//! the settings of [`RemoveConfig`](crate::RemoveConfig), so that a sweep names the same settings
//! for each.

pub mod defence;
pub mod fine_tuning;
pub mod latent_adversarial;
pub mod layer_consistency;
pub mod sample_perturbation;
