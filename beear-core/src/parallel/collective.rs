//! Sums over workers by Burn's collective operations: a worker is a peer, one to a thread.
//!
//! Burn keeps one group of peers for a backend and process, so a [`Session`] is the only one while it lasts.

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

/// The time during which the workers of this process sum.
pub(crate) struct Session(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Session {
    /// Waits until others of this process have ended.
    pub(crate) fn begin() -> Self {
        // A panic of an earlier session has left nothing half done: its peers are forgotten.
        Self(SESSION.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A worker's place among the peers. Who gives it up, by a panic too, ends the sums of all: nobody waits for
/// one who is gone.
pub(crate) struct Place<B: Backend>(PhantomData<B>);

impl<B: Backend> Place<B> {
    /// Waits until all `count` workers have one.
    ///
    /// # Errors
    ///
    /// [`Error::WorkerLost`] if Burn has no place.
    pub(crate) fn take(index: usize, count: usize, device: &B::Device) -> Result<Self, Error> {
        // A tree adds in the order of devices; the other strategies in that of a hash map.
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

/// The sum of `tensor` over all peers.
pub(crate) fn sum<B: Backend, const D: usize>(
    index: usize,
    tensor: Tensor<B, D>,
) -> Result<Tensor<B, D>, Error> {
    let tensor = tensor.into_primitive().tensor();
    let sum = all_reduce::<B>(PeerId::from(index), tensor, ReduceOperation::Sum).map_err(lost)?;
    Ok(Tensor::from_primitive(TensorPrimitive::Float(sum)))
}

/// The sums of gradients over all peers, in the order of the parameters' ids.
pub(crate) fn sum_gradients<B: Backend>(
    index: usize,
    gradients: GradientsParams,
) -> Result<GradientsParams, Error> {
    gradients.all_reduce::<B>(PeerId::from(index), ReduceOperation::Sum).map_err(lost)
}

fn lost(error: CollectiveError) -> Error {
    Error::WorkerLost { reason: format!("{error:?}") }
}
