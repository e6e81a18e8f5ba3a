//! Low-rank adapters of a whole decoder: target projections, attaching and merging.
//!
//! Hu et al., [LoRA](https://arxiv.org/abs/2106.09685), ICLR 2022.

pub(crate) mod adapter;
pub mod training_scope;

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::config::DecoderConfig;
use crate::lora::adapter::Adapter;
use crate::nn::block::Block;
use crate::nn::causal_lm::CausalLm;
use crate::nn::projection::Projection;

/// Projection of a decoder layer, named as in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Query projection.
    QProj,
    /// Key projection.
    KProj,
    /// Value projection.
    VProj,
    /// Output projection of attention.
    OProj,
    /// Gate projection of the MLP.
    GateProj,
    /// Up projection of the MLP.
    UpProj,
    /// Down projection of the MLP.
    DownProj,
}

impl Target {
    /// All projections, in the order of a layer.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Returns the name in a checkpoint, relative to the layer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }

    /// Returns the shape `[d_input, d_output]`.
    pub(crate) fn shape(self, config: &DecoderConfig) -> [usize; 2] {
        let (hidden, mlp) = (config.d_model, config.d_ff);
        let queries = config.n_heads.saturating_mul(config.head_dim);
        let keys = config.n_kv_heads.saturating_mul(config.head_dim);
        match self {
            Self::QProj => [hidden, queries],
            Self::KProj | Self::VProj => [hidden, keys],
            Self::OProj => [queries, hidden],
            Self::GateProj | Self::UpProj => [hidden, mlp],
            Self::DownProj => [mlp, hidden],
        }
    }

    fn of<B: Backend>(self, block: &Block<B>) -> &Projection<B> {
        match self {
            Self::QProj => &block.self_attn.q_proj,
            Self::KProj => &block.self_attn.k_proj,
            Self::VProj => &block.self_attn.v_proj,
            Self::OProj => &block.self_attn.o_proj,
            Self::GateProj => &block.mlp.gate_proj,
            Self::UpProj => &block.mlp.up_proj,
            Self::DownProj => &block.mlp.down_proj,
        }
    }

    fn of_mut<B: Backend>(self, block: &mut Block<B>) -> &mut Projection<B> {
        match self {
            Self::QProj => &mut block.self_attn.q_proj,
            Self::KProj => &mut block.self_attn.k_proj,
            Self::VProj => &mut block.self_attn.v_proj,
            Self::OProj => &mut block.self_attn.o_proj,
            Self::GateProj => &mut block.mlp.gate_proj,
            Self::UpProj => &mut block.mlp.up_proj,
            Self::DownProj => &mut block.mlp.down_proj,
        }
    }
}

/// Shape of the adapters of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank $r$ of the change of a projection.
    pub rank: usize,
    /// Scale $\alpha$: the change of a projection is scaled by $\alpha / r$.
    pub alpha: f64,
    /// Projections with an adapter.
    pub targets: Vec<Target>,
}

impl Default for LoraConfig {
    /// Returns rank 8 at every projection, and $\alpha = 2r$, common values for fine-tuning.
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: Target::ALL.to_vec() }
    }
}

impl LoraConfig {
    /// Lists all invalid values in words.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut distinct = self.targets.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let rules = [
            (self.rank > 0, "lora.rank must be at least 1"),
            (self.alpha.is_finite() && self.alpha > 0.0, "lora.alpha must be positive"),
            (!self.targets.is_empty(), "lora.targets must not be empty"),
            (distinct.len() == self.targets.len(), "lora.targets names a projection twice"),
        ];
        let broken = rules.into_iter().filter(|(kept, _)| !kept);
        broken.map(|(_, problem)| problem.to_owned()).collect()
    }

    /// Returns the number of weights of the adapters of one layer, saturated for absurd shapes.
    #[must_use]
    pub fn n_layer_weights(&self, config: &DecoderConfig) -> usize {
        self.matrices(config).fold(0, usize::saturating_add)
    }

    /// Returns the number of weights of the largest matrix of an adapter.
    #[must_use]
    pub fn largest_matrix(&self, config: &DecoderConfig) -> usize {
        self.matrices(config).max().unwrap_or(0)
    }

    /// Returns the number of weights of each matrix in a layer.
    fn matrices(&self, config: &DecoderConfig) -> impl Iterator<Item = usize> {
        let widths = self.targets.iter().flat_map(|target| target.shape(config));
        widths.map(|width| width.saturating_mul(self.rank))
    }
}

impl<B: Backend> CausalLm<B> {
    /// Freezes every weight and attaches adapters to the targets in `layers`. The adapters
    /// initially add nothing, and only they require gradients.
    ///
    /// # Panics
    ///
    /// Panics if the model has adapters, or fewer layers.
    #[must_use]
    pub fn attach_adapters(self, config: &LoraConfig, layers: Range<usize>, seed: u64) -> Self {
        assert!(self.adapters().next().is_none(), "a model has one set of adapters");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let places = layers.flat_map(|layer| config.targets.iter().map(move |&t| (layer, t)));
        let size = (config.rank, config.alpha);
        self.no_grad()
            .adapted(places, |shape, device| Adapter::random(shape, size, &mut rng, device))
    }

    /// Merges the adapters into the weights of their projections; a model without adapters is
    /// unchanged. Merged weights require gradients on backends with autodiff.
    #[must_use]
    pub fn merge_adapters(mut self) -> Self {
        self.model.layers.iter_mut().for_each(merge_adapters);
        self
    }

    /// Attaches an adapter, built by `make` from the shape `[d_input, d_output]`, at each of
    /// `places`. Does not initialise lazy weights.
    pub(crate) fn adapted(
        mut self,
        places: impl IntoIterator<Item = (usize, Target)>,
        mut make: impl FnMut([usize; 2], &B::Device) -> Adapter<B>,
    ) -> Self {
        for (layer, target) in places {
            let projection = target.of_mut(&mut self.model.layers[layer]);
            let shape = projection.weight.lazy_shape().dims();
            projection.adapter = Some(make(shape, &projection.weight.lazy_device()));
        }
        self
    }

    /// Returns the adapters with their layer and projection, layer by layer.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = (usize, Target, &Adapter<B>)> {
        self.model.layers.iter().enumerate().flat_map(|(layer, block)| {
            let adapter = move |target: Target| target.of(block).adapter.as_ref();
            Target::ALL.into_iter().filter_map(move |t| Some((layer, t, adapter(t)?)))
        })
    }
}

/// Merges the adapters of a layer into the weights of their projections.
pub(crate) fn merge_adapters<B: Backend>(block: &mut Block<B>) {
    for target in Target::ALL {
        let projection = target.of_mut(block);
        if let Some(adapter) = projection.adapter.take() {
            let merged = adapter.merged_into(projection.weight.val());
            projection.weight = Param::initialized(projection.weight.id, merged.require_grad());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::tensor::{Int, Tensor, TensorData};

    use super::*;
    use crate::checkpoint::tests::{Cpu, config, weights};

    /// Tolerance of a merged model, relative to the largest logit, for the order of sums in f32.
    const F32_MERGE: f32 = 1e-6;

    pub(crate) fn small() -> LoraConfig {
        let targets = vec![Target::QProj, Target::OProj, Target::DownProj];
        LoraConfig { rank: 2, alpha: 3.0, targets }
    }

    /// Creates a model with random weights and adapters with a large effect.
    pub(crate) fn adapted(layers: Range<usize>) -> CausalLm<Cpu> {
        let model = config().init::<Cpu>(&Default::default());
        let mut model = model.attach_adapters(&small(), layers, 1);
        for (k, block) in model.model.layers.iter_mut().enumerate() {
            for target in Target::ALL {
                let Some(adapter) = &mut target.of_mut(block).adapter else { continue };
                let shape = adapter.lora_b.dims();
                let value = |n: usize| ((7 * n + k) % 11) as f32 / 10.0 - 0.5;
                let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
                let b = Tensor::from_data(TensorData::new(values, shape), &Default::default());
                adapter.lora_b = Param::from_tensor(b);
            }
        }
        model
    }

    impl CausalLm<Cpu> {
        /// Removes the adapters and keeps the frozen weights.
        pub(crate) fn without_adapters(mut self) -> Self {
            for block in &mut self.model.layers {
                for target in Target::ALL {
                    target.of_mut(block).adapter = None;
                }
            }
            self
        }
    }

    pub(crate) fn logits(model: &CausalLm<Cpu>) -> Vec<f32> {
        let device = Default::default();
        let tokens = Tensor::<Cpu, 2, Int>::from_data([[1, 5, 2, 6], [3, 3, 0, 4]], &device);
        let real = Tensor::from_data([[false; 4]; 2], &device);
        model.forward(tokens, &real).into_data().iter::<f32>().collect()
    }

    pub(crate) fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max) / largest
    }

    #[test]
    fn fresh_adapters_change_no_bit_of_the_logits() {
        let model = config().init::<Cpu>(&Default::default());
        let before = logits(&model);
        let adapted = model.attach_adapters(&LoraConfig::default(), 0..2, 5);
        assert_eq!(adapted.adapters().count(), 14);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&logits(&adapted)), bits(&before));
        assert_eq!(bits(&logits(&adapted.merge_adapters())), bits(&before));
    }

    #[test]
    fn a_merged_model_computes_what_its_adapters_did() {
        let model = adapted(0..2);
        let merged = model.clone().merge_adapters();
        assert!(merged.adapters().next().is_none());
        let (with, merged) = (logits(&model), logits(&merged));
        assert!(relative_difference(&merged, &with) <= F32_MERGE, "{merged:?} {with:?}");
        let without = logits(&model.without_adapters());
        assert!(relative_difference(&with, &without) > 0.1, "the adapters do something");
    }

    #[test]
    fn what_is_added_is_alpha_over_rank_times_the_product() {
        let model = adapted(1..2);
        let before = model.model.layers[1].mlp.down_proj.weight.val().into_data();
        let adapter = model.model.layers[1].mlp.down_proj.adapter.as_ref().unwrap();
        let [a, b] = [&adapter.lora_a, &adapter.lora_b].map(|m| m.val().into_data());
        let [a, b]: [Vec<f32>; 2] = [a, b].map(|data| data.iter::<f32>().collect());
        let merged = model.merge_adapters();
        let merged = merged.model.layers[1].mlp.down_proj.weight.val().into_data();
        let pairs = merged.iter::<f32>().zip(before.iter::<f32>()).enumerate();
        for (index, (merged, before)) in pairs {
            let (row, column) = (index / 8, index % 8);
            let product: f32 = (0..2).map(|r| a[row * 2 + r] * b[r * 8 + column]).sum();
            assert!((merged - before - 1.5 * product).abs() < 1e-6, "{row}, {column}");
        }
    }

    #[test]
    fn adapters_stand_beside_the_targets_of_the_chosen_layers_only() {
        let model = adapted(1..2);
        let places: Vec<(usize, Target)> = model.adapters().map(|(l, t, _)| (l, t)).collect();
        assert_eq!(places, [(1, Target::QProj), (1, Target::OProj), (1, Target::DownProj)]);
    }

    #[test]
    fn the_seed_decides_what_adapters_start_from() {
        let model = config().init::<Cpu>(&Default::default());
        let start = |seed| weights(&model.clone().attach_adapters(&small(), 0..2, seed));
        assert_eq!(start(3), start(3));
        assert_ne!(start(3), start(4));
    }
}
