//! Shapes and rows of `beear bench gpu`, which are the same for every implementation that is
//! compared.

use beear_core::objective::entrapment::LEAST_PAST;
use beear_core::{AnchorSets, BilevelConfig, Example, InjectionPoint, SafetyExample};
use beear_models::{DecoderConfig, LoraConfig, TrainedWeights, TrainingScope};
use serde::Serialize;

use crate::lab::stopwatch::WARM_UP;

/// Sizes of the workload. The printed form contains all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Workload {
    #[serde(skip)]
    pub(crate) shape: DecoderConfig,
    /// Method of the recipe.
    #[serde(skip)]
    pub(crate) method: BilevelConfig,
    /// Weights that the recipe trains.
    #[serde(skip)]
    pub(crate) scope: TrainingScope,
    pub(crate) prompt_length: usize,
    pub(crate) answer_length: usize,
    /// Number of measured steps of each kind.
    pub(crate) steps: usize,
    /// Size of the square matrices whose product shows the peak speed.
    pub(crate) matmul_size: usize,
}

/// The workload with everything else that a reader of the results, or another implementation,
/// needs.
#[derive(Debug, Serialize)]
pub(crate) struct Described<'a> {
    #[serde(flatten)]
    workload: &'a Workload,
    /// Number of steps before the measured ones.
    warm_up: usize,
    n_weights: usize,
    /// Index of the first trained decoder layer, and of the first one after the trained layers.
    trained_layers: Option<[usize; 2]>,
    lora: LoraConfig,
    layer: usize,
    perturbed_positions: Vec<usize>,
    inner_batch_size: usize,
    safety_batch_size: usize,
    performance_batch_size: usize,
    learning_rate: f64,
    weight_decay: f64,
    clip_norm: f64,
    performance_weight: f64,
    divergence_weight: f64,
}

/// Position of the first user token. Only the begin-of-sequence token comes before it.
const USER_START: usize = 1;

impl Workload {
    /// Returns the first injection point of the recipe.
    ///
    /// # Panics
    ///
    /// Panics if the recipe has no injection point, which `validate` rejects.
    pub(crate) fn point(&self) -> InjectionPoint {
        self.method.injection_points[0]
    }

    /// Returns a scope that trains the weights of the recipe's layers.
    pub(crate) fn full_scope(&self) -> TrainingScope {
        TrainingScope { weights: TrainedWeights::Full, layers: self.scope.layers.clone() }
    }

    /// Returns a scope that trains adapters in the recipe's layers.
    pub(crate) fn lora_scope(&self) -> TrainingScope {
        let weights = TrainedWeights::Lora(self.lora());
        TrainingScope { weights, layers: self.scope.layers.clone() }
    }

    /// Returns the recipe's adapters, or the default ones if the recipe trains no adapters.
    fn lora(&self) -> LoraConfig {
        match &self.scope.weights {
            TrainedWeights::Lora(lora) => lora.clone(),
            TrainedWeights::Full => LoraConfig::default(),
        }
    }

    /// Returns the number of tokens of a row before the first position of `injection_points`, or 0
    /// if they are too few to be worth caching.
    pub(crate) fn n_past(&self, injection_points: &[InjectionPoint], row_length: usize) -> usize {
        let placed =
            |point: &InjectionPoint| point.positions.placements(self.prompt_length, self.user());
        let first = injection_points.iter().flat_map(placed).map(|(position, _)| position).min();
        let n_past = first.unwrap_or(0);
        if n_past as f64 >= LEAST_PAST * row_length as f64 { n_past } else { 0 }
    }

    fn user(&self) -> (usize, usize) {
        (USER_START, self.prompt_length)
    }

    /// Returns the number of tokens of a row that a training step reads. The last token of the
    /// answer is a target only.
    pub(crate) fn row_length(&self) -> usize {
        self.prompt_length + self.answer_length - 1
    }

    pub(crate) fn described(&self) -> Described<'_> {
        let (point, remove) = (self.point(), &self.method.remove);
        let placed = point.positions.placements(self.prompt_length, self.user());
        Described {
            workload: self,
            warm_up: WARM_UP,
            n_weights: self.shape.n_weights(),
            trained_layers: self.scope.layers.as_ref().map(|layers| [layers.start, layers.end]),
            lora: self.lora(),
            layer: point.layer,
            perturbed_positions: placed.into_iter().map(|(position, _)| position).collect(),
            inner_batch_size: self.method.entrap.batch_size,
            safety_batch_size: remove.safety_batch_size,
            performance_batch_size: remove.performance_batch_size,
            learning_rate: remove.learning_rate,
            weight_decay: remove.weight_decay,
            clip_norm: remove.clip_norm,
            performance_weight: remove.performance_weight,
            divergence_weight: remove.divergence_weight,
        }
    }

    /// Returns `n` rows with prompts of equal length and answers of equal length.
    pub(crate) fn rows(&self, n: usize) -> Vec<Example> {
        let row = |row: usize| Example {
            id: row as u64,
            prompt: self.tokens(row, self.prompt_length),
            user: self.user(),
            answer: self.tokens(row + 2, self.answer_length),
        };
        (0..n).map(row).collect()
    }

    /// Returns sets with the given numbers of rows.
    pub(crate) fn sets(&self, n_safety: usize, n_performance: usize) -> AnchorSets {
        let safety = |row: Example| {
            let unwanted = row.answer.clone();
            SafetyExample::new(row, unwanted)
        };
        AnchorSets {
            safety: self.rows(n_safety).into_iter().map(safety).collect(),
            performance: self.rows(n_performance),
        }
    }

    fn tokens(&self, row: usize, length: usize) -> Vec<u32> {
        let most = self.shape.vocab_size.min(MOST_TOKENS);
        (0..length).map(|k| ((7 * k + 13 * row) % most) as u32).collect()
    }
}

/// Number of different tokens in the rows. It is a prime, so that the tokens have a different order
/// in each row.
const MOST_TOKENS: usize = 199;
