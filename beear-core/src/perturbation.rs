//! The universal perturbation `δ` that stands in for an unknown trigger.
//!
//! BEEAR searches hidden states instead of tokens: one `δ`, shared by every prompt, is added at
//! boundary `l` of the decoder, at chosen positions of each prompt:
//!
//! $$F^l_\theta(x, \delta) = F_{\theta_{l+1 \to L}}\big(F_{\theta_{1 \to l}}(x) + \delta\big)$$
//!
//! with `layer` = $l$ and `delta` = $\delta$. The inner level fits `δ` to elicit the unwanted
//! behaviour; the outer level trains the decoder against it.
//!
//! Zeng et al., [BEEAR](https://arxiv.org/abs/2406.17092), EMNLP 2024.

use std::collections::HashMap;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::site::Site;

/// A place in the network where a perturbation acts: a layer boundary and prompt positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// Number of decoder layers that run before `δ` is added.
    pub layer: usize,
    /// Prompt positions that `δ` covers.
    pub site: Site,
}

/// A perturbation of the hidden states at one spot.
#[derive(Clone, Debug)]
pub struct Perturbation<B: Backend> {
    /// Where `delta` is added.
    pub spot: Spot,
    /// The perturbation `δ`, in f32 or wider: `[n_tokens, d_model]`.
    pub delta: Tensor<B, 2>,
}

impl<B: Backend> Perturbation<B> {
    /// Adds `δ` to `hidden`, the same `δ` in every row of the batch.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `placement`: `[batch_size * seq_length, n_tokens]`, see [`Site::placement_matrix`]
    /// - `output`: `[batch_size, seq_length, d_model]`
    ///
    /// # Panics
    ///
    /// Panics if the shapes disagree.
    #[must_use]
    pub fn apply(&self, hidden: Tensor<B, 3>, placement: Tensor<B, 2>) -> Tensor<B, 3> {
        let [batch_size, seq_length, d_model] = hidden.dims();
        let [n_tokens, width] = self.delta.dims();
        assert_eq!(width, d_model, "delta: [n_tokens, d_model]");
        let shape = [batch_size * seq_length, n_tokens];
        assert_eq!(placement.dims(), shape, "placement: [batch_size * seq_length, n_tokens]");

        let dtype = hidden.dtype();
        let added = placement.cast(self.delta.dtype()).matmul(self.delta.clone()).cast(dtype);
        hidden + added.reshape([batch_size, seq_length, d_model])
    }
}

impl<B: AutodiffBackend> Perturbation<B> {
    /// Lifts a perturbation found without autodiff into a constant of the training graph.
    #[must_use]
    pub fn constant(found: &Perturbation<B::InnerBackend>) -> Self {
        Self { spot: found.spot, delta: Tensor::from_inner(found.delta.clone()) }
    }
}

/// Stores perturbations as safetensors: tensors `delta.0`, `delta.1`, … in f32, their spots in
/// the metadata as JSON-like text `layer/site/n`.
///
/// # Errors
///
/// [`Error::MalformedPerturbation`] if the format refuses the tensors.
pub fn to_safetensors<B: Backend>(perturbations: &[Perturbation<B>]) -> Result<Vec<u8>, Error> {
    let malformed = |reason: String| Error::MalformedPerturbation { reason };
    let mut metadata = HashMap::new();
    let mut buffers = Vec::new();
    for (index, perturbation) in perturbations.iter().enumerate() {
        let name = format!("delta.{index}");
        metadata.insert(name.clone(), spot_to_text(perturbation.spot));
        let values = perturbation.delta.to_data().convert::<f32>();
        buffers.push((name, perturbation.delta.dims().to_vec(), values.bytes));
    }
    let views = buffers
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| malformed(e.to_string()))?;
    safetensors::serialize(views, Some(metadata)).map_err(|e| malformed(e.to_string()))
}

/// Reads what [`to_safetensors`] wrote.
///
/// # Errors
///
/// [`Error::MalformedPerturbation`] if `bytes` are not such a file.
pub fn from_safetensors<B: Backend>(
    bytes: &[u8],
    device: &B::Device,
) -> Result<Vec<Perturbation<B>>, Error> {
    let malformed = |reason: &str| Error::MalformedPerturbation { reason: reason.to_owned() };
    let file = SafeTensors::deserialize(bytes).map_err(|e| malformed(&e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| malformed(&e.to_string()))?;
    let spots = header.metadata().as_ref().ok_or_else(|| malformed("no metadata"))?;
    (0..file.len())
        .map(|index| {
            let name = format!("delta.{index}");
            let view = file.tensor(&name).map_err(|e| malformed(&e.to_string()))?;
            let spot = spots.get(&name).and_then(|text| spot_from_text(text));
            let spot = spot.ok_or_else(|| malformed("a perturbation without its spot"))?;
            let &[n_tokens, d_model] = view.shape() else {
                return Err(malformed("a perturbation is not a matrix"));
            };
            if view.dtype() != Dtype::F32 || n_tokens != spot.site.n_tokens() {
                return Err(malformed("a perturbation of another type or size than its site"));
            }
            let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let data = TensorData::new(values.collect::<Vec<f32>>(), [n_tokens, d_model]);
            Ok(Perturbation { spot, delta: Tensor::from_data(data, device) })
        })
        .collect()
}

fn spot_to_text(spot: Spot) -> String {
    let site = match spot.site {
        Site::Last(n) => format!("last/{n}"),
        Site::First(n) => format!("first/{n}"),
        Site::UserLast(n) => format!("user_last/{n}"),
        Site::All => "all/1".to_owned(),
    };
    format!("{}/{site}", spot.layer)
}

fn spot_from_text(text: &str) -> Option<Spot> {
    let mut parts = text.split('/');
    let layer = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    let n = parts.next()?.parse().ok()?;
    let site = match kind {
        "last" => Site::Last(n),
        "first" => Site::First(n),
        "user_last" => Site::UserLast(n),
        "all" => Site::All,
        _ => return None,
    };
    parts.next().is_none().then_some(Spot { layer, site })
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Int;

    use super::*;
    use crate::batch::Batch;
    use crate::example::Example;

    type Cpu = Flex;

    /// `[2, 3, 2]` hidden states of prompts of 3 and 2 tokens, and `δ = [[10, 20]]`.
    fn fixture<B: Backend>() -> (Tensor<B, 3>, Tensor<B, 2>, Perturbation<B>) {
        let device = B::Device::default();
        let row = |length: usize| Example {
            id: 0,
            prompt: vec![1; length],
            user: (0, length),
            answer: vec![2],
        };
        let site = Site::Last(1);
        let batch = Batch::<B>::new(&[row(3), row(2)], &device);
        let hidden = Tensor::<B, 1, Int>::arange(0..12, &device).float().reshape([2, 3, 2]);
        let delta = Tensor::from_data([[10.0, 20.0]], &device);
        let perturbation = Perturbation { spot: Spot { layer: 1, site }, delta };
        (hidden, site.placement_matrix(&batch), perturbation)
    }

    #[test]
    fn only_the_last_prompt_token_moves() {
        let (hidden, placement, perturbation) = fixture::<Cpu>();
        let output = perturbation.apply(hidden, placement);
        let expected = TensorData::from([
            [[0.0, 1.0], [2.0, 3.0], [14.0, 25.0]],
            [[6.0, 7.0], [18.0, 29.0], [10.0, 11.0]],
        ]);
        output.into_data().assert_eq(&expected, false);
    }

    #[test]
    fn the_gradient_of_delta_sums_over_the_batch() {
        let (hidden, placement, mut perturbation) = fixture::<Autodiff<Cpu>>();
        perturbation.delta = perturbation.delta.require_grad();
        let grads = perturbation.apply(hidden, placement).sum().backward();
        let grad = perturbation.delta.grad(&grads).expect("δ requires gradients");
        grad.into_data().assert_eq(&TensorData::from([[2.0, 2.0]]), false);
    }

    #[test]
    #[should_panic(expected = "delta")]
    fn a_delta_of_another_width_is_refused() {
        let (hidden, placement, mut perturbation) = fixture::<Cpu>();
        perturbation.delta = Tensor::zeros([1, 3], &hidden.device());
        let _ = perturbation.apply(hidden, placement);
    }

    #[test]
    fn stored_perturbations_come_back_bit_for_bit() {
        let device = Default::default();
        let (_, _, first) = fixture::<Cpu>();
        let second = Perturbation {
            spot: Spot { layer: 4, site: Site::First(2) },
            delta: Tensor::from_data([[0.1, -3.0e-20], [7.5, 1.0 / 3.0]], &device),
        };
        let bytes = to_safetensors(&[first.clone(), second.clone()]).unwrap();
        let read = from_safetensors::<Cpu>(&bytes, &device).unwrap();
        for (expected, found) in [first, second].iter().zip(&read) {
            assert_eq!(expected.spot, found.spot);
            found.delta.to_data().assert_eq(&expected.delta.to_data(), true);
        }
    }

    #[test]
    fn a_torn_file_is_refused() {
        let (_, _, perturbation) = fixture::<Cpu>();
        let bytes = to_safetensors(&[perturbation]).unwrap();
        let torn = from_safetensors::<Cpu>(&bytes[..bytes.len() - 1], &Default::default());
        assert!(matches!(torn, Err(Error::MalformedPerturbation { .. })));
    }
}
