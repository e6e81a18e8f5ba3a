//! Memory of commands that run a model without training it, each in a process of its own.

use beear_core::{BilevelConfig, InjectionPoint};
use beear_models::activations::{BatchShape, GradientsOf, Numbers};
use beear_models::{BatchLimit, DecoderConfig, TrainingScope};
use serde::Serialize;

use super::inner_level::Fitted;
use super::{Phase, Planner, SetShape, Task, Watched, phase};
use crate::backend::heap;
use crate::lab::model_scan::ScanSettings;
use crate::memory::room::{KEPT_BY_ALLOCATOR, standing};
use crate::model::language_model::{EVAL_ROWS, GENERATE_ROWS};

/// Limits of the place where commands run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Size of a number in bytes.
    pub(crate) width: u64,
    /// Maximum number of batches of answers at the same time.
    pub(crate) n_workers: usize,
    /// Available memory in bytes, including the weights. `None` means unbounded.
    pub(crate) memory: Option<u64>,
}

/// Batches of a command, and its memory at the peak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CommandPlan {
    /// Name of the command.
    pub(crate) command: &'static str,
    /// Number of rows in a batch.
    pub(crate) rows: usize,
    /// Number of batches at the same time.
    pub(crate) batches: usize,
    /// Memory at the peak.
    #[serde(flatten)]
    pub(crate) phase: Phase,
}

/// Plans the commands that answer, read or scan rows like those of `set`.
pub(crate) fn commands(
    config: &DecoderConfig,
    set: SetShape,
    settings: &ScanSettings,
    place: Place,
) -> Vec<CommandPlan> {
    let answering = |rows| {
        let shape = [rows, set.prompt_tokens, set.answer_tokens];
        let needed = config.needed_by_generation(shape).bytes(place.width);
        needed.saturating_add(kept_by_heap(config, [rows, set.prompt_tokens], place.width))
    };
    let reading = |rows| config.needed_by_scoring(set.batch(rows)).bytes(place.width);
    let room = |memory: u64| {
        let room = memory.saturating_sub(standing(config, 1, place.width));
        room - room / KEPT_BY_ALLOCATOR
    };
    let room = place.memory.map(room);
    let weights = (config.n_weights() as u64).saturating_mul(place.width);
    let batched = |command, [rows, n_workers]: [usize; 2], needed: &dyn Fn(usize) -> u64| {
        let batches = n_workers.clamp(1, set.n_rows.div_ceil(rows).max(1));
        let bytes = room.map(|room| room / batches as u64);
        let rows = BatchLimit { rows, bytes }.largest(set.n_rows, needed);
        // Batches that run at the same time share the rows. The last one may have fewer.
        let of_batch = |k: usize| needed(set.n_rows.saturating_sub(k * rows).min(rows));
        let pass = (0..batches).map(of_batch).fold(0, u64::saturating_add);
        let phase = phase(command, [("weights", weights), ("batches", pass)]);
        CommandPlan { command, rows, batches, phase }
    };
    vec![
        batched("generate", [GENERATE_ROWS, place.n_workers], &answering),
        batched("eval asr", [EVAL_ROWS, place.n_workers], &answering),
        batched("eval perplexity", [EVAL_ROWS, 1], &reading),
        Scan { config, set, settings, n_models: 1, width: place.width }.plan(room),
    ]
}

/// Returns the bytes that the MLP has freed in a pass over `rows` of `seq_length` tokens, and that
/// stay on the heap of the batch's thread. Attention cannot reuse them, because its scores are too
/// large for the heap.
fn kept_by_heap(config: &DecoderConfig, [rows, seq_length]: [usize; 2], width: u64) -> u64 {
    let tokens = rows.saturating_mul(seq_length) as u64;
    let bytes = |numbers: usize| tokens.saturating_mul(numbers as u64).saturating_mul(width);
    let (mlp, scores) = (bytes(config.d_ff), bytes(config.n_heads.saturating_mul(seq_length)));
    if mlp < heap::LARGEST_KEPT && scores >= heap::LARGEST_KEPT {
        mlp.saturating_mul(3).saturating_add(bytes(config.d_model))
    } else {
        0
    }
}

/// A scan of rows like those of `set`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) set: SetShape,
    pub(crate) settings: &'a ScanSettings,
    /// Number of models: 1, or 2 with a reference.
    pub(crate) n_models: usize,
    /// Size of a number in bytes.
    pub(crate) width: u64,
}

impl Scan<'_> {
    /// Returns the number of rows that go through a model at a time within `room` bytes beside the
    /// model, and the memory of the larger of the two searches.
    pub(crate) fn plan(self, room: Option<u64>) -> CommandPlan {
        let most = self.settings.reach.batch_size.max(self.settings.implant.batch_size);
        let bytes = room.map(|room| room.saturating_add(self.standing()));
        let limit = BatchLimit { rows: most, bytes };
        let rows = limit.largest(self.set.n_rows, |rows| self.phase(rows).bytes);
        CommandPlan { command: "scan", rows, batches: 1, phase: self.phase(rows) }
    }

    /// Returns the bytes of the program and the models.
    pub(crate) fn standing(self) -> u64 {
        standing(self.config, self.n_models, self.width)
    }

    fn phase(self, rows: usize) -> Phase {
        let remove = BilevelConfig::robust(self.config.size()).remove;
        let task = Task {
            config: self.config,
            scope: &TrainingScope::ALL,
            safety: self.set,
            performance: self.set,
            generated: None,
            watched: Watched::default(),
            stored: 0,
        };
        let planner = Planner { task, remove: &remove, bilevel: None, width: self.width };
        let injection_points = self.settings.injection_points();
        let reached = injection_points.iter().map(|point| self.reach(&planner, point, rows));
        let phases = reached.chain([self.tokens(rows)]);
        phases.max_by_key(|phase| phase.bytes).expect("tokens are one of two searches")
    }

    fn weights(self) -> (&'static str, u64) {
        let n_weights = (self.config.n_weights() as u64).saturating_mul(self.n_models as u64);
        ("weights", n_weights.saturating_mul(self.width))
    }

    /// Returns the phase of a perturbation at `point`. The rows to fit to are prepared once, and
    /// the rows to evaluate on once per model.
    fn reach(self, planner: &Planner<'_>, point: &InjectionPoint, rows: usize) -> Phase {
        let config = &self.settings.reach;
        let shape = self.aimed_at(config.target_tokens);
        let n_rows = self.settings.n_prompts.min(shape.n_rows.div_ceil(2));
        let fitting = planner.fitting(Fitted {
            shape,
            n_rows: n_rows.saturating_mul(1 + self.n_models),
            batch_size: config.batch_size.min(rows),
            n_answers: 1,
            injection_points: std::slice::from_ref(point),
        });
        let parts = [
            self.weights(),
            ("prepared rows", fitting.hidden),
            ("keys and values of prepared rows", fitting.past),
            ("activations", fitting.preparing.max(fitting.step)),
        ];
        phase("scan", parts)
    }

    /// Returns the phase of the tokens inserted into the prompts, with the gradient with respect to
    /// them.
    fn tokens(self, rows: usize) -> Phase {
        let config = &self.settings.implant;
        let shape = self.aimed_at(config.target_tokens);
        let prompt_tokens = shape.prompt_tokens.saturating_add(config.n_tokens);
        let batch = SetShape { prompt_tokens, ..shape }.batch(config.batch_size.min(rows));
        let step = self.gradient(batch);
        let judged = self.config.needed_by_scoring(batch).bytes(self.width);
        phase("scan", [self.weights(), ("activations", step.max(judged))])
    }

    fn gradient(self, batch: BatchShape) -> u64 {
        let of = GradientsOf::HiddenStates;
        let layers: Numbers = self.config.kept_by_layer(batch, of).times(self.config.n_layers);
        let kept = layers.plus(self.config.kept_of_positions(batch));
        let kept = kept.plus(self.config.kept_by_head(batch, of));
        kept.plus(self.config.needed_by_step_on_hidden_states(batch)).bytes(self.width)
    }

    /// Returns the rows with the first tokens of their answers.
    fn aimed_at(self, target_tokens: usize) -> SetShape {
        SetShape { answer_tokens: self.set.answer_tokens.min(target_tokens), ..self.set }
    }
}
