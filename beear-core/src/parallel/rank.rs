//! A rank: one of the workers that share every batch, with its rows and with sums over all ranks.
//!
//! A loss is a mean over answer tokens, and the rows of different ranks have unequal numbers of
//! tokens. So each rank weights its mean by its share of the whole batch's tokens, and losses and
//! gradients are summed: with $n_w$ of $n$ tokens at rank $w$,
//!
//! $$\mathcal{L} = \sum_w \frac{n_w}{n}\, \mathcal{L}_w \qquad
//! \nabla\mathcal{L} = \sum_w \nabla \frac{n_w}{n}\, \mathcal{L}_w$$
//!
//! All ranks base their decisions on the sums, which are equal everywhere: an error that stops one
//! rank stops all at the same step.
//!
//! A rank splits its rows in the same way into parts, one for each of its threads.

use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatElem;
use burn::tensor::{DType, Element, Tensor, TensorData};

use crate::batch::Batch;
use crate::batch::example::Example;
use crate::error::Error;
use crate::objective::hidden_norms::Mean;

/// A rank among `count`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rank {
    index: usize,
    count: usize,
    n_threads: usize,
}

#[cfg_attr(
    not(feature = "collective"),
    expect(
        clippy::extra_unused_type_parameters,
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "without the feature every worker is alone"
    )
)]
impl Rank {
    /// Only rank of a run on one device: it has every row, and needs no other rank for sums.
    pub(crate) const ALONE: Self = Self { index: 0, count: 1, n_threads: 1 };

    /// Creates rank `index` of `count`, from 0; all ranks must be ready to sum.
    #[cfg(feature = "collective")]
    pub(crate) fn new(index: usize, count: usize) -> Self {
        assert!(index < count, "worker {index} of {count}");
        Self { index, count, n_threads: 1 }
    }

    /// Sets the number of threads, each of which takes a part of the rows.
    pub(crate) fn on_threads(self, n_threads: usize) -> Self {
        Self { n_threads, ..self }
    }

    pub(crate) fn is_alone(self) -> bool {
        self.count == 1
    }

    pub(crate) fn is_first(self) -> bool {
        self.index == 0
    }

    /// Returns the number of parts into which each rank splits its rows, for batches of at most
    /// `n_rows` rows.
    pub(crate) fn n_parts(self, n_rows: usize) -> usize {
        self.n_threads.min(n_rows.div_ceil(self.count)).max(1)
    }

    /// Returns the rank's rows of a batch in `n_parts` parts, each weighted by its share of the
    /// answer tokens.
    ///
    /// If there are fewer rows than parts, parts without rows take the first row with weight 0,
    /// because other ranks wait for their gradients too.
    ///
    /// # Panics
    ///
    /// Panics if there are no rows.
    pub(crate) fn batches<B: Backend>(
        self,
        whole: &[Example],
        n_parts: usize,
        device: &B::Device,
    ) -> Vec<Batch<B>> {
        let count = self.count * n_parts;
        let parts = self.index * n_parts..(self.index + 1) * n_parts;
        parts.map(|part| part_of(whole, (part, count), device)).collect()
    }

    /// Returns the sum of `tensor` over all ranks, which must request the same sums in the same
    /// order.
    ///
    /// # Errors
    ///
    /// [`Error::WorkerLost`] if another rank has stopped.
    pub(crate) fn sum<B: Backend, const D: usize>(
        self,
        tensor: Tensor<B, D>,
    ) -> Result<Tensor<B, D>, Error> {
        #[cfg(feature = "collective")]
        if !self.is_alone() {
            return super::collective::sum(self.index, tensor);
        }
        Ok(tensor)
    }

    /// Sums gradients over all ranks, parameter by parameter.
    ///
    /// # Errors
    ///
    /// [`Error::WorkerLost`] if another rank has stopped.
    pub(crate) fn sum_gradients<B: Backend>(
        self,
        gradients: GradientsParams,
    ) -> Result<GradientsParams, Error> {
        #[cfg(feature = "collective")]
        if !self.is_alone() {
            return super::collective::sum_gradients::<B>(self.index, gradients);
        }
        Ok(gradients)
    }

    /// Sums numbers of the host over all ranks, in f32 or wider.
    ///
    /// # Errors
    ///
    /// [`Error::WorkerLost`] if another rank has stopped.
    pub(crate) fn sum_numbers<B: Backend, const N: usize>(
        self,
        numbers: [f64; N],
        device: &B::Device,
    ) -> Result<[f64; N], Error> {
        if self.is_alone() {
            return Ok(numbers);
        }
        let dtype = match <FloatElem<B> as Element>::dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let numbers = Tensor::<B, 1>::from_data(TensorData::from(numbers), (device, dtype));
        let sums: Vec<f64> = self.sum(numbers)?.into_data().iter().collect();
        Ok(sums.try_into().expect("as many sums as numbers"))
    }

    /// Returns the mean over the values of all ranks.
    ///
    /// # Errors
    ///
    /// [`Error::WorkerLost`] if another rank has stopped.
    pub(crate) fn mean<B: Backend>(self, mean: Mean, device: &B::Device) -> Result<f64, Error> {
        if self.is_alone() {
            return Ok(mean.value);
        }
        // The mean of no values is NaN, and has weight 0.
        let n_values = mean.n_values as f64;
        let sum = if mean.n_values == 0 { 0.0 } else { mean.value * n_values };
        let [sum, n_values] = self.sum_numbers::<B, 2>([sum, n_values], device)?;
        Ok(sum / n_values)
    }
}

/// Returns the rows of the part `index` of `count`.
fn part_of<B: Backend>(
    whole: &[Example],
    (index, count): (usize, usize),
    device: &B::Device,
) -> Batch<B> {
    let n_answer = |rows: &[Example]| rows.iter().map(|row| row.answer.len()).sum::<usize>();
    let bound = |index: usize| index * whole.len() / count;
    let own = &whole[bound(index)..bound(index + 1)];
    let share = n_answer(own) as f64 / n_answer(whole) as f64;
    let own = if own.is_empty() { &whole[..1] } else { own };
    Batch { share, ..Batch::new(own, device) }
}
