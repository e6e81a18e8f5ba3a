//! The state of a run between two steps, so that another process can go on as if nothing had happened.
//!
//! A [`Snapshot`] is numbers, [`Progress`], and tensors by name. Whoever stores them (this crate does no IO) gives
//! them back as [`Saved`]. What follows from the input is not in it: the original model, the rows, and the weights
//! as long as nothing has been trained.

use burn::tensor::backend::Backend;
use burn::tensor::{BasicOps, DType, Tensor, TensorData, TensorKind};

use crate::error::Error;
use crate::state::progress::Progress;

/// A tensor with its name. It stays where it is until [`data`](Self::data) is asked for.
pub struct NamedTensor {
    /// Its name, of this snapshot only.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its type.
    pub dtype: DType,
    read: Box<dyn Fn() -> TensorData>,
}

impl NamedTensor {
    /// The values, copied from their device.
    #[must_use]
    pub fn data(&self) -> TensorData {
        (self.read)()
    }

    /// Bytes of the values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

impl std::fmt::Debug for NamedTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?} {:?}", self.name, self.shape, self.dtype)
    }
}

/// Everything another process needs.
#[derive(Debug)]
pub struct Snapshot {
    /// Numbers, to be stored exactly.
    pub progress: Progress,
    /// Tensors, each name once.
    pub tensors: Vec<NamedTensor>,
}

/// Gives a stored tensor by its name.
pub type TensorSource<'a> = dyn Fn(&str) -> Option<TensorData> + Sync + 'a;

/// A stored [`Snapshot`].
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// Its numbers.
    pub progress: &'a Progress,
    /// Its tensors.
    pub tensors: &'a TensorSource<'a>,
}

impl Saved<'_> {
    /// A tensor in the type it was stored in.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if there is none of this rank, or of `shape` if one is given.
    pub(crate) fn tensor<B: Backend, const D: usize, K: TensorKind<B> + BasicOps<B>>(
        &self,
        name: &str,
        shape: Option<[usize; D]>,
        device: &B::Device,
    ) -> Result<Tensor<B, D, K>, Error> {
        let data = (self.tensors)(name).ok_or_else(|| malformed(format!("no tensor `{name}`")))?;
        let stored = data.shape.as_slice();
        if stored.len() != D || shape.is_some_and(|shape| stored != shape) {
            return Err(malformed(format!("tensor `{name}` has shape {stored:?}")));
        }
        let dtype = data.dtype;
        Ok(Tensor::from_data(data, (device, dtype)))
    }
}

/// [`Error::MalformedSnapshot`].
pub(crate) fn malformed(reason: impl Into<String>) -> Error {
    Error::MalformedSnapshot { reason: reason.into() }
}

/// Tensors on their way into a snapshot.
#[derive(Default)]
pub(crate) struct Tensors(pub(crate) Vec<NamedTensor>);

impl Tensors {
    /// Adds a tensor.
    pub(crate) fn add<B: Backend, const D: usize, K>(
        &mut self,
        name: String,
        tensor: Tensor<B, D, K>,
    ) where
        K: TensorKind<B> + BasicOps<B> + 'static,
    {
        let (shape, dtype) = (tensor.dims().to_vec(), tensor.dtype());
        self.0.push(NamedTensor { name, shape, dtype, read: Box::new(move || tensor.to_data()) });
    }
}
