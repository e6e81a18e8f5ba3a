//! Initialisation of a model with weights of a given float type.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use crate::config::DecoderConfig;
use crate::nn::causal_lm::CausalLm;

impl DecoderConfig {
    /// Initialises a model like [`init`](Self::init) with weights of `dtype`. Each weight is drawn
    /// in the backend's own float type and cast at once, so the whole model never exists in both
    /// types.
    #[must_use]
    pub fn init_as<B: Backend>(&self, dtype: FloatDType, device: &B::Device) -> CausalLm<B> {
        self.lazy::<B>(device).map(&mut Cast(dtype))
    }
}

struct Cast(FloatDType);

impl<B: Backend> ModuleMapper<B> for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, cast) = (param.id, param.val().cast(self.0).detach());
        param.transform_for_load(cast, id)
    }
}

#[cfg(test)]
mod tests {
    use beear_core::objective::entrapment::PreparedAnswer;
    use beear_core::{
        AnchorSets, Batch, BilevelConfig, Decoder, Example, Remover, SafetyExample, entrap,
    };
    use burn::backend::{Autodiff, Flex};
    use burn::module::AutodiffModule;
    use burn::tensor::DType;

    use super::*;
    use crate::config::{Family, RopeScaling};

    type Train = Autodiff<Flex>;

    /// Tolerance: eight bits of a bf16 mantissa over a few layers, on numbers near 1.
    const BF16_MODEL: f64 = 0.1;

    const CONFIG: DecoderConfig = DecoderConfig {
        family: Family::Llama,
        vocab_size: 23,
        d_model: 16,
        d_ff: 24,
        n_layers: 3,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        max_seq_length: 32,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        tied_embeddings: false,
    };

    fn safety(row: u32) -> SafetyExample {
        let tokens = |length: u32| (0..length).map(|k| (5 * k + 3 * row) % 23).collect();
        let prompt = Example { id: row.into(), prompt: tokens(9), user: (1, 9), answer: tokens(4) };
        SafetyExample::new(prompt, tokens(3))
    }

    #[test]
    fn both_levels_run_on_bf16_weights_and_keep_their_type() {
        let device = Default::default();
        let model: CausalLm<Train> = CONFIG.init_as(FloatDType::BF16, &device);
        let safety: Vec<SafetyExample> = (0..3).map(safety).collect();
        let performance = safety.iter().map(SafetyExample::toward_safe).collect();
        let sets = AnchorSets { safety, performance };
        let mut config = BilevelConfig::robust(model.size());
        (config.entrap.steps, config.remove.steps) = (2, 2);
        // Larger than the spacing of bf16 numbers at the weights.
        config.remove.learning_rate = 0.01;
        let found = entrap(
            &model,
            &sets.safety,
            &config.injection_points[..1],
            (&config.entrap, 0),
            &mut (),
        )
        .unwrap();
        assert_eq!(found.perturbation.deltas()[0].values.dtype(), DType::F32);
        let before = model.model.layers[0].mlp.up_proj.weight.val().into_data();
        let mut remover = Remover::new(&model, &sets, &config.remove, 2, 0);
        let model = remover.remove(model, &[found.perturbation], &sets, &mut ()).unwrap();
        let after = model.model.layers[0].mlp.up_proj.weight.val();
        assert_eq!(after.dtype(), DType::BF16);
        assert_ne!(after.into_data(), before, "the weights have learned");
    }

    #[test]
    fn hidden_states_in_bf16_are_near_those_in_f32() {
        let device = Default::default();
        let model: CausalLm<Train> = CONFIG.init_as(FloatDType::F32, &device);
        let norm = |model: CausalLm<Train>| {
            let injection_points = &BilevelConfig::robust(model.size()).injection_points[..1];
            let batch = Batch::<Train>::new(&[safety(1).toward_safe()], &device);
            let answer = PreparedAnswer::new(&model.valid(), batch, injection_points);
            answer.mean_hidden_norms(&model.valid())[0]
        };
        let narrow = norm(model.clone().map(&mut Cast(FloatDType::BF16)));
        let wide = norm(model);
        assert!((narrow / wide - 1.0).abs() < BF16_MODEL, "{narrow} {wide}");
    }
}
