//! Adam on the rows of `δ`, with the norm of each row bounded.

use burn::optim::{Adam, AdamConfig, AdamState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};

use crate::error::{Error, Quantity};
use crate::state::progress::RowNumbers;
use crate::state::snapshot::{Saved, Tensors};

/// Adam's ε, with PyTorch's default: Burn's default of 1e-5 damps small gradients.
pub(crate) const ADAM_EPSILON: f32 = 1e-8;

/// Rows with their optimiser and the bound on their norm.
pub(crate) struct ProjectedAdam<B: Backend> {
    values: Tensor<B, 2>,
    learning_rate: f64,
    longest_row: Option<f64>,
    adam: Adam,
    moments: Option<AdamState<B, 2>>,
}

impl<B: Backend> ProjectedAdam<B> {
    /// Creates the optimiser for `values`: `[n_rows, d_model]`. `learning_rate` and `longest_row`
    /// are in the units of the hidden states.
    pub(crate) fn new(values: Tensor<B, 2>, learning_rate: f64, longest_row: Option<f64>) -> Self {
        let adam = AdamConfig::new().with_epsilon(ADAM_EPSILON).build();
        Self { values, learning_rate, longest_row, adam, moments: None }
    }

    /// Saves the state: adds the tensors under the prefix `name`, and returns the numbers.
    pub(crate) fn save(&self, name: &str, tensors: &mut Tensors) -> RowNumbers {
        tensors.add(format!("{name}.values"), self.values.clone());
        let mut time = 0;
        if let Some(AdamState { momentum }) = &self.moments {
            time = momentum.time;
            tensors.add(format!("{name}.moment_1"), momentum.moment_1.clone());
            tensors.add(format!("{name}.moment_2"), momentum.moment_2.clone());
        }
        RowNumbers { learning_rate: self.learning_rate, longest_row: self.longest_row, time }
    }

    /// Restores the state that [`save`](Self::save) stored, with `shape` = `[n_rows, d_model]`.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if a tensor is missing or has another shape.
    pub(crate) fn restore(
        name: &str,
        (saved, numbers): (Saved<'_>, &RowNumbers),
        (shape, device): ([usize; 2], &B::Device),
    ) -> Result<Self, Error> {
        let RowNumbers { learning_rate, longest_row, time } = *numbers;
        let tensor = |part: &str| saved.tensor(&format!("{name}.{part}"), Some(shape), device);
        let rows = Self::new(tensor("values")?, learning_rate, longest_row);
        if time == 0 {
            return Ok(rows);
        }
        let momentum = AdaptiveMomentumState::new(time, tensor("moment_1")?, tensor("moment_2")?);
        Ok(Self { moments: Some(AdamState::new(momentum)), ..rows })
    }

    /// Returns the rows as a leaf of the graph: `[n_rows, d_model]`.
    pub(crate) fn tracked<A: AutodiffBackend<InnerBackend = B>>(&self) -> Tensor<A, 2> {
        Tensor::from_inner(self.values.clone()).require_grad()
    }

    /// Returns the rows: `[n_rows, d_model]`.
    pub(crate) fn into_values(self) -> Tensor<B, 2> {
        self.values
    }

    /// Takes one step against `grad`, and scales rows down to the bound on their norm.
    ///
    /// # Errors
    ///
    /// [`Quantity::Gradient`] or [`Quantity::Delta`] if that quantity is NaN or infinite.
    pub(crate) fn step(&mut self, grad: Tensor<B, 2>) -> Result<(), Quantity> {
        if !is_finite(&grad) {
            return Err(Quantity::Gradient);
        }
        let (values, moments) = (self.values.clone(), self.moments.take());
        let (values, moments) = self.adam.step(self.learning_rate, values, grad, moments);
        self.values = match self.longest_row {
            Some(longest) => project_rows(values, longest),
            None => values,
        };
        self.moments = moments;
        if is_finite(&self.values) { Ok(()) } else { Err(Quantity::Delta) }
    }
}

/// Scales every row whose norm exceeds `longest` down to that norm.
fn project_rows<B: Backend>(delta: Tensor<B, 2>, longest: f64) -> Tensor<B, 2> {
    let norms = delta.clone().powi_scalar(2).sum_dim(1).sqrt(); // [n_tokens, 1]
    let scale = norms.clamp_min(longest).recip().mul_scalar(longest);
    delta * scale
}

fn is_finite<B: Backend, const D: usize>(values: &Tensor<B, D>) -> bool {
    // A sum of squares is finite if every value is; one number is copied to the host.
    values.clone().powi_scalar(2).sum().into_scalar().elem::<f64>().is_finite()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn projection_shortens_long_rows_and_leaves_short_ones() {
        let delta = Tensor::<Flex, 2>::from_data([[3.0, 4.0], [0.3, 0.4]], &Default::default());
        let rows = project_rows(delta, 1.0).into_data();
        let expected = burn::tensor::TensorData::from([[0.6_f32, 0.8], [0.3, 0.4]]);
        rows.assert_approx_eq(&expected, burn::tensor::Tolerance::<f32>::absolute(1e-6));
    }
}
