//! Memory of the inner level: rows prepared for perturbations, and a step on one of them.

use beear_core::objective::entrapment::LEAST_PAST;
use beear_core::{BilevelConfig, InjectionPoint, Positions};
use beear_models::activations::{BatchShape, GradientsOf, Numbers};

use super::{PASS, Phase, Planner, SetShape, phase};

/// Rows to which perturbations are fitted, with the settings of the fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fitted<'a> {
    /// Shape of the rows. Only the answer tokens that the fit aims at count.
    pub(super) shape: SetShape,
    /// Number of rows that are prepared and kept.
    pub(super) n_rows: usize,
    /// Number of rows in a step.
    pub(super) batch_size: usize,
    /// Number of answers to each prompt.
    pub(super) n_answers: u64,
    /// Injection points of the perturbation.
    pub(super) injection_points: &'a [InjectionPoint],
}

/// Bytes that fitting one perturbation needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fitting {
    /// Hidden states of all rows at the lowest injection point.
    pub(super) hidden: u64,
    /// Keys and values of all tokens before the first perturbed one.
    pub(super) past: u64,
    /// The forward pass that prepares a batch.
    pub(super) preparing: u64,
    /// Activations of one step.
    pub(super) step: u64,
}

impl Fitting {
    /// Returns the peak in bytes.
    fn most(self) -> u64 {
        let Self { hidden, past, preparing, step } = self;
        hidden.saturating_add(past).saturating_add(preparing.max(step))
    }
}

impl Planner<'_> {
    /// Returns the phases of the inner level in the round that needs the most memory. In the first
    /// round the optimiser has no moments yet, and the original model is still the current one.
    pub(super) fn inner_level(&self, method: &BilevelConfig) -> Vec<Phase> {
        // Injection points take turns, so that everything repeats after some rounds.
        let n_turns = 2 * method.injection_points.len().max(1);
        let rounds = (0..method.rounds.min(n_turns + 2)).map(|round| {
            let first = round.saturating_mul(method.perturbations_per_round);
            let counts = first..first.saturating_add(method.perturbations_per_round.min(n_turns));
            let each =
                counts.map(|count| self.entrapment(method, method.injection_points_of(count)));
            let fullest = each.max_by_key(|fitting| fitting.most()).unwrap_or_default();
            self.inner_level_of(method, round, fullest)
        });
        let fullest = |phases: &Vec<Phase>| phases.iter().map(|phase| phase.bytes).max();
        rounds.max_by_key(fullest).unwrap_or_default()
    }

    fn inner_level_of(&self, method: &BilevelConfig, round: usize, of: Fitting) -> Vec<Phase> {
        let n_threads = method.entrap.threads.min(method.perturbations_per_round).max(1) as u64;
        let [original, _, best] = self.older_weights();
        let since = |first: usize, part: (&'static str, u64)| {
            if round < first { (part.0, 0) } else { part }
        };
        let state = since(1, self.optimizer_state());
        let older = [since(1, original), since(2, best)];
        let each = |bytes: u64| bytes.saturating_mul(n_threads);
        let hidden = ("prepared rows", each(of.hidden));
        let past = ("keys and values of prepared rows", each(of.past));
        let standing = [self.weights(), older[0], older[1], state, hidden, past];
        let with = |name, part| phase(name, standing.into_iter().chain([part]));
        vec![
            with("inner level, preparing rows", (PASS, each(of.preparing))),
            with("inner step", ("activations", each(of.step))),
        ]
    }

    /// Returns the memory of one perturbation of `method`.
    fn entrapment(&self, method: &BilevelConfig, injection_points: &[InjectionPoint]) -> Fitting {
        let entrap = &method.entrap;
        let answer = self.task.safety.answer_tokens;
        let answer_tokens = entrap.target_tokens.map_or(answer, |n| n.min(answer));
        let shape = SetShape { answer_tokens, ..self.task.safety };
        let n_rows = shape.n_rows.min(entrap.steps.saturating_mul(entrap.batch_size));
        let n_answers = if entrap.away_weight > 0.0 { 2 } else { 1 };
        let batch_size = entrap.batch_size;
        self.fitting(Fitted { shape, n_rows, batch_size, n_answers, injection_points })
    }

    /// Returns the memory of one perturbation that is fitted to prepared rows.
    pub(super) fn fitting(&self, fitted: Fitted<'_>) -> Fitting {
        let Fitted { shape, n_rows, batch_size, n_answers, injection_points } = fitted;
        let config = self.task.config;
        let whole = shape.batch(batch_size.min(shape.n_rows));
        let first = injection_points.iter().map(|point| point.layer).min().unwrap_or(0);
        let n_layers = config.n_layers.saturating_sub(first);
        let n_past = remembered(injection_points, shape);
        let batch = BatchShape { seq_length: whole.seq_length - n_past, ..whole };
        let past = config.cached(n_rows.saturating_mul(n_past), n_layers);
        let n_tokens = n_rows.saturating_mul(batch.seq_length);
        let hidden = Numbers { own: n_tokens.saturating_mul(config.d_model) as u64, wide: 0 };

        let below = if first > 0 { config.needed_by_inference(whole) } else { Numbers::default() };
        let before = BatchShape { seq_length: n_past, n_keys: n_past, ..whole };
        let remembering = if n_past > 0 {
            // Keys and values of all layers are part of those of the prepared rows.
            config.needed_by_remembering(whole, before, 1)
        } else {
            Numbers::default()
        };

        let of = GradientsOf::HiddenStates;
        let layers = config.kept_by_layer(batch, of).times(n_layers);
        let kept = layers
            .plus(self.segments(batch, injection_points))
            .plus(config.kept_by_head(batch, of));
        let moment = self.bytes(config.needed_by_step_on_hidden_states(batch));
        let step = (n_answers * self.bytes(kept)).saturating_add(moment);
        Fitting {
            hidden: n_answers * self.bytes(hidden),
            past: n_answers * self.bytes(past),
            preparing: self.bytes(below.or_more(remembering)),
            step,
        }
    }
}

/// Returns the number of tokens before the first perturbed one, or 0 if they are too few to be
/// worth caching.
pub(super) fn remembered(injection_points: &[InjectionPoint], shape: SetShape) -> usize {
    let SetShape { prompt_tokens, leading_tokens, trailing_tokens, .. } = shape;
    let first_covered = injection_points.iter().map(|point| match point.positions {
        Positions::Last(n_tokens) => prompt_tokens.saturating_sub(n_tokens),
        Positions::First(_) => leading_tokens.min(prompt_tokens.saturating_sub(1)),
        Positions::UserLast(n_tokens) => {
            let end = prompt_tokens.saturating_sub(trailing_tokens);
            end.saturating_sub(n_tokens).max(leading_tokens.min(end))
        }
        Positions::All => 0,
    });
    let n_past = first_covered.min().unwrap_or(0);
    let n_tokens = shape.batch(1).seq_length;
    if n_past as f64 >= LEAST_PAST * n_tokens as f64 { n_past } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 prompt tokens, with 11 before the user's words and 2 after them.
    const SET: SetShape = SetShape {
        n_rows: 9,
        prompt_tokens: 20,
        answer_tokens: 3,
        leading_tokens: 11,
        trailing_tokens: 2,
    };

    #[test]
    fn tokens_before_the_first_perturbed_one_are_remembered() {
        let of = |positions: &[Positions]| {
            let injection_points: Vec<InjectionPoint> =
                positions.iter().map(|&positions| InjectionPoint { layer: 1, positions }).collect();
            remembered(&injection_points, SET)
        };
        assert_eq!(of(&[Positions::Last(5)]), 15);
        assert_eq!(of(&[Positions::UserLast(5)]), 13);
        assert_eq!(
            of(&[Positions::First(5)]),
            11,
            "a system prompt stands before the user's words"
        );
        assert_eq!(of(&[Positions::Last(5), Positions::First(5)]), 11);
        assert_eq!(of(&[Positions::Last(17)]), 0, "3 of 22 tokens are not worth it");
        assert_eq!(of(&[Positions::First(5), Positions::All]), 0);
        assert_eq!(
            of(&[Positions::UserLast(50)]),
            11,
            "the positions end where the user's words begin"
        );
    }
}
