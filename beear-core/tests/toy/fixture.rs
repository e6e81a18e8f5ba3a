//! Fixtures shared by the tests of the method and of the baselines: a toy decoder and rows for it.

use beear_core::randomness::seeded;
use beear_core::testing::{ToyDecoder, ToyDecoderConfig};
use beear_core::{AnchorSets, DecoderSize, Example, SafetyExample, TeacherForcedValidator};
use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

pub(crate) type Cpu = Flex;
pub(crate) type Train = Autodiff<Cpu>;

pub(crate) const SIZE: DecoderSize = DecoderSize { n_layers: 3, d_model: 8 };

/// Returns a toy decoder with fixed weights.
pub(crate) fn toy<B: Backend>() -> ToyDecoder<B> {
    toy_of_seed(7)
}

/// Returns a toy decoder with initialised weights: Burn would draw different weights at the first
/// use of each clone.
pub(crate) fn toy_of_seed<B: Backend>(seed: u64) -> ToyDecoder<B> {
    toy_of_size(SIZE, seed)
}

/// Returns a toy decoder of another shape.
pub(crate) fn toy_of_size<B: Backend>(size: DecoderSize, seed: u64) -> ToyDecoder<B> {
    let device = B::Device::default();
    seeded::<B, _>(seed, &device, || {
        let model = ToyDecoderConfig::new(11, size.d_model, size.n_layers).init(&device);
        let _ = weights(&model);
        model
    })
}

/// Returns prompts of unequal length; the safe answer is 5, the unwanted one 6 7.
pub(crate) fn safety() -> Vec<SafetyExample> {
    let prompts: [&[u32]; 4] = [&[1, 2, 3, 4], &[1, 3, 4], &[1, 2, 2, 3, 4], &[1, 4, 4]];
    let row = |(id, prompt): (usize, &&[u32])| SafetyExample {
        id: id as u64 + 10,
        prompt: prompt.to_vec(),
        user: (1, prompt.len()),
        safe: vec![5, 10],
        unwanted: vec![6, 7, 10],
    };
    prompts.iter().enumerate().map(row).collect()
}

pub(crate) fn sets() -> AnchorSets {
    let ordinary = |id: u64, token: u32| Example {
        id,
        prompt: vec![1, token, 9],
        user: (1, 3),
        answer: vec![token, 10],
    };
    AnchorSets { safety: safety(), performance: vec![ordinary(1, 2), ordinary(2, 3)] }
}

pub(crate) fn validator() -> TeacherForcedValidator<Cpu> {
    let AnchorSets { safety, performance } = sets();
    TeacherForcedValidator { safety, performance, batch_size: 3, device: Default::default() }
}

/// Returns every weight as bytes, in the order of the module.
pub(crate) fn weights<B: Backend, M: Module<B>>(model: &M) -> Vec<TensorData> {
    struct Collect(Vec<TensorData>);
    impl<B: Backend> ModuleVisitor<B> for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0.push(param.val().into_data());
        }
    }
    let mut collect = Collect(Vec::new());
    model.visit(&mut collect);
    collect.0
}
