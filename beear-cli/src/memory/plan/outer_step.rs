//! Memory of an outer step: both passes, and the step on the weights.

use beear_core::config::{OptimizerState, WeightUpdate};
use beear_core::method::ANSWER_CHUNK;
use beear_core::{InjectionPoint, RemoveConfig};
use beear_models::activations::{BatchShape, GradientsOf, Numbers};

use super::{Phase, Planner, phase};

/// Number of tensors of the largest size that a step holds for a moment: the corrected moments and
/// the result.
const STEP_TENSORS: u64 = 3;

/// Number of further tensors for stochastic rounding: the neighbours of a tensor, its distances
/// from them, and the noise.
const ROUNDING_TENSORS: u64 = 5;

impl Planner<'_> {
    /// Returns the parts that are alive before and after an outer step.
    fn standing(&self) -> [(&'static str, u64); 5] {
        let [original, last_good, best] = self.older_weights();
        [self.weights(), original, last_good, best, self.optimizer_state()]
    }

    pub(super) fn forward_and_backward(&self) -> Phase {
        if self.remove.activation_checkpointing {
            return self.layer_by_layer();
        }
        let (config, remove) = (self.task.config, self.remove);
        let safe = self.task.safety.batch(remove.safety_batch_size);
        let ordinary = self.task.performance.batch(remove.performance_batch_size);
        let injection_points: &[InjectionPoint] =
            self.bilevel.map_or(&[], |config| &config.injection_points);
        let of = self.task.scope.gradients_in_head();
        let layers = |batch| {
            let layers = self.task.scope.gradients_in_layers(config.n_layers).into_iter();
            let kept = layers.filter_map(|(n, of)| Some(config.kept_by_layer(batch, of?).times(n)));
            kept.fold(Numbers::default(), Numbers::plus)
        };
        let kept = layers(safe)
            .plus(layers(ordinary))
            .plus(self.segments(safe, injection_points))
            .plus(self.segments(ordinary, &[]));
        let mut head = config.kept_by_head(safe, of).plus(config.kept_by_head(ordinary, of));
        if remove.divergence_weight > 0.0 {
            head = head.plus(config.logits(ordinary)); // the original's probabilities
        }
        let reference = self.bytes(config.needed_by_inference(ordinary));
        let moment = self.moment(ordinary).max(self.moment(safe)).max(reference);
        let own = [
            ("gradients of other threads", self.trained().saturating_mul(self.n_threads() - 1)),
            ("activations of layers", self.bytes(kept)),
            ("activations of answers", self.bytes(head)),
            ("for a moment", moment),
        ];
        phase("outer step, forward and backward", self.standing().into_iter().chain(own))
    }

    /// Returns the forward and backward phase with activation checkpointing. The batches go one
    /// after the other, and the gradients of the first are alive while the second is processed.
    fn layer_by_layer(&self) -> Phase {
        let (config, remove) = (self.task.config, self.remove);
        let has_reference = remove.divergence_weight > 0.0;
        let safe = (self.task.safety.batch(remove.safety_batch_size), false);
        let ordinary = (self.task.performance.batch(remove.performance_batch_size), has_reference);
        let needs = [safe, ordinary].map(|(batch, has_reference)| {
            let chunks = ANSWER_CHUNK.saturating_mul(self.n_threads() as usize);
            let chunk = BatchShape { n_answer: batch.n_answer.min(chunks), ..batch };
            let scope = self.task.scope;
            let [_, (_, trained), _] = scope.gradients_in_layers(config.n_layers);
            let of = trained.unwrap_or(GradientsOf::HiddenStates);
            let layer = config.kept_by_layer(batch, of).plus(config.kept_of_positions(batch));
            let mut head = config.kept_by_head(chunk, scope.gradients_in_head());
            if has_reference {
                head = head.plus(config.logits(chunk)); // the original's probabilities
            }
            let kept = self.bytes(layer).max(self.bytes(head));
            [self.bytes(config.boundaries(batch)), kept, self.moment(chunk)]
        });
        let total = |needs: &[u64; 3]| needs.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let [boundaries, layer, moment] = needs.into_iter().max_by_key(total).unwrap_or_default();
        let own = [
            ("gradients", self.trained().saturating_mul(self.n_threads())),
            ("hidden states at boundaries", boundaries),
            ("activations of a layer", layer),
            ("for a moment", moment),
        ];
        phase("outer step, forward and backward", self.standing().into_iter().chain(own))
    }

    /// Returns the number of threads that share the rows of a batch.
    fn n_threads(&self) -> u64 {
        let RemoveConfig { safety_batch_size, performance_batch_size, threads, .. } = self.remove;
        (*threads).clamp(1, *safety_batch_size.max(performance_batch_size).max(&1)) as u64
    }

    pub(super) fn weights_step(&self) -> Phase {
        let largest = self.task.scope.largest_trained(self.task.config);
        let largest = largest.saturating_mul(self.width.max(4));
        let by_chance = self.remove.optimizer_state != OptimizerState::F32
            || self.is_narrow() && self.remove.weight_update == WeightUpdate::Stochastic;
        let n_tensors = STEP_TENSORS + if by_chance { ROUNDING_TENSORS } else { 0 };
        let own =
            [("gradients", self.trained()), ("for a moment", largest.saturating_mul(n_tensors))];
        phase("outer step, weights", self.standing().into_iter().chain(own))
    }
}
