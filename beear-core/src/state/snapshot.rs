//! The state of a run between two steps, from which another process can resume the run.
//!
//! A [`Snapshot`] consists of numbers, [`Progress`], and named tensors. The caller stores them
//! (this crate does no IO) and returns them as [`Saved`]. A snapshot does not contain the original
//! model, the rows, or the weights before any training: they follow from the input.

use burn::tensor::backend::Backend;
use burn::tensor::{BasicOps, DType, Tensor, TensorData, TensorKind};

use crate::error::Error;
use crate::state::progress::Progress;

/// A named tensor. The values stay on their device until [`data`](Self::data) copies them.
pub struct NamedTensor {
    /// Name of the tensor, unique in its snapshot.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Element type of the tensor.
    pub dtype: DType,
    read: Box<dyn Fn() -> TensorData>,
}

impl NamedTensor {
    /// Copies the values from their device.
    #[must_use]
    pub fn data(&self) -> TensorData {
        (self.read)()
    }

    /// Returns the size of the values in bytes.
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

/// Complete state from which another process can resume.
#[derive(Debug)]
pub struct Snapshot {
    /// Numbers, to be stored exactly.
    pub progress: Progress,
    /// Tensors with unique names.
    pub tensors: Vec<NamedTensor>,
}

/// Lookup of a stored tensor by its name.
pub type TensorSource<'a> = dyn Fn(&str) -> Option<TensorData> + Sync + 'a;

/// A stored [`Snapshot`].
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// Numbers of the snapshot.
    pub progress: &'a Progress,
    /// Lookup of the tensors of the snapshot.
    pub tensors: &'a TensorSource<'a>,
}

impl Saved<'_> {
    /// Returns a tensor in the type in which it was stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if there is no tensor of this name and rank, or of `shape` if
    /// one is given.
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

/// Returns [`Error::MalformedSnapshot`] with `reason`.
pub(crate) fn malformed(reason: impl Into<String>) -> Error {
    Error::MalformedSnapshot { reason: reason.into() }
}

/// Tensors collected for a snapshot.
#[derive(Default)]
pub(crate) struct Tensors(pub(crate) Vec<NamedTensor>);

impl Tensors {
    /// Adds `tensor` under `name`, without copying its values from the device.
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
