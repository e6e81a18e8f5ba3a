//! Gradients of parts of a batch on separate threads: with the small matrices of small models, a
//! single thread leaves all cores of a CPU but one idle.
//!
//! Each part is processed on a separate thread with a [`replica`] of the model, and the gradients
//! are added. Sums depend only on the split of the batch.

use std::ops::Range;
use std::panic::resume_unwind;
use std::thread::{ScopedJoinHandle, scope};

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::batch::cat::cat;

/// Applies `f` to each item, to the first on this thread and to each other on a separate thread.
///
/// # Panics
///
/// Panics if `f` does.
pub fn in_parallel<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    f: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let (mut items, f) = (items.into_iter(), &f);
    let Some(first) = items.next() else { return Vec::new() };
    scope(|scope| {
        let others: Vec<_> = items.map(|item| scope.spawn(move || f(item))).collect();
        let first = f(first);
        let others = others.into_iter().map(ScopedJoinHandle::join);
        let others = others.map(|other| other.unwrap_or_else(|panic| resume_unwind(panic)));
        std::iter::once(first).chain(others).collect()
    })
}

/// Returns `model` with separate leaves, which keep its graph apart from those of other threads.
/// The replica shares the weights, and its parameters have the same names, so that gradients with
/// respect to them can be added.
#[must_use]
pub fn replica<B: AutodiffBackend, M: Module<B>>(model: &M) -> M {
    model.visit(&mut Drawn);
    model.clone().map(&mut OwnLeaves)
}

/// Visitor that initialises all weights: clones of an unused model would each draw different
/// weights.
struct Drawn;

impl<B: AutodiffBackend> ModuleVisitor<B> for Drawn {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let _ = param.val();
    }
}

struct OwnLeaves;

impl<B: AutodiffBackend> ModuleMapper<B> for OwnLeaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let is_trained = param.is_require_grad();
        let own = |weights: Tensor<B, D>| Tensor::from_inner(weights.inner());
        param.map(|weights| own(weights).set_require_grad(is_trained))
    }
}

/// Joins all trained weights of a [`replica`] in one graph, before a pass that reads all of them.
///
/// In Burn 0.21 each weight is a separate graph until an operation reads it, and then two graphs
/// are merged: node by node, the smaller into the larger as often as the reverse, while all other
/// threads wait. This function merges them before the graph has any other nodes.
///
/// Do not use it for a pass that leaves some weights out, or that proceeds layer by layer: Burn
/// keeps the unreached nodes of a graph until the end of the process.
pub fn join_graphs<B: AutodiffBackend, M: Module<B>>(model: &M) {
    let mut corners = Corners::<B>(Vec::new());
    model.visit(&mut corners);
    if !corners.0.is_empty() {
        drop(cat(corners.0, 0));
    }
}

/// One element of each trained tensor: `[1]`.
struct Corners<B: AutodiffBackend>(Vec<Tensor<B, 1>>);

impl<B: AutodiffBackend> ModuleVisitor<B> for Corners<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.is_require_grad() {
            let corner: [Range<usize>; D] = std::array::from_fn(|_| 0..1);
            self.0.push(param.val().slice(corner).reshape([1]));
        }
    }
}

/// Sums gradients with respect to the weights of `model`, parameter by parameter, in the order of
/// the list.
#[must_use]
pub fn sum_gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    parts: impl IntoIterator<Item = GradientsParams>,
) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    parts.into_iter().for_each(|part| sum.accumulate(model, part));
    sum.grads()
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::module::{AutodiffModule, ParamId};

    use super::*;
    use crate::testing::{ToyDecoder, ToyDecoderConfig};

    type Train = Autodiff<Flex>;

    struct Trained(Vec<(ParamId, bool)>);

    impl ModuleVisitor<Train> for Trained {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
            self.0.push((param.id, param.val().is_require_grad()));
        }
    }

    fn trained(model: &ToyDecoder<Train>) -> Vec<(ParamId, bool)> {
        let mut trained = Trained(Vec::new());
        model.visit(&mut trained);
        trained.0
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        assert_eq!(in_parallel(0..5, |n| n * n), [0, 1, 4, 9, 16]);
        assert_eq!(in_parallel(0..0, |n: usize| n), Vec::<usize>::new());
    }

    #[test]
    #[should_panic(expected = "the third")]
    fn a_panic_of_another_thread_comes_back() {
        in_parallel(0..3, |n| assert_ne!(n, 2, "the third"));
    }

    #[test]
    fn a_replica_trains_the_parameters_that_the_model_does() {
        let model: ToyDecoder<Train> = ToyDecoderConfig::new(8, 6, 3).init(&Default::default());
        assert_eq!(trained(&replica(&model)), trained(&model));
        let frozen = ToyDecoder::from_inner(model.valid()).no_grad();
        assert_eq!(trained(&replica(&frozen)), trained(&frozen));
        assert!(trained(&frozen).iter().all(|(_, trained)| !trained));
    }
}
