//! Memory that a defence needs, computed from the shape of the model and the settings alone.
//!
//! Each phase lists the parts that are alive at its peak; the peak of the plan is that of the
//! largest phase. The memory that a forward pass keeps is counted by [`beear_models::activations`].
//! Where the memory depends on the course of the run, the larger case is taken: the best round is
//! not the last one, and all rows of a batch are as long as the longest.

mod inference;
mod inner_level;
mod outer_step;
mod without_training;

pub(crate) use without_training::{CommandPlan, Place, Scan, commands};

use std::path::Path;

use beear_core::config::{OptimizerState, WeightUpdate};
use beear_core::optim::MOMENT_BLOCK;
use beear_core::{BilevelConfig, Defence, FineTuningConfig, InjectionPoint, RemoveConfig};
use beear_models::activations::{BatchShape, Numbers};
use beear_models::{DecoderConfig, TrainedWeights, TrainingScope};
use serde::Serialize;

/// Bytes of the program, its tokenizer and its rows.
pub(crate) const PROGRAM: u64 = 32 << 20;

/// Name of the phase that reads held-out rows.
const VALIDATION: &str = "validation";

/// Name of the part for a pass without gradients.
const PASS: &str = "forward pass";

/// Lengths of a row of a set, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowShape {
    /// Length of the prompt.
    pub(crate) prompt: usize,
    /// Part of the prompt that the user wrote, as a half-open range.
    pub(crate) user: (usize, usize),
    /// Length of the answer.
    pub(crate) answer: usize,
}

/// Shape of a set, given by its longest rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SetShape {
    /// Number of rows.
    pub(crate) n_rows: usize,
    /// Tokens of the longest prompt.
    pub(crate) prompt_tokens: usize,
    /// Tokens of the longest answer.
    pub(crate) answer_tokens: usize,
    /// Maximum number of tokens before the user's words: the system prompt within the template.
    pub(crate) leading_tokens: usize,
    /// Minimum number of tokens of a prompt after the user's words.
    pub(crate) trailing_tokens: usize,
}

impl SetShape {
    /// Returns the shape of a set with the given rows.
    pub(crate) fn longest(rows: impl Iterator<Item = RowShape>) -> Self {
        let joined = |set: Self, RowShape { prompt, user, answer }: RowShape| {
            let trailing = prompt.saturating_sub(user.1);
            Self {
                n_rows: set.n_rows + 1,
                prompt_tokens: set.prompt_tokens.max(prompt),
                answer_tokens: set.answer_tokens.max(answer),
                leading_tokens: set.leading_tokens.max(user.0),
                trailing_tokens: if set.n_rows == 0 {
                    trailing
                } else {
                    set.trailing_tokens.min(trailing)
                },
            }
        };
        rows.fold(Self::default(), joined)
    }

    fn batch(self, batch_size: usize) -> BatchShape {
        // The last answer token is not read.
        let seq_length = (self.prompt_tokens + self.answer_tokens).saturating_sub(1);
        let n_answer = batch_size.saturating_mul(self.answer_tokens);
        BatchShape { batch_size, seq_length, n_keys: seq_length, n_answer }
    }
}

/// Model, data and trained weights that a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    /// Shape of the model.
    pub(crate) config: &'a DecoderConfig,
    /// Weights that are trained.
    pub(crate) scope: &'a TrainingScope,
    /// Shape of the safety rows.
    pub(crate) safety: SetShape,
    /// Shape of the performance rows.
    pub(crate) performance: SetShape,
    /// Safe answers that are generated, or `None` if the files contain all.
    pub(crate) generated: Option<Generated>,
    /// Rows that are held out.
    pub(crate) watched: Watched,
    /// Bytes of the model folder's weight files.
    pub(crate) stored: u64,
}

/// Safe answers that the suspect generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generated {
    /// Longest answer in tokens.
    pub(crate) longest: usize,
    /// Number of prompts in a batch. If it is `None`, the plan chooses it.
    pub(crate) rows: Option<usize>,
}

/// Rows that the model is validated on after each round. No rows are held out if both sets are
/// empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Shape of the held-out safety rows.
    pub(crate) safety: SetShape,
    /// Shape of the held-out performance rows.
    pub(crate) performance: SetShape,
    /// Longest answer that the model generates, in tokens. It generates none if this is 0.
    pub(crate) new_tokens: usize,
}

impl Watched {
    fn n_rows(self) -> usize {
        self.safety.n_rows.max(self.performance.n_rows)
    }
}

/// Memory of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    pub(crate) what: &'static str,
    pub(crate) bytes: u64,
}

/// Memory at the peak of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) parts: Vec<Part>,
    pub(crate) bytes: u64,
}

/// Memory that a defence needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryPlan {
    /// Bytes of the largest phase.
    pub(crate) peak: u64,
    /// Phases in the order of a run.
    pub(crate) phases: Vec<Phase>,
    /// Number of prompts in a batch of generated safe answers.
    pub(crate) generated_rows: usize,
    /// Number of held-out rows in a batch.
    pub(crate) watched_rows: usize,
}

impl MemoryPlan {
    /// Plans `method` for weights of `width` bytes a number. Returns `None` for a baseline that
    /// attacks each row separately or aligns layers, because it keeps more.
    pub(crate) fn new(task: Task<'_>, method: &Defence, width: u64) -> Option<Self> {
        let (remove, bilevel) = match method {
            Defence::Beear(config) => (&config.remove, Some(config)),
            Defence::FineTuning(config) => (&config.remove, None),
            Defence::LatentAdversarial(_) | Defence::LayerConsistency(_) => return None,
        };
        let planner = Planner { task, remove, bilevel, width };
        let (loading, saving) = (planner.loading(), planner.saving());
        let mut levels = bilevel.map_or_else(Vec::new, |config| planner.inner_level(config));
        levels.extend([planner.forward_and_backward(), planner.weights_step()]);
        // Passes without gradients take as many rows as fit into the memory that training needs.
        let peak = most(levels.iter().chain([&loading, &saving]));
        let generated = task.generated.map(|Generated { longest, rows }| {
            let rows = rows.unwrap_or_else(|| planner.generated_rows(longest, peak));
            (rows, planner.generating(longest, rows))
        });
        let (generated_rows, generating) = generated.unzip();
        let watched = (task.watched.n_rows() > 0).then(|| planner.validation(peak));
        let (watched_rows, validation) = watched.unzip();
        let before = [Some(loading), generating].into_iter().flatten();
        let after = [validation, Some(saving)].into_iter().flatten();
        let phases: Vec<Phase> = before.chain(levels).chain(after).collect();
        Some(Self {
            peak: most(&phases),
            phases,
            generated_rows: generated_rows.unwrap_or(0),
            watched_rows: watched_rows.unwrap_or(0),
        })
    }

    /// Plans `method`, or ordinary fine-tuning with its outer level if the method cannot be
    /// planned. Every method needs at least as much as fine-tuning.
    pub(crate) fn least(task: Task<'_>, method: &Defence, width: u64) -> Self {
        let size = task.config.size();
        let control =
            FineTuningConfig { remove: method.remove().clone(), ..FineTuningConfig::new(size) };
        let control = Defence::FineTuning(control);
        let planned = Self::new(task, method, width).or_else(|| Self::new(task, &control, width));
        planned.expect("fine-tuning can be planned")
    }

    /// Returns the bytes that answers between rounds may take: the peak minus everything that stays
    /// from one round to the next.
    pub(crate) fn room_between_rounds(&self) -> Option<u64> {
        let validation = self.phases.iter().find(|phase| phase.name == VALIDATION)?;
        let pass = validation.parts.iter().find(|part| part.what == PASS)?;
        Some(self.peak.saturating_sub(validation.bytes.saturating_sub(pass.bytes)))
    }

    /// Returns the phase that needs the most memory.
    pub(crate) fn fullest(&self) -> Option<&Phase> {
        self.phases.iter().max_by_key(|phase| phase.bytes)
    }
}

/// Returns the bytes of the weight files in `dir`, or of f32 weights if there are no files yet.
pub(crate) fn weight_bytes(dir: &Path, config: &DecoderConfig) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|e| e == "safetensors"));
    // The metadata of a link are those of its target.
    let sizes = weights.filter_map(|file| Some(std::fs::metadata(file.path()).ok()?.len()));
    sizes.reduce(u64::saturating_add).unwrap_or((config.n_weights() as u64).saturating_mul(4))
}

/// Returns the bytes of the largest phase.
fn most<'a>(phases: impl IntoIterator<Item = &'a Phase>) -> u64 {
    phases.into_iter().map(|phase| phase.bytes).max().unwrap_or(0)
}

struct Planner<'a> {
    task: Task<'a>,
    remove: &'a RemoveConfig,
    bilevel: Option<&'a BilevelConfig>,
    width: u64,
}

/// Creates a phase from its non-empty parts and the program.
fn phase(name: &'static str, parts: impl IntoIterator<Item = (&'static str, u64)>) -> Phase {
    let program = ("program", PROGRAM);
    let parts = parts.into_iter().chain([program]).filter(|(_, bytes)| *bytes > 0);
    let parts: Vec<Part> = parts.map(|(what, bytes)| Part { what, bytes }).collect();
    let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
    Phase { name, parts, bytes }
}

impl Planner<'_> {
    /// Returns the bytes of all weights at `width` bytes each.
    fn weights_at(&self, width: u64) -> u64 {
        (self.task.config.n_weights() as u64).saturating_mul(width)
    }

    /// Returns the part for the weights of the model and of its adapters.
    fn weights(&self) -> (&'static str, u64) {
        let adapters = if self.has_adapters() { self.trained() } else { 0 };
        ("weights", self.weights_at(self.width).saturating_add(adapters))
    }

    fn has_adapters(&self) -> bool {
        matches!(self.task.scope.weights, TrainedWeights::Lora(_))
    }

    /// Returns the bytes of a trained number. Adapters are never in half precision.
    fn trained_width(&self) -> u64 {
        if self.has_adapters() { self.width.max(4) } else { self.width }
    }

    /// Returns the bytes of all trained weights at `width` bytes each.
    fn trained_at(&self, width: u64) -> u64 {
        (self.task.scope.n_trained(self.task.config) as u64).saturating_mul(width)
    }

    /// Returns the bytes of one copy of the trained weights, or of their gradients.
    fn trained(&self) -> u64 {
        self.trained_at(self.trained_width())
    }

    fn bytes(&self, numbers: Numbers) -> u64 {
        numbers.bytes(self.width)
    }

    fn is_narrow(&self) -> bool {
        self.trained_width() < 4
    }

    /// Returns the part for the optimiser's moments, and for its master copy of the weights if it
    /// has one.
    fn optimizer_state(&self) -> (&'static str, u64) {
        let moment = match self.remove.optimizer_state {
            OptimizerState::F32 => self.width.max(4),
            OptimizerState::BF16 => 2,
            OptimizerState::EightBit => 1,
        };
        let is_blockwise = self.remove.optimizer_state == OptimizerState::EightBit;
        let scales = if is_blockwise { 2 * self.trained_at(4) / MOMENT_BLOCK as u64 } else { 0 };
        let master = self.is_narrow() && self.remove.weight_update == WeightUpdate::Master;
        let numbers = self.trained_at(2 * moment + if master { 4 } else { 0 });
        ("optimiser state", numbers.saturating_add(scales))
    }

    /// Returns the parts for trained weights of earlier times. All other weights share their memory
    /// with the current ones.
    fn older_weights(&self) -> [(&'static str, u64); 3] {
        let weights = self.trained();
        let n_rounds = self.bilevel.map_or(1, |config| config.rounds);
        let has_original = self.remove.divergence_weight > 0.0;
        // In the first round the last good weights are the original ones.
        let last_good = n_rounds > 1 || !has_original;
        [
            ("original model", if has_original { weights } else { 0 }),
            ("weights before the round", if last_good { weights } else { 0 }),
            ("best round, if an earlier one", if n_rounds > 2 { weights } else { 0 }),
        ]
    }

    fn loading(&self) -> Phase {
        let largest = self.task.config.largest_tensor().saturating_mul(self.width.max(4));
        let files = ("checkpoint files, mapped", self.task.stored);
        phase("loading", [self.weights(), files, ("largest tensor, read", 3 * largest)])
    }

    /// Counts the tables of positions. Each run of layers between perturbed ones has its own.
    fn segments(&self, batch: BatchShape, injection_points: &[InjectionPoint]) -> Numbers {
        let mut layers: Vec<usize> = injection_points.iter().map(|point| point.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        self.task.config.kept_of_positions(batch).times(layers.len() + 1)
    }

    /// Returns the bytes that the end of a forward pass and the start of the backward pass hold for
    /// a moment.
    fn moment(&self, batch: BatchShape) -> u64 {
        let config = self.task.config;
        let layer = self.bytes(config.needed_by_backward(batch));
        layer.max(self.bytes(config.logits(batch).times(3)))
    }

    fn saving(&self) -> Phase {
        let layer = self.task.config.n_layer_weights() as u64;
        let merged = if self.has_adapters() { layer.saturating_mul(self.width) } else { 0 };
        let encoded = ("checkpoint, encoded", self.task.stored);
        phase("saving", [self.weights(), ("a layer, merged", merged), encoded])
    }
}

#[cfg(test)]
mod tests {
    use beear_core::{FineTuningConfig, LatentAdversarialConfig};
    use beear_models::checkpoint::hf_config;
    use beear_models::{LoraConfig, Target};

    use super::*;

    fn config() -> DecoderConfig {
        let text = r#"{"model_type": "llama", "vocab_size": 16, "hidden_size": 8,
            "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 32}"#;
        hf_config::parse(text).unwrap()
    }

    /// By hand: embedding and unembedding 2 · 128, two layers of 4 · 64 + 3 · 96 + 16, a norm of 8.
    const N_WEIGHTS: u64 = 256 + 2 * 560 + 8;

    const SET: SetShape = SetShape {
        n_rows: 9,
        prompt_tokens: 4,
        answer_tokens: 3,
        leading_tokens: 0,
        trailing_tokens: 0,
    };

    fn task<'a>(config: &'a DecoderConfig, scope: &'a TrainingScope) -> Task<'a> {
        let watched = Watched { safety: SET, performance: SET, new_tokens: 0 };
        Task { config, scope, safety: SET, performance: SET, generated: None, watched, stored: 7 }
    }

    fn plan(change: impl Fn(&mut BilevelConfig), width: u64) -> MemoryPlan {
        plan_of(&TrainingScope::ALL, change, width)
    }

    fn plan_of(
        scope: &TrainingScope,
        change: impl Fn(&mut BilevelConfig),
        width: u64,
    ) -> MemoryPlan {
        let config = config();
        let mut method = BilevelConfig::robust(config.size());
        change(&mut method);
        let task = task(&config, scope);
        MemoryPlan::new(task, &Defence::Beear(method), width).expect("BEEAR can be planned")
    }

    fn bytes(plan: &MemoryPlan, phase: &str, part: &str) -> u64 {
        let phase = plan.phases.iter().find(|known| known.name == phase).unwrap();
        phase.parts.iter().find(|known| known.what == part).map_or(0, |part| part.bytes)
    }

    const WEIGHTS: &str = "outer step, weights";
    const FORWARD: &str = "outer step, forward and backward";

    #[test]
    fn the_weights_step_has_a_place_for_every_copy_of_the_weights() {
        let four = 4 * N_WEIGHTS;
        let plan = plan(|_| {}, 4);
        for (part, expected) in [
            ("weights", four),
            ("original model", four),
            ("weights before the round", four),
            ("best round, if an earlier one", four),
            ("optimiser state", 2 * four),
            ("gradients", four),
            ("for a moment", 3 * 4 * 128),
        ] {
            assert_eq!(bytes(&plan, WEIGHTS, part), expected, "{part}");
        }
        let phase = plan.phases.iter().find(|phase| phase.name == WEIGHTS).unwrap();
        assert_eq!(phase.bytes, 7 * four + 3 * 4 * 128 + PROGRAM);
        assert_eq!(plan.peak, plan.fullest().unwrap().bytes);
    }

    #[test]
    fn what_a_setting_saves_is_not_planned() {
        let first_round = plan(|method| method.rounds = 1, 4);
        assert_eq!(bytes(&first_round, WEIGHTS, "weights before the round"), 0);
        let free = plan(|method| method.remove.divergence_weight = 0.0, 4);
        assert_eq!(bytes(&free, WEIGHTS, "original model"), 0);
        let rounded = plan(|method| method.remove.optimizer_state = OptimizerState::BF16, 4);
        assert_eq!(bytes(&rounded, WEIGHTS, "optimiser state"), 4 * N_WEIGHTS);
        let half = plan(|method| method.remove.weight_update = WeightUpdate::Master, 2);
        assert_eq!(bytes(&half, WEIGHTS, "optimiser state"), (8 + 4) * N_WEIGHTS);
        assert_eq!(bytes(&half, WEIGHTS, "gradients"), 2 * N_WEIGHTS);
    }

    #[test]
    fn adapters_take_the_place_of_the_weights_in_all_that_training_keeps() {
        // By hand: adapters of rank 3 from 8 to 8 and from 12 to 8 in one of two layers.
        let targets = vec![Target::OProj, Target::DownProj];
        let lora = LoraConfig { rank: 3, targets, ..LoraConfig::default() };
        let scope = TrainingScope { weights: TrainedWeights::Lora(lora), layers: Some(1..2) };
        let n_trained = 3 * (16 + 20);
        let single = |change: &mut BilevelConfig| {
            change.remove.safety_batch_size = 1;
            change.remove.performance_batch_size = 1;
        };
        for width in [4, 2] {
            let plan = plan_of(&scope, single, width);
            // Adapters are in f32, whatever the type of the weights.
            let four = 4 * n_trained;
            for (part, expected) in [
                ("weights", width * N_WEIGHTS + four),
                ("original model", four),
                ("weights before the round", four),
                ("best round, if an earlier one", four),
                ("optimiser state", 2 * four),
                ("gradients", four),
                ("for a moment", 3 * 4 * 3 * 12),
            ] {
                assert_eq!(bytes(&plan, WEIGHTS, part), expected, "{part} at {width}");
            }
        }
        // n = 6 tokens: nothing of the first layer, 2 · 48 + 3 · 48 + 3 · 72 + 4 · 72 of the
        // second, inputs of 48 and 72, two thin ones of 6 · 3; tables as without adapters.
        let kept = bytes(&plan_of(&scope, single, 4), FORWARD, "activations of layers");
        assert_eq!(kept, 4 * (2 * (96 + 144 + 216 + 288 + 48 + 72 + 36) + 3 * 192));
    }

    #[test]
    fn activations_grow_with_the_batch() {
        let kept = |rows: usize| {
            let change = |method: &mut BilevelConfig| {
                method.remove.safety_batch_size = rows;
                method.remove.performance_batch_size = rows;
            };
            bytes(&plan(change, 4), FORWARD, "activations of layers")
        };
        assert_eq!(kept(6), 6 * kept(1));
        // By hand, n = 6 tokens: a layer has 6 · 48 + 4 · 48 + 3 · 72 + 5 · 72 numbers for one row.
        // There is one table of 4 · 48 for performance, and for safety one more than the number of
        // perturbed layers, which is one.
        assert_eq!(kept(1), 4 * (2 * 2 * (288 + 192 + 216 + 360) + 3 * 192));
    }

    #[test]
    fn validation_reads_as_many_rows_as_need_no_more_than_training() {
        let with_rows = |n_outer: usize| {
            plan(
                |method| {
                    method.remove.safety_batch_size = n_outer;
                    method.remove.performance_batch_size = n_outer;
                    method.entrap.batch_size = n_outer;
                    method.remove.divergence_weight = 0.0;
                    method.remove.activation_checkpointing = true;
                },
                4,
            )
        };
        let (small, large) = (with_rows(1), with_rows(64));
        assert_eq!(large.watched_rows, 9, "all that are held out");
        assert!(small.watched_rows < 9);
        let training = small.phases.iter().filter(|phase| phase.name != "validation");
        assert_eq!(small.peak, most(training));
        let pass = config().needed_by_scoring(SET.batch(small.watched_rows)).bytes(4);
        assert_eq!(bytes(&small, "validation", "forward pass"), pass);
        assert_eq!(bytes(&small, "validation", "optimiser state"), 8 * N_WEIGHTS);
        assert_eq!(bytes(&small, "validation", "best round, if an earlier one"), 4 * N_WEIGHTS);
    }

    #[test]
    fn keys_and_values_of_a_system_prompt_are_planned_for_all_prepared_rows() {
        let config = config();
        let mut method = BilevelConfig::robust(config.size());
        method.injection_points =
            vec![InjectionPoint { layer: 1, positions: beear_core::Positions::First(2) }];
        method.perturbations_per_round = 1;
        let set = SetShape { prompt_tokens: 20, leading_tokens: 16, ..SET };
        let task = Task { safety: set, ..task(&config, &TrainingScope::ALL) };
        let plan = MemoryPlan::new(task, &Defence::Beear(method), 4).expect("BEEAR is known");
        // 9 rows of 16 tokens, with keys and values of 8 numbers in the one layer above.
        let part = "keys and values of prepared rows";
        assert_eq!(bytes(&plan, "inner step", part), 9 * 16 * 2 * 8 * 4);
        assert_eq!(bytes(&plan, "inner level, preparing rows", part), 9 * 16 * 2 * 8 * 4);
        // 4 tokens and the answer, whose last token is not read.
        assert_eq!(bytes(&plan, "inner step", "prepared rows"), 9 * 6 * 8 * 4);
    }

    #[test]
    fn only_what_is_known_is_planned() {
        let config = config();
        let task = task(&config, &TrainingScope::ALL);
        let rival = Defence::LatentAdversarial(LatentAdversarialConfig::new(config.size()));
        assert_eq!(MemoryPlan::new(task, &rival, 4), None);
        let control = Defence::FineTuning(FineTuningConfig::new(config.size()));
        let plan = MemoryPlan::new(task, &control, 4).expect("the control can be planned");
        assert!(plan.phases.iter().all(|phase| !phase.name.starts_with("inner")));
        assert_eq!(MemoryPlan::least(task, &rival, 4).watched_rows, plan.watched_rows);
    }
}
