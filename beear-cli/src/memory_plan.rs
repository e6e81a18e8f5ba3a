//! What a defence needs in memory, from the shape of the model and the settings alone.
//!
//! Each phase lists what is alive at its fullest moment; the plan's peak is that of the fullest phase. What
//! a forward pass keeps is counted by [`beear_models::activations`]. Where it depends on the course of the
//! run, the larger case is taken: an earlier round than the last is the best one, all rows of a batch are
//! as long as the longest.

mod outer_step;

use std::path::Path;

use beear_core::config::{OptimizerState, WeightUpdate};
use beear_core::objective::entrapment::LEAST_PAST;
use beear_core::solver::MOMENT_BLOCK;
use beear_core::{BilevelConfig, Defence, RemoveConfig, Site, Spot};
use beear_models::activations::{BatchShape, GradientsOf, Numbers};
use beear_models::{DecoderConfig, TrainedWeights, TrainingScope};
use serde::Serialize;

/// The program, its tokenizer and its rows.
const PROGRAM: u64 = 32 << 20;

/// Rows whose safe answers are generated at a time; see `TextSide::answers`.
const DECODED_ROWS: usize = 64;

/// The longest rows of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SetShape {
    /// Rows.
    pub(crate) n_rows: usize,
    /// Tokens of the longest prompt.
    pub(crate) prompt_tokens: usize,
    /// Tokens of the longest answer.
    pub(crate) answer_tokens: usize,
}

impl SetShape {
    /// That of rows given as tokens of the prompt and of the answer.
    pub(crate) fn longest(rows: impl ExactSizeIterator<Item = [usize; 2]>) -> Self {
        let n_rows = rows.len();
        let longest = rows.fold([0, 0], |[p, a], [prompt, answer]| [p.max(prompt), a.max(answer)]);
        let [prompt_tokens, answer_tokens] = longest;
        Self { n_rows, prompt_tokens, answer_tokens }
    }

    fn batch(self, batch_size: usize) -> BatchShape {
        // The last answer token is not read.
        let seq_length = (self.prompt_tokens + self.answer_tokens).saturating_sub(1);
        let n_answer = batch_size.saturating_mul(self.answer_tokens);
        BatchShape { batch_size, seq_length, n_keys: seq_length, n_answer }
    }
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    /// The model.
    pub(crate) config: &'a DecoderConfig,
    /// What is trained of it.
    pub(crate) scope: &'a TrainingScope,
    /// Safety rows.
    pub(crate) safety: SetShape,
    /// Performance rows.
    pub(crate) performance: SetShape,
    /// Longest answer that is generated, in tokens; none is if absent.
    pub(crate) generated: Option<usize>,
    /// Bytes of the checkpoint's files.
    pub(crate) stored: u64,
}

/// What is in memory for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    pub(crate) what: &'static str,
    pub(crate) bytes: u64,
}

/// The fullest moment of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) parts: Vec<Part>,
    pub(crate) bytes: u64,
}

/// What a defence needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryPlan {
    /// Bytes of the fullest phase.
    pub(crate) peak: u64,
    /// In the order of a run.
    pub(crate) phases: Vec<Phase>,
}

impl MemoryPlan {
    /// The plan for `method` where the weights have `width` bytes a number; none for a rival of BEEAR
    /// that attacks each row by itself or aligns layers, which keep more.
    pub(crate) fn new(task: Task<'_>, method: &Defence, width: u64) -> Option<Self> {
        let (remove, bilevel) = match method {
            Defence::Beear(config) => (&config.remove, Some(config)),
            Defence::FineTuning(config) => (&config.remove, None),
            Defence::LatentAdversarial(_) | Defence::LayerConsistency(_) => return None,
        };
        let planner = Planner { task, remove, bilevel, width };
        let mut phases = vec![planner.loading()];
        phases.extend(task.generated.map(|longest| planner.generating(longest)));
        phases.extend(bilevel.map(|config| planner.inner_step(config)));
        phases.extend([planner.forward_and_backward(), planner.weights_step(), planner.saving()]);
        let peak = phases.iter().map(|phase| phase.bytes).max().unwrap_or(0);
        Some(Self { peak, phases })
    }

    /// The phase that needs most.
    pub(crate) fn fullest(&self) -> Option<&Phase> {
        self.phases.iter().max_by_key(|phase| phase.bytes)
    }
}

/// Bytes of the weights' files in `dir`; of f32 weights where there are none yet.
pub(crate) fn weight_bytes(dir: &Path, config: &DecoderConfig) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|e| e == "safetensors"));
    // A link to a file elsewhere has that file's size.
    let sizes = weights.filter_map(|file| Some(std::fs::metadata(file.path()).ok()?.len()));
    sizes.reduce(u64::saturating_add).unwrap_or((config.n_weights() as u64).saturating_mul(4))
}

/// Tokens before the first perturbed one, if there are so many that they are read once and remembered.
fn remembered(spots: &[Spot], shape: SetShape) -> usize {
    let covered = spots.iter().map(|spot| match spot.site {
        Site::Last(n_tokens) => n_tokens,
        // Where the user's words are is not known before there are rows.
        Site::First(_) | Site::UserLast(_) | Site::All => shape.prompt_tokens,
    });
    let n_past = shape.prompt_tokens.saturating_sub(covered.max().unwrap_or(0));
    let n_tokens = shape.batch(1).seq_length;
    if n_past as f64 >= LEAST_PAST * n_tokens as f64 { n_past } else { 0 }
}

struct Planner<'a> {
    task: Task<'a>,
    remove: &'a RemoveConfig,
    bilevel: Option<&'a BilevelConfig>,
    width: u64,
}

/// A phase of those parts that there are.
fn phase(name: &'static str, parts: impl IntoIterator<Item = (&'static str, u64)>) -> Phase {
    let program = ("program", PROGRAM);
    let parts = parts.into_iter().chain([program]).filter(|(_, bytes)| *bytes > 0);
    let parts: Vec<Part> = parts.map(|(what, bytes)| Part { what, bytes }).collect();
    let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
    Phase { name, parts, bytes }
}

impl Planner<'_> {
    /// All weights at `width` bytes each.
    fn weights_at(&self, width: u64) -> u64 {
        (self.task.config.n_weights() as u64).saturating_mul(width)
    }

    /// Those of the model, and of adapters beside them.
    fn weights(&self) -> (&'static str, u64) {
        let adapters = if self.has_adapters() { self.trained() } else { 0 };
        ("weights", self.weights_at(self.width).saturating_add(adapters))
    }

    fn has_adapters(&self) -> bool {
        matches!(self.task.scope.weights, TrainedWeights::Lora(_))
    }

    /// Bytes of a trained number: adapters are never in half precision.
    fn trained_width(&self) -> u64 {
        if self.has_adapters() { self.width.max(4) } else { self.width }
    }

    /// All trained weights at `width` bytes each.
    fn trained_at(&self, width: u64) -> u64 {
        (self.task.scope.n_trained(self.task.config) as u64).saturating_mul(width)
    }

    /// One copy of what is trained, be it weights or their gradients.
    fn trained(&self) -> u64 {
        self.trained_at(self.trained_width())
    }

    fn bytes(&self, numbers: Numbers) -> u64 {
        numbers.bytes(self.width)
    }

    fn is_narrow(&self) -> bool {
        self.trained_width() < 4
    }

    /// The optimiser's moments, and its copy of the weights if it has one.
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

    /// Trained weights of other moments than this step's; all others are the same memory.
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

    fn generating(&self, longest: usize) -> Phase {
        let (config, rows) = (self.task.config, self.task.safety.n_rows.min(DECODED_ROWS));
        let prompt = self.task.safety.prompt_tokens;
        let n_tokens = rows.saturating_mul(prompt.saturating_add(longest));
        let cache = config.cached(n_tokens, config.n_layers);
        let prefill =
            BatchShape { batch_size: rows, seq_length: prompt, n_keys: prompt, n_answer: rows };
        let pass = config.needed_by_inference(prefill).plus(config.logits(prefill));
        let cache = ("keys and values", self.bytes(cache));
        phase("generating answers", [self.weights(), cache, ("forward pass", self.bytes(pass))])
    }

    /// The fullest inner step of any round. The first has no moments yet, and the original model is still
    /// the one it works on.
    fn inner_step(&self, method: &BilevelConfig) -> Phase {
        // Spots take turns, so that after some rounds all repeats.
        let n_turns = 2 * method.spots.len().max(1);
        let rounds = (0..method.rounds.min(n_turns + 2)).map(|round| {
            let first = round.saturating_mul(method.perturbations_per_round);
            let counts = first..first.saturating_add(method.perturbations_per_round.min(n_turns));
            let each = counts.map(|count| self.entrapment(method, method.spots_of(count)));
            let fullest = each.max_by_key(|(prepared, kept)| prepared.saturating_add(*kept));
            self.inner_step_of(method, round, fullest.unwrap_or((0, 0)))
        });
        rounds.max_by_key(|phase| phase.bytes).unwrap_or_else(|| phase("inner step", []))
    }

    fn inner_step_of(
        &self,
        method: &BilevelConfig,
        round: usize,
        (prepared, kept): (u64, u64),
    ) -> Phase {
        let n_threads = method.entrap.threads.min(method.perturbations_per_round).max(1) as u64;
        let [original, _, best] = self.older_weights();
        let since = |first: usize, part: (&'static str, u64)| {
            if round < first { (part.0, 0) } else { part }
        };
        let prepared = ("prepared rows", prepared.saturating_mul(n_threads));
        let kept = ("activations", kept.saturating_mul(n_threads));
        let state = since(1, self.optimizer_state());
        let older = [since(1, original), since(2, best)];
        phase("inner step", [self.weights(), older[0], older[1], state, prepared, kept])
    }

    /// Bytes of all prepared rows of one perturbation, and of the activations of one step.
    fn entrapment(&self, method: &BilevelConfig, spots: &[Spot]) -> (u64, u64) {
        let (config, entrap) = (self.task.config, &method.entrap);
        let answer = self.task.safety.answer_tokens;
        let answer_tokens = entrap.target_tokens.map_or(answer, |n| n.min(answer));
        let shape = SetShape { answer_tokens, ..self.task.safety };
        let n_rows = shape.n_rows.min(entrap.steps.saturating_mul(entrap.batch_size));
        let mut batch = shape.batch(entrap.batch_size.min(shape.n_rows));
        let first = spots.iter().map(|spot| spot.layer).min().unwrap_or(0);
        let n_layers = config.n_layers.saturating_sub(first);
        let n_past = remembered(spots, shape);
        batch.seq_length -= n_past;
        let past = config.cached(n_rows.saturating_mul(n_past), n_layers);
        let n_tokens = n_rows.saturating_mul(batch.seq_length);
        let hidden = n_tokens.saturating_mul(config.d_model) as u64;
        let prepared = past.plus(Numbers { own: hidden, wide: 0 });

        let of = GradientsOf::HiddenStates;
        let layers = config.kept_by_layer(batch, of).times(n_layers);
        let kept = layers.plus(self.segments(batch, spots)).plus(config.kept_by_head(batch, of));
        let moment = self.moment(batch);
        let n_answers = if entrap.away_weight > 0.0 { 2 } else { 1 };
        (n_answers * self.bytes(prepared), n_answers * self.bytes(kept) + moment)
    }

    /// Each run of layers between perturbed ones has a table of its own.
    fn segments(&self, batch: BatchShape, spots: &[Spot]) -> Numbers {
        let mut layers: Vec<usize> = spots.iter().map(|spot| spot.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        self.task.config.kept_of_positions(batch).times(layers.len() + 1)
    }

    /// What the end of a forward pass and the start of the backward pass hold for a moment.
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
    use beear_models::{LoraConfig, Target, hf_config};

    use super::*;

    fn config() -> DecoderConfig {
        let text = r#"{"model_type": "llama", "vocab_size": 16, "hidden_size": 8,
            "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 32}"#;
        hf_config::parse(text).unwrap()
    }

    /// By hand: embedding and unembedding 2 · 128, two layers of 4 · 64 + 3 · 96 + 16, a norm of 8.
    const N_WEIGHTS: u64 = 256 + 2 * 560 + 8;

    const SET: SetShape = SetShape { n_rows: 9, prompt_tokens: 4, answer_tokens: 3 };

    fn task<'a>(config: &'a DecoderConfig, scope: &'a TrainingScope) -> Task<'a> {
        Task { config, scope, safety: SET, performance: SET, generated: None, stored: 7 }
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
        // By hand: rank 3 beside 8 to 8 and 12 to 8 in one layer of two.
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
            // Adapters are in f32 whatever the weights are.
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
        // n = 6 tokens: of the first layer nothing, of the second 2 · 48 + 3 · 48 + 3 · 72 + 4 · 72, inputs of
        // 48 and 72, two thin ones of 6 · 3; tables as without adapters.
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
        // By hand, n = 6 tokens: a layer has 6 · 48 + 4 · 48 + 3 · 72 + 5 · 72 numbers of one row; of tables
        // of 4 · 48 there is one for performance, and one more than perturbed layers, of which
        // there is one, for safety.
        assert_eq!(kept(1), 4 * (2 * 2 * (288 + 192 + 216 + 360) + 3 * 192));
    }

    #[test]
    fn perturbations_at_the_end_of_prompts_read_on_from_a_past() {
        let spots = |site: Site| [Spot { layer: 1, site }];
        assert_eq!(remembered(&spots(Site::Last(1)), SET), 3);
        assert_eq!(remembered(&spots(Site::Last(4)), SET), 0);
        assert_eq!(remembered(&spots(Site::First(1)), SET), 0);
    }

    #[test]
    fn only_what_is_known_is_planned() {
        let config = config();
        let task = task(&config, &TrainingScope::ALL);
        let rival = Defence::LatentAdversarial(LatentAdversarialConfig::new(config.size()));
        assert_eq!(MemoryPlan::new(task, &rival, 4), None);
        let control = Defence::FineTuning(FineTuningConfig::new(config.size()));
        let plan = MemoryPlan::new(task, &control, 4).expect("the control can be planned");
        assert!(plan.phases.iter().all(|phase| phase.name != "inner step"));
    }
}
