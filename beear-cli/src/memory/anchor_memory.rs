//! Rows of a defence as shapes for the memory plan, and the batches that the plan allows.

use anyhow::Result;
use beear_core::{AnchorSets, Example, SafetyExample};
use beear_models::{Checkpoint, TrainingScope};
use burn::tensor::backend::AutodiffBackend;

use crate::backend::width_of;
use crate::memory::plan::{Generated, MemoryPlan, RowShape, SetShape, Task, Watched, weight_bytes};
use crate::model::loaded::{Loaded, Prompts, Request};
use crate::recipe::Recipe;

/// Returns the shape of an ordinary row.
fn row(example: &Example) -> RowShape {
    let Example { prompt, user, answer, .. } = example;
    RowShape { prompt: prompt.len(), user: *user, answer: answer.len() }
}

/// Returns the shape of a forbidden row with the longer of its two answers.
pub(crate) fn safety_row(example: &SafetyExample) -> RowShape {
    let SafetyExample { prompt, user, safe, unwanted, .. } = example;
    RowShape { prompt: prompt.len(), user: *user, answer: safe.len().max(unwanted.len()) }
}

/// Describes the held-out rows, to which the model generates up to `new_tokens` tokens.
pub(crate) fn watched(
    safety: &[SafetyExample],
    performance: &[Example],
    new_tokens: usize,
) -> Watched {
    let safety = SetShape::longest(safety.iter().map(safety_row));
    Watched { safety, performance: SetShape::longest(performance.iter().map(row)), new_tokens }
}

/// Describes a defence of `sets` to the memory plan.
pub(crate) fn task<'a>(
    sets: &AnchorSets,
    watched: Watched,
    generated: Option<Generated>,
    (checkpoint, scope): (&'a Checkpoint, &'a TrainingScope),
) -> Task<'a> {
    let AnchorSets { safety, performance } = sets;
    Task {
        config: &checkpoint.config,
        scope,
        safety: SetShape::longest(safety.iter().map(safety_row)),
        performance: SetShape::longest(performance.iter().map(row)),
        generated,
        watched,
        stored: weight_bytes(&checkpoint.dir, &checkpoint.config),
    }
}

/// Returns the plan of the recipe's method, or of ordinary fine-tuning if the method cannot be
/// planned.
pub(crate) fn least_plan<B: AutodiffBackend>(
    task: Task<'_>,
    recipe: &Recipe,
) -> Result<MemoryPlan> {
    let method = recipe.method(task.config.size())?;
    Ok(MemoryPlan::least(task, &method, width_of::<B>()))
}

/// Describes the safe answers to the `missing` requests, and how many are generated at a time. That
/// number follows from the memory for training, so that a resumed run has the same.
///
/// # Errors
///
/// If a request cannot be encoded, or is longer than the context.
pub(crate) fn generated<'a, B: AutodiffBackend>(
    missing: &[Request],
    ordinary: impl Iterator<Item = &'a Example>,
    loaded: &Loaded<B>,
    recipe: &Recipe,
) -> Result<Option<Generated>> {
    if missing.is_empty() {
        return Ok(None);
    }
    let Loaded { checkpoint, text, .. } = loaded;
    let config = &checkpoint.config;
    let scope = recipe.scope(config.n_layers)?;
    let longest = recipe.max_new_tokens;
    let Prompts { tokens, users } = text.prompts(missing, config.max_seq_length)?;
    let rows = tokens.iter().zip(users);
    let rows = rows.map(|(tokens, user)| RowShape { prompt: tokens.len(), user, answer: longest });
    let task = Task {
        config,
        scope: &scope,
        safety: SetShape::longest(rows),
        performance: SetShape::longest(ordinary.map(row)),
        generated: Some(Generated { longest, rows: None }),
        watched: Watched::default(),
        stored: weight_bytes(&checkpoint.dir, config),
    };
    let rows = least_plan::<B>(task, recipe)?.generated_rows;
    Ok(Some(Generated { longest, rows: Some(rows) }))
}
