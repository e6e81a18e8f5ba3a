//! Low-rank adapters of a whole decoder: which projections have one, put on and merged.
//!
//! Hu et al., [LoRA](https://arxiv.org/abs/2106.09685), ICLR 2022.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::adapter::Adapter;
use crate::block::Block;
use crate::causal_lm::CausalLm;
use crate::projection::Projection;

/// A projection of a decoder layer, named as in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Output of attention.
    OProj,
    /// Gate of the MLP.
    GateProj,
    /// Up projection of the MLP.
    UpProj,
    /// Down projection of the MLP.
    DownProj,
}

impl Target {
    /// All of them, in the order of a layer.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Its name in a checkpoint, below a layer.
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
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// $r$: rank of what is added to a projection.
    pub rank: usize,
    /// $\alpha$: what is added is scaled by $\alpha / r$.
    pub alpha: f64,
    /// The projections that have one.
    pub targets: Vec<Target>,
}

impl Default for LoraConfig {
    /// Rank 8 at every projection, and $\alpha = 2r$: what fine-tuning commonly starts from.
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: Target::ALL.to_vec() }
    }
}

impl LoraConfig {
    /// Everything that cannot be, in words.
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
}

impl<B: Backend> CausalLm<B> {
    /// Freezes every weight, and puts adapters that add nothing beside the targets in `layers`. Only
    /// they require gradients.
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

    /// The model with its adapters added to the weights they stand beside; as it is if it has none.
    /// What is merged requires gradients, where the backend has them.
    #[must_use]
    pub fn merge_adapters(mut self) -> Self {
        for block in &mut self.model.layers {
            for target in Target::ALL {
                let projection = target.of_mut(block);
                if let Some(adapter) = projection.adapter.take() {
                    let merged = adapter.merged_into(projection.weight.val());
                    projection.weight =
                        Param::initialized(projection.weight.id, merged.require_grad());
                }
            }
        }
        self
    }

    /// Puts what `make` makes for a shape `[d_input, d_output]` at `places`. Draws no lazy weight.
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

    /// Where there are adapters, and what they are, layer by layer.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = (usize, Target, &Adapter<B>)> {
        self.model.layers.iter().enumerate().flat_map(|(layer, block)| {
            let adapter = move |target: Target| target.of(block).adapter.as_ref();
            Target::ALL.into_iter().filter_map(move |t| Some((layer, t, adapter(t)?)))
        })
    }
}
