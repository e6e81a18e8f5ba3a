//! The cheapest change of a recipe that makes a defence fit into memory.
//!
//! Changes are tried in this order, each on top of all earlier ones, until the plan fits: one
//! thread, then activation checkpointing (both only cost time); batches halved down to one row
//! (noisier steps); the optimiser's state in bf16, then in 8 bits (stochastic rounding); no
//! divergence from the original model (ordinary answers are kept less well); adapters in place of
//! the weights (all updates then have low rank). Finally every change that turns out not to be
//! needed is undone.

use beear_core::config::OptimizerState;
use beear_core::{BilevelConfig, Defence, RemoveConfig};
use beear_models::{LoraConfig, TrainedWeights, TrainingScope};

use crate::memory::plan::{MemoryPlan, Task};

/// Settings that cost memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    /// Threads and rows of an inner step, for BEEAR only.
    inner: Option<[usize; 2]>,
    /// Safety and performance rows of an outer step.
    outer: [usize; 2],
    /// Number of threads that share these rows.
    outer_threads: usize,
    checkpointing: bool,
    optimizer_state: OptimizerState,
    divergence_weight: f64,
    /// True if adapters are trained in place of the weights.
    adapters: bool,
}

/// A change that makes a defence fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fit {
    /// Assignments for `--set`. The list is empty if the defence fits without a change.
    pub(crate) assignments: Vec<String>,
    /// Memory plan with these assignments.
    pub(crate) plan: MemoryPlan,
}

/// Returns the cheapest change with which `method` needs at most `memory` bytes, if there is one.
pub(crate) fn cheapest(task: Task<'_>, method: &Defence, width: u64, memory: u64) -> Option<Fit> {
    let start = Settings::of(method)?;
    let weights = TrainedWeights::Lora(LoraConfig::default());
    let adapters = TrainingScope { weights, layers: task.scope.layers.clone() };
    let plan = |settings: &Settings| {
        let scope = if settings.adapters { &adapters } else { task.scope };
        MemoryPlan::new(Task { scope, ..task }, &settings.put_into(method), width)
    };
    let fits = |settings: &Settings| plan(settings).is_some_and(|plan| plan.peak <= memory);
    let with_adapters = |settings| Settings { adapters: true, ..settings };
    let trains_weights = task.scope.weights == TrainedWeights::Full;
    let last = candidates(start).map(with_adapters).filter(|_| trains_weights);
    let mut settings = candidates(start).chain(last).find(|settings| fits(settings))?;
    for undo in start.undoing() {
        let undone = undo(settings);
        if fits(&undone) {
            settings = undone;
        }
    }
    Some(Fit { assignments: settings.assignments(start), plan: plan(&settings)? })
}

/// Returns the candidates from the cheapest to the most expensive. The first is unchanged.
fn candidates(start: Settings) -> impl Iterator<Item = Settings> {
    let inner = start.inner.map(|[_, rows]| [1, rows]);
    let single = Settings { inner, outer_threads: 1, ..start };
    let largest = start.outer.into_iter().chain(start.inner.map(|[_, rows]| rows)).max();
    let n_halvings = largest.unwrap_or(1).max(1).ilog2() + 1;
    let checkpointed = Settings { checkpointing: true, ..single };
    let states = smaller_states(start.optimizer_state);
    let weights = [start.divergence_weight, 0.0];
    let all = weights.into_iter().flat_map(move |divergence_weight| {
        states.iter().flat_map(move |&optimizer_state| {
            (0..=n_halvings).map(move |n| {
                let halved = |rows: usize| (rows >> n).max(1);
                Settings {
                    inner: single.inner.map(|[threads, rows]| [threads, halved(rows)]),
                    outer: single.outer.map(halved),
                    optimizer_state,
                    divergence_weight,
                    ..checkpointed
                }
            })
        })
    });
    [start, single].into_iter().chain(all)
}

/// Returns `state` and the smaller ones.
fn smaller_states(state: OptimizerState) -> &'static [OptimizerState] {
    use OptimizerState::{BF16, EightBit, F32};
    match state {
        F32 => &[F32, BF16, EightBit],
        BF16 => &[BF16, EightBit],
        EightBit => &[EightBit],
    }
}

impl Settings {
    fn of(method: &Defence) -> Option<Self> {
        let (remove, inner) = match method {
            Defence::Beear(BilevelConfig { entrap, remove, .. }) => {
                (remove, Some([entrap.threads, entrap.batch_size]))
            }
            Defence::FineTuning(config) => (&config.remove, None),
            Defence::LatentAdversarial(_) | Defence::LayerConsistency(_) => return None,
        };
        Some(Self {
            inner,
            outer: [remove.safety_batch_size, remove.performance_batch_size],
            outer_threads: remove.threads,
            checkpointing: remove.activation_checkpointing,
            optimizer_state: remove.optimizer_state,
            divergence_weight: remove.divergence_weight,
            adapters: false,
        })
    }

    /// Returns `method` with these settings.
    fn put_into(&self, method: &Defence) -> Defence {
        let mut method = method.clone();
        match &mut method {
            Defence::Beear(config) => {
                if let Some(inner) = self.inner {
                    [config.entrap.threads, config.entrap.batch_size] = inner;
                }
                self.put_into_outer(&mut config.remove);
            }
            Defence::FineTuning(config) => self.put_into_outer(&mut config.remove),
            Defence::LatentAdversarial(_) | Defence::LayerConsistency(_) => {}
        }
        method
    }

    fn put_into_outer(&self, remove: &mut RemoveConfig) {
        [remove.safety_batch_size, remove.performance_batch_size] = self.outer;
        remove.threads = self.outer_threads;
        remove.activation_checkpointing = self.checkpointing;
        remove.optimizer_state = self.optimizer_state;
        remove.divergence_weight = self.divergence_weight;
    }

    /// Returns functions that undo one change each, the most expensive change first.
    fn undoing(self) -> [Box<dyn Fn(Self) -> Self>; 9] {
        let start = self;
        let inner = move |place: usize| {
            move |mut settings: Self| {
                if let (Some(changed), Some(old)) = (&mut settings.inner, start.inner) {
                    changed[place] = old[place];
                }
                settings
            }
        };
        let outer = move |place: usize| {
            move |mut settings: Self| {
                settings.outer[place] = start.outer[place];
                settings
            }
        };
        [
            Box::new(|s| Self { adapters: false, ..s }),
            Box::new(move |s| Self { divergence_weight: start.divergence_weight, ..s }),
            Box::new(move |s| Self { optimizer_state: start.optimizer_state, ..s }),
            Box::new(outer(1)),
            Box::new(outer(0)),
            Box::new(inner(1)),
            Box::new(move |s| Self { checkpointing: start.checkpointing, ..s }),
            Box::new(inner(0)),
            Box::new(move |s| Self { outer_threads: start.outer_threads, ..s }),
        ]
    }

    /// Returns the differences from `start` as assignments for `--set`.
    fn assignments(self, start: Self) -> Vec<String> {
        let mut changed = Vec::new();
        let mut note = |differs: bool, text: String| changed.extend(differs.then_some(text));
        if let (Some([threads, rows]), Some([old_threads, old_rows])) = (self.inner, start.inner) {
            note(threads != old_threads, format!("method.entrap.threads={threads}"));
            note(rows != old_rows, format!("method.entrap.batch_size={rows}"));
        }
        let ([safety, performance], [old_safety, old_performance]) = (self.outer, start.outer);
        note(safety != old_safety, format!("method.remove.safety_batch_size={safety}"));
        note(
            performance != old_performance,
            format!("method.remove.performance_batch_size={performance}"),
        );
        let threads = self.outer_threads;
        note(threads != start.outer_threads, format!("method.remove.threads={threads}"));
        let checkpointing = self.checkpointing != start.checkpointing;
        note(checkpointing, "method.remove.activation_checkpointing=true".to_owned());
        let name = match self.optimizer_state {
            OptimizerState::F32 => "f32",
            OptimizerState::BF16 => "bf16",
            OptimizerState::EightBit => "8bit",
        };
        let rounded = self.optimizer_state != start.optimizer_state;
        note(rounded, format!("method.remove.optimizer_state={name}"));
        let lost = (self.divergence_weight - start.divergence_weight).abs() > 0.0;
        note(lost, "method.remove.divergence_weight=0.0".to_owned());
        note(self.adapters, "train.weights=lora".to_owned());
        changed
    }
}

#[cfg(test)]
mod tests {
    use beear_models::checkpoint::hf_config;

    use super::*;
    use crate::memory::plan::{Generated, SetShape, Watched};

    /// The published shape of Llama 2 7B.
    const LLAMA_2: &str = r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 4096}"#;

    const SET: SetShape = SetShape {
        n_rows: 512,
        prompt_tokens: 128,
        answer_tokens: 64,
        leading_tokens: 0,
        trailing_tokens: 0,
    };

    fn with_memory(gib: u64) -> Option<Fit> {
        let config = hf_config::parse(LLAMA_2).unwrap();
        let stored = 2 * config.n_weights() as u64;
        let task = Task {
            config: &config,
            scope: &TrainingScope::ALL,
            safety: SET,
            performance: SET,
            generated: Some(Generated { longest: 64, rows: None }),
            watched: Watched { safety: SET, performance: SET, new_tokens: 0 },
            stored,
        };
        let method = Defence::Beear(BilevelConfig::robust(config.size()));
        cheapest(task, &method, 4, gib << 30)
    }

    #[test]
    fn what_fits_is_not_changed() {
        assert_eq!(with_memory(10_000).unwrap().assignments, Vec::<String>::new());
    }

    #[test]
    fn what_changes_the_result_least_comes_first() {
        let mut dearest = 0;
        for gib in (30..400).rev().step_by(2) {
            let Some(Fit { assignments, plan }) = with_memory(gib) else { continue };
            assert!(plan.peak <= gib << 30, "{gib}");
            let has = |word: &str| assignments.iter().any(|text| text.contains(word));
            let price = [
                has("activation_checkpointing"),
                has("batch_size"),
                has("bf16"),
                has("8bit"),
                has("divergence_weight"),
                has("lora"),
            ];
            let price = price.iter().rposition(|changed| *changed).map_or(0, |last| last + 1);
            assert!(price >= dearest, "{gib}: {assignments:?}");
            dearest = price;
        }
        assert_eq!(dearest, 6);
    }

    #[test]
    fn weights_that_do_not_fit_cannot_be_helped() {
        assert_eq!(with_memory(20), None);
    }
}
