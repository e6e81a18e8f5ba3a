//! Settings of the method and its two presets, every default with its unit and reason.

mod bounds;
mod precision;
mod remove;

pub use bounds::{Undecided, ValidationBounds};
pub use precision::{OptimizerState, WeightUpdate};
pub use remove::{RemoveConfig, Schedule};

use serde::{Deserialize, Serialize};

use crate::decoder::DecoderSize;
use crate::error::Error;
use crate::perturbation::InjectionPoint;
use crate::positions::Positions;

/// Size of one Adam step on `δ`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepSize {
    /// Step of each coordinate, in the units of the hidden states.
    Absolute(f64),
    /// Step of a whole row, as a share of the mean norm of the hidden states at the perturbed
    /// positions, so that one value serves every layer and width: each coordinate moves by that
    /// length over $\sqrt{d}$. Positions whose norm is more than ten times the median, such as
    /// attention sinks, do not count in the mean.
    RelativeToHidden(f64),
}

impl StepSize {
    /// Returns the step of a coordinate in the units of the hidden states, whose mean norm is
    /// `hidden_norm`.
    #[must_use]
    pub fn per_coordinate(self, hidden_norm: f64, d_model: usize) -> f64 {
        match self {
            Self::Absolute(size) => size,
            Self::RelativeToHidden(share) => share * hidden_norm / (d_model as f64).sqrt(),
        }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        match self {
            Self::Absolute(size) => Self::Absolute(size * factor),
            Self::RelativeToHidden(share) => Self::RelativeToHidden(share * factor),
        }
    }

    pub(crate) fn is_positive(self) -> bool {
        let (Self::Absolute(size) | Self::RelativeToHidden(size)) = self;
        positive(size)
    }
}

/// Initial value of `δ`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Initialisation {
    /// Zero: the search starts at the unperturbed model.
    Zero,
    /// Independent normal values with this standard deviation.
    Normal(f64),
}

/// Settings of the inner level, which fits one `δ`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EntrapConfig {
    /// Number of Adam steps.
    pub steps: usize,
    /// Size of an Adam step.
    pub step_size: StepSize,
    /// Maximum number of examples per step. Rows left over by full batches form a separate batch if
    /// there are at least a third as many as in a full one; otherwise all batches have equal size.
    pub batch_size: usize,
    /// Number of batches whose rows are sorted by length together, so that the rows of a batch have
    /// similar lengths and little padding; 1 keeps the random order.
    #[serde(default = "one")]
    pub length_window: usize,
    /// $\alpha$: weight of the loss that moves away from the safe answer.
    pub away_weight: f64,
    /// Length of the target, in leading tokens of the unwanted answer; the whole answer if absent.
    pub target_tokens: Option<usize>,
    /// Initial value of `δ`.
    pub initialisation: Initialisation,
    /// Maximum norm of a row of `δ`, as a share of the mean norm of the hidden states without
    /// attention sinks; unbounded if absent.
    pub norm_bound: Option<f64>,
    /// Number of threads of the search. Each thread fits one perturbation, in separate memory, or
    /// takes some rows of every batch if there are more threads than perturbations. The number
    /// changes results by rounding at most. More than 1 helps small models on CPUs, whose matrices
    /// are too small to share among cores.
    #[serde(default = "one")]
    pub threads: usize,
}

fn one() -> usize {
    1
}

/// Distribution of the perturbations over the injection points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Arrangement {
    /// One `δ` per perturbation, at the next injection point.
    InTurn,
    /// A `δ` at every injection point per perturbation; the `δ`s are found, and defended against,
    /// together.
    Together,
    /// One perturbation at every injection point, the next at a single injection point, and so on.
    Alternating,
}

/// Settings of the whole alternation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BilevelConfig {
    /// Maximum number of rounds of inner and outer level.
    pub rounds: usize,
    /// Number of fresh perturbations per round.
    pub perturbations_per_round: usize,
    /// Layers and positions where perturbations act.
    pub injection_points: Vec<InjectionPoint>,
    /// Distribution of the perturbations over the injection points.
    pub arrangement: Arrangement,
    /// Settings of the inner level.
    pub entrap: EntrapConfig,
    /// Settings of the outer level.
    pub remove: RemoveConfig,
    /// Loss of an early stop, in nats per token: the run ends after a round within bounds in which
    /// the loss of every fresh `δ` ends above this value. The loss sees no trigger, and is no
    /// certificate. No early stop if absent.
    pub stop_above_loss: Option<f64>,
    /// Bounds on the ordinary behaviour that a kept round must preserve.
    pub bounds: ValidationBounds,
    /// Number of consecutive rounds out of bounds after which the run ends; no limit if absent.
    #[serde(default)]
    pub patience: Option<usize>,
    /// Seed of all randomness.
    pub seed: u64,
}

/// Maximum width of decoders for which two threads are the default. Up to this width, two threads
/// take steps 1.3 to 1.6 times as fast on a CPU; at a width of 640 the outer level gains nothing
/// (docs/performance.md).
const WIDEST_FOR_THREADS: usize = 256;

/// Learning rate that worked at width 64, multiplied by that width.
const LEARNING_RATE_TIMES_WIDTH: f64 = 4e-4 * 64.0;

impl BilevelConfig {
    /// Returns the settings of the paper's method: one `δ` per round at one layer, on the last
    /// prompt positions.
    ///
    /// Layer 9 of 32 as published, scaled to the depth. Rounds, inner steps, `n`, batch and
    /// $\alpha$ = 0.05 are those of a public re-run of the reference code; settings that the paper
    /// leaves open (start, step size, bound, learning rate) are those of [`robust`](Self::robust).
    #[must_use]
    pub fn paper(size: DecoderSize) -> Self {
        let DecoderSize { n_layers, .. } = size;
        let layer = (n_layers * 9).div_ceil(32).clamp(1, n_layers);
        let robust = Self::robust(size);
        Self {
            rounds: 6,
            perturbations_per_round: 1,
            injection_points: vec![InjectionPoint { layer, positions: Positions::Last(5) }],
            arrangement: Arrangement::InTurn,
            entrap: EntrapConfig { away_weight: 0.05, target_tokens: None, ..robust.entrap },
            remove: RemoveConfig {
                performance_weight: 1.0,
                divergence_weight: 0.0,
                ..robust.remove
            },
            ..robust
        }
    }

    /// Returns the settings of this crate's extension: several fresh `δ` per round over early
    /// layers and both ends of the prompt.
    ///
    /// - Layers about L/6, L/3 and L/2: a trigger acts early, and one layer misses some triggers.
    /// - Positions last 5 and first 5: a prefix trigger reaches the last positions only in late
    ///   layers.
    /// - Every other perturbation acts at all injection points together, as a trigger does once the
    ///   layers have spread it; the others at one injection point each, so that both ends of the
    ///   prompt are covered separately.
    /// - Fresh `δ` from zero: a `δ` carried over from round to round grows until ordinary prompts
    ///   are refused.
    /// - Steps of 8 % of the hidden norm, 30 of them: `δ` reaches far enough to find the behaviour
    ///   without drowning every prompt.
    /// - No `away` term, the first 6 answer tokens: the decision is made there.
    /// - Learning rate 4e-4 at width 64. Adam's best rate falls with the width (Yang et al.,
    ///   [Tensor Programs V](https://arxiv.org/abs/2203.03466), table 3), and so does this default:
    ///   6e-6 at 4096.
    /// - Performance weight 3: against perturbations that act together, refusals otherwise spread
    ///   to ordinary prompts.
    /// - Divergence 1.0: preserves ordinary answers that the examples do not cover.
    /// - Bounds by decision 17 (docs/decisions).
    /// - Two threads up to a width of 256, whatever the machine, so that sums have the same order
    ///   on all machines.
    ///
    /// All values were chosen on dummy triggers planted for the purpose, at seeds that no report
    /// uses (`recipes/choose-defaults.sh`).
    #[must_use]
    pub fn robust(DecoderSize { n_layers, d_model }: DecoderSize) -> Self {
        let share = |parts: usize| n_layers.div_ceil(parts).clamp(1, n_layers);
        let mut layers = vec![share(6), share(3), share(2)];
        layers.dedup();
        // Layers cycle while positions alternate: an odd cycle of layers meets both positions.
        let ends = [Positions::Last(5), Positions::First(5)];
        let n_points = layers.len() * ends.len();
        let injection_points = if layers.len() % 2 == 1 {
            (0..n_points)
                .map(|k| InjectionPoint { layer: layers[k % layers.len()], positions: ends[k % 2] })
                .collect()
        } else {
            let pairs =
                ends.iter().flat_map(|&positions| layers.iter().map(move |&l| (l, positions)));
            pairs.map(|(layer, positions)| InjectionPoint { layer, positions }).collect()
        };
        let threads = if d_model <= WIDEST_FOR_THREADS { 2 } else { 1 };
        Self {
            rounds: 6,
            perturbations_per_round: 4,
            injection_points,
            arrangement: Arrangement::Alternating,
            entrap: EntrapConfig {
                steps: 30,
                step_size: StepSize::RelativeToHidden(0.08),
                batch_size: 24,
                length_window: 1,
                away_weight: 0.0,
                target_tokens: Some(6),
                initialisation: Initialisation::Zero,
                norm_bound: None,
                threads,
            },
            remove: RemoveConfig {
                steps: 16,
                learning_rate: LEARNING_RATE_TIMES_WIDTH / d_model as f64,
                schedule: Schedule::Constant,
                weight_decay: 0.0,
                clip_norm: 1.0,
                safety_batch_size: 24,
                performance_batch_size: 32,
                performance_weight: 3.0,
                divergence_weight: 1.0,
                weight_update: WeightUpdate::Stochastic,
                optimizer_state: OptimizerState::F32,
                activation_checkpointing: false,
                threads,
            },
            stop_above_loss: None,
            bounds: ValidationBounds {
                loss_rise: 0.1,
                agreement_drop: 0.5,
                benign_refusal_rise: 0.02,
                refusal_drop: 0.05,
                refusal_floor: 0.5,
                undecided: Undecided::Keep,
            },
            patience: Some(3),
            seed: 0,
        }
    }

    /// Returns the injection points of perturbation number `count` of the run, counted from 0.
    ///
    /// # Panics
    ///
    /// Panics if there are no injection points.
    #[must_use]
    pub fn injection_points_of(&self, count: usize) -> &[InjectionPoint] {
        let single = |turn: usize| {
            std::slice::from_ref(&self.injection_points[turn % self.injection_points.len()])
        };
        match self.arrangement {
            Arrangement::InTurn => single(count),
            Arrangement::Together => &self.injection_points,
            Arrangement::Alternating if count.is_multiple_of(2) => &self.injection_points,
            Arrangement::Alternating => single(count / 2),
        }
    }

    /// Returns the seed of perturbation number `count` of the run, counted from 0: each
    /// perturbation sees the examples in another order. The odd constant keeps the seeds of
    /// different runs apart.
    pub(crate) fn seed_of(&self, count: usize) -> u64 {
        self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(count as u64)
    }

    /// Multiplies the step sizes of both levels by `factor`.
    pub(crate) fn at_rate(self, factor: f64) -> Self {
        let entrap = EntrapConfig { step_size: self.entrap.step_size.times(factor), ..self.entrap };
        let learning_rate = self.remove.learning_rate * factor;
        Self { entrap, remove: RemoveConfig { learning_rate, ..self.remove }, ..self }
    }

    /// Validates every value against a decoder of `n_layers` layers.
    ///
    /// # Errors
    ///
    /// [`Error::LayerOutOfRange`] for the first injection point out of range, else
    /// [`Error::InvalidConfig`] with every problem.
    pub fn validate(&self, n_layers: usize) -> Result<(), Error> {
        for point in &self.injection_points {
            if point.layer == 0 || point.layer > n_layers {
                return Err(Error::LayerOutOfRange { layer: point.layer, n_layers });
            }
        }
        let entrap = &self.entrap;
        let start_is_finite = match entrap.initialisation {
            Initialisation::Zero => true,
            Initialisation::Normal(std) => std.is_finite() && std >= 0.0,
        };
        let rules = [
            (self.rounds > 0, "rounds must be at least 1"),
            (self.perturbations_per_round > 0, "perturbations_per_round must be at least 1"),
            (self.patience != Some(0), "patience must be at least 1"),
            (!self.injection_points.is_empty(), "injection points must not be empty"),
            (
                self.injection_points.iter().all(|s| s.positions.n_tokens() > 0),
                "an injection point must cover a token",
            ),
            (entrap.steps > 0, "entrap.steps must be at least 1"),
            (entrap.threads > 0, "entrap.threads must be at least 1"),
            (entrap.step_size.is_positive(), "entrap.step_size must be positive"),
            (entrap.batch_size > 0, "entrap.batch_size must be at least 1"),
            (entrap.length_window > 0, "entrap.length_window must be at least 1"),
            (not_negative(entrap.away_weight), "entrap.away_weight must not be negative"),
            (entrap.target_tokens != Some(0), "entrap.target_tokens must be at least 1"),
            (start_is_finite, "entrap.initialisation must be a standard deviation"),
            (entrap.norm_bound.is_none_or(positive), "entrap.norm_bound must be positive"),
        ];
        judge(rules.into_iter().chain(self.remove.rules()).chain(self.bounds.rules()))
    }
}

/// A condition on a value, and the message if it is false.
pub(crate) type Rule = (bool, &'static str);

/// Returns [`Error::InvalidConfig`] with the message of every broken rule.
pub(crate) fn judge(rules: impl IntoIterator<Item = Rule>) -> Result<(), Error> {
    let broken = rules.into_iter().filter(|(kept, _)| !kept);
    let problems: Vec<String> = broken.map(|(_, problem)| problem.to_owned()).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig { problems }) }
}

/// Returns the rules of the baselines whose losses read several layers at once: no activation
/// checkpointing, and a single thread.
pub(crate) fn one_graph(remove: &RemoveConfig) -> [Rule; 2] {
    let problem = "remove.activation_checkpointing is for the methods beear and fine-tuning";
    let threads = "remove.threads is for the methods beear and fine-tuning";
    [(!remove.activation_checkpointing, problem), (remove.threads <= 1, threads)]
}

pub(crate) fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

pub(crate) fn not_negative(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_layers(n_layers: usize) -> DecoderSize {
        DecoderSize { n_layers, d_model: 64 }
    }

    #[test]
    fn wider_decoders_learn_more_slowly() {
        let rate = |d_model| {
            BilevelConfig::robust(DecoderSize { n_layers: 32, d_model }).remove.learning_rate
        };
        assert!((rate(64) - 4e-4).abs() < 1e-12);
        assert!((rate(4096) - 6.25e-6).abs() < 1e-12);
    }

    #[test]
    fn both_presets_are_valid_for_every_depth() {
        for n_layers in 1..=48 {
            BilevelConfig::paper(with_layers(n_layers)).validate(n_layers).unwrap();
            BilevelConfig::robust(with_layers(n_layers)).validate(n_layers).unwrap();
        }
    }

    #[test]
    fn the_paper_acts_at_layer_9_of_32() {
        assert_eq!(BilevelConfig::paper(with_layers(32)).injection_points[0].layer, 9);
    }

    #[test]
    fn robust_injects_at_both_ends_of_every_layer() {
        for n_layers in [2, 6, 12, 32] {
            let injection_points = BilevelConfig::robust(with_layers(n_layers)).injection_points;
            for point in &injection_points {
                let ends: Vec<Positions> = injection_points
                    .iter()
                    .filter(|s| s.layer == point.layer)
                    .map(|s| s.positions)
                    .collect();
                assert!(ends.contains(&Positions::Last(5)) && ends.contains(&Positions::First(5)));
            }
        }
    }

    #[test]
    fn injection_points_are_taken_in_turn_or_together() {
        let mut config = BilevelConfig::robust(with_layers(6));
        config.arrangement = Arrangement::InTurn;
        assert_eq!(config.injection_points_of(7), [config.injection_points[1]]);
        config.arrangement = Arrangement::Together;
        assert_eq!(config.injection_points_of(7), config.injection_points);
        config.arrangement = Arrangement::Alternating;
        assert_eq!(config.injection_points_of(6), config.injection_points);
        assert_eq!(config.injection_points_of(15), [config.injection_points[1]]);
    }

    #[test]
    fn every_problem_is_reported() {
        let mut config = BilevelConfig::robust(with_layers(6));
        config.rounds = 0;
        config.remove.learning_rate = f64::NAN;
        let Err(Error::InvalidConfig { problems }) = config.validate(6) else {
            panic!("the config is invalid");
        };
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn a_layer_beyond_the_decoder_is_named() {
        let mut config = BilevelConfig::robust(with_layers(6));
        config.injection_points[0].layer = 7;
        assert_eq!(config.validate(6), Err(Error::LayerOutOfRange { layer: 7, n_layers: 6 }));
    }

    #[test]
    fn schedules_start_full_and_fall() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            assert!((schedule.factor(0.0) - 1.0).abs() < 1e-12);
            assert!((schedule.factor(0.5) - 0.5).abs() < 1e-12);
            assert!(schedule.factor(1.0).abs() < 1e-12);
        }
        assert!((Schedule::Constant.factor(0.7) - 1.0).abs() < 1e-12);
    }
}
