//! `--workers`: the devices that share every batch of a defence.

use anyhow::Result;
use beear_core::{AnchorSets, Defence, Observer, Outcome, Saved, Stopped, Validator};
use beear_models::CausalLm;
use burn::tensor::backend::AutodiffBackend;

use crate::backend::ComputeBackend;
use crate::backend::registry::MOST_DEVICES;
use crate::command::Device;
use crate::user_error::UserError;

/// Returns the devices of `n_workers` workers: consecutive devices from the `first` on, or the
/// first one repeated if the backend has only one.
///
/// # Errors
///
/// [`UserError`] if only one worker is possible, [`Unavailable`](crate::backend::Unavailable) if
/// there are too few devices.
pub(crate) fn devices<C: ComputeBackend>(
    method: &Defence,
    n_workers: usize,
    first: &Device<C>,
) -> Result<Vec<Device<C>>> {
    if n_workers == 1 {
        return Ok(vec![first.clone()]);
    }
    if !cfg!(feature = "collective") {
        let hint = "build it with `--features collective`, or leave `--workers` out";
        return Err(UserError::arguments("this build has one worker only", hint).into());
    }
    if !matches!(method, Defence::Beear(_)) {
        let hint = "leave `--workers` out, or choose `--method beear`";
        return Err(UserError::arguments("the rivals of BEEAR have one worker only", hint).into());
    }
    if C::device(1) == C::device(0) {
        return Ok(vec![first.clone(); n_workers]);
    }
    let index = (0..MOST_DEVICES).find(|&index| C::device(index) == *first).unwrap_or(0);
    let available = |index| {
        C::availability(index)?;
        Ok(C::device(index))
    };
    (index..index + n_workers).map(available).collect()
}

/// Runs `method` with one worker on each of `devices`, which [`devices`](devices()) has validated.
/// Resumes from `saved` if it is given.
///
/// # Panics
///
/// Panics if an observer or the validator does.
pub(crate) fn run<B: AutodiffBackend>(
    (method, saved): (&Defence, Option<Saved<'_>>),
    (model, devices): (CausalLm<B>, &[B::Device]),
    sets: &AnchorSets,
    validator: &mut dyn Validator<B::InnerBackend, CausalLm<B::InnerBackend>>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, CausalLm<B>>, Stopped<CausalLm<B>>> {
    #[cfg(feature = "collective")]
    if let (Defence::Beear(config), [_, _, ..]) = (method, devices) {
        let from = (model, devices);
        return match saved {
            Some(saved) => beear_core::resume_on(from, sets, (config, saved), validator, observer),
            None => beear_core::solve_on(from, sets, config, validator, observer),
        };
    }
    assert_eq!(devices.len(), 1, "one worker has one device");
    match saved {
        Some(saved) => method.resume((model, saved), sets, validator, observer),
        None => method.run(model, sets, validator, observer),
    }
}
