//! Sums over ranks by Burn's collective operations: each rank is a peer on a separate thread.
//!
//! Burn keeps one group of peers per backend and process, so only one [`Session`] exists at a time.

use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::collective::{
    CollectiveConfig, CollectiveError, PeerId, ReduceOperation, all_reduce, register,
    reset_collective,
};
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorPrimitive};

use crate::error::Error;

static SESSION: Mutex<()> = Mutex::new(());

/// Lock on the collective operations of this process, held while the ranks sum.
pub(crate) struct Session(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Session {
    /// Waits until other sessions of this process have ended.
    pub(crate) fn begin() -> Self {
        // A panic of an earlier session leaves no inconsistent state: its peers have been
        // discarded.
        Self(SESSION.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Membership of a rank in the group of peers. Dropping it, also by a panic, ends the sums of all
/// ranks, so that no rank waits for one that has stopped.
pub(crate) struct Place<B: Backend>(PhantomData<B>);

impl<B: Backend> Place<B> {
    /// Registers the rank, and waits until all `count` ranks are registered.
    ///
    /// # Errors
    ///
    /// [`Error::WorkerLost`] if Burn refuses the registration.
    pub(crate) fn take(index: usize, count: usize, device: &B::Device) -> Result<Self, Error> {
        // A tree adds in the order of devices; the other strategies add in the order of a hash map.
        let config = CollectiveConfig::default().with_num_devices(count);
        register::<B>(PeerId::from(index), device.clone(), config).map_err(lost)?;
        Ok(Self(PhantomData))
    }
}

impl<B: Backend> Drop for Place<B> {
    fn drop(&mut self) {
        reset_collective::<B>();
    }
}

/// Returns the sum of `tensor` over all peers.
pub(crate) fn sum<B: Backend, const D: usize>(
    index: usize,
    tensor: Tensor<B, D>,
) -> Result<Tensor<B, D>, Error> {
    let tensor = tensor.into_primitive().tensor();
    let sum = all_reduce::<B>(PeerId::from(index), tensor, ReduceOperation::Sum).map_err(lost)?;
    Ok(Tensor::from_primitive(TensorPrimitive::Float(sum)))
}

/// Sums gradients over all peers, in the order of the parameters' ids.
pub(crate) fn sum_gradients<B: Backend>(
    index: usize,
    gradients: GradientsParams,
) -> Result<GradientsParams, Error> {
    gradients.all_reduce::<B>(PeerId::from(index), ReduceOperation::Sum).map_err(lost)
}

fn lost(error: CollectiveError) -> Error {
    Error::WorkerLost { reason: format!("{error:?}") }
}
