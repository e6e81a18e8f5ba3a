//! Rotary position embeddings, rotate-half layout as in Hugging Face checkpoints.
//!
//! Su et al., [RoFormer](https://arxiv.org/abs/2104.09864). Burn's own embedding rotates
//! interleaved pairs.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::config::{DecoderConfig, RopeScaling};

/// Cosines and sines of the rotations of each position, repeated for every head: elementwise
/// products of equal shapes are several times faster on CPU backends than broadcast ones.
#[derive(Clone, Debug)]
pub struct RotaryTable<B: Backend> {
    /// Cosines, `[batch_size * n_heads, seq_length, head_dim]`.
    cos: Tensor<B, 3>,
    /// Sines, `[batch_size * n_heads, seq_length, head_dim]`.
    sin: Tensor<B, 3>,
    /// Map from `(x_i, x_{i + d/2})` to `(-x_{i + d/2}, x_i)`: `[head_dim, head_dim]`.
    quarter_turn: Tensor<B, 2>,
}

impl<B: Backend> RotaryTable<B> {
    /// Computes the rotations for `positions`.
    ///
    /// # Shapes
    ///
    /// - `positions`: `[batch_size, seq_length]`, whole numbers
    #[must_use]
    pub fn new(config: &DecoderConfig, positions: Tensor<B, 2>, n_heads: usize) -> Self {
        let [batch_size, seq_length] = positions.dims();
        let frequencies = frequencies(config);
        let n = frequencies.len();
        let data = TensorData::new(frequencies, [1, 1, 1, n]);
        let frequencies = Tensor::<B, 4>::from_data(data, &positions.device());
        let positions = positions.unsqueeze_dim::<3>(1).unsqueeze_dim::<4>(3); // [b, 1, t, 1]
        let angles = positions * frequencies;
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let shape = [batch_size * n_heads, seq_length, 2 * n];
        let per_head = |half: Tensor<B, 4>| {
            let whole = Tensor::cat(vec![half.clone(), half], 3); // [b, 1, t, d]
            whole.repeat_dim(1, n_heads).reshape(shape)
        };
        let quarter_turn = quarter_turn(n, &cos.device());
        Self { cos: per_head(cos), sin: per_head(sin), quarter_turn }
    }

    /// Rotates queries or keys: each pair `(x_i, x_{i + d/2})` by the angle of its position.
    ///
    /// # Shapes
    ///
    /// - `heads`, `output`: `[batch_size * n_heads, seq_length, head_dim]`
    #[must_use]
    pub fn rotate(&self, heads: Tensor<B, 3>) -> Tensor<B, 3> {
        let (shape, dtype) = (heads.dims(), heads.dtype());
        let [n_rows, seq_length, head_dim] = shape;
        let (cos, sin) = (self.cos.clone().cast(dtype), self.sin.clone().cast(dtype));
        // The factors are 0, 1 and -1. On CPU backends, splitting heads into halves and joining
        // them takes several times as long, forward and backward.
        let turned = heads.clone().reshape([n_rows * seq_length, head_dim]);
        let turned = turned.matmul(self.quarter_turn.clone().cast(dtype)).reshape(shape);
        heads * cos + turned * sin
    }
}

/// Returns the rotation of all `n` pairs by a right angle, for multiplication from the right.
fn quarter_turn<B: Backend>(n: usize, device: &B::Device) -> Tensor<B, 2> {
    let value = |row: usize, column: usize| match (row.checked_sub(n), column.checked_sub(n)) {
        (Some(row), None) if row == column => -1.0,
        (None, Some(column)) if row == column => 1.0,
        _ => 0.0,
    };
    let values = (0..4 * n * n).map(|k| value(k / (2 * n), k % (2 * n))).collect::<Vec<f64>>();
    Tensor::from_data(TensorData::new(values, [2 * n, 2 * n]), device)
}

/// Returns the radians per position of each of the `head_dim / 2` pairs of coordinates.
fn frequencies(config: &DecoderConfig) -> Vec<f64> {
    let head_dim = config.head_dim as f64;
    (0..config.head_dim / 2)
        .map(|pair| scale(config.rope_theta.powf(-2.0 * pair as f64 / head_dim), config))
        .collect()
}

fn scale(frequency: f64, config: &DecoderConfig) -> f64 {
    match config.rope_scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_seq_length,
        } => {
            let original = original_max_seq_length as f64;
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let smooth = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}
