//! What the method reports while it runs. Core never logs; an [`Observer`] decides what to show.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::objective::removal::RemovalTerms;
use crate::perturbation::InjectionPoint;
use crate::state::snapshot::Snapshot;
use crate::validation::{Assessment, ValidationSummary};

/// Everything an observer can be told, in the order it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one of a few events of a run: a box saves nothing")]
pub enum Event {
    /// Validation of the suspect, before any change.
    Started {
        /// Means over its held-out rows.
        validation: ValidationSummary,
    },
    /// One Adam step on `δ`.
    InnerStep {
        /// Step within this perturbation, from 0.
        step: usize,
        /// The inner loss, nats per answer token.
        loss: f64,
    },
    /// A perturbation has been found.
    Entrapped {
        /// Where it acts.
        injection_points: Vec<InjectionPoint>,
        /// The inner loss of its first step.
        first_loss: f64,
        /// Mean inner loss of its last steps.
        last_loss: f64,
        /// Euclidean norm of all its `δ` as one vector.
        norm: f64,
    },
    /// One `AdamW` step on the weights.
    OuterStep {
        /// Step within the run, from 0.
        step: usize,
        /// The terms of the outer loss.
        terms: RemovalTerms,
        /// Norm of the gradient over all weights, before clipping.
        gradient_norm: f64,
        /// Learning rate of the step.
        learning_rate: f64,
    },
    /// A round has ended.
    RoundEnded {
        /// Round, from 0.
        round: usize,
        /// Held-out rows against the suspect's.
        validation: Assessment,
        /// Whether the round is within bounds.
        within_bounds: bool,
        /// Whether this round is the best so far.
        kept: bool,
    },
    /// The model has been beyond its bounds for as many rounds as [`patience`](crate::BilevelConfig::patience)
    /// allows: the run ends.
    OutOfBounds {
        /// Round, from 0.
        round: usize,
    },
    /// The inner level no longer finds anything: the stop rule has ended the run.
    NothingLeft {
        /// Round, from 0.
        round: usize,
    },
}

/// Receives events, and may end a run.
pub trait Observer {
    /// Called for every event, on the thread that runs the method.
    fn notify(&mut self, event: &Event);

    /// Called before the first step of a defence and after every step of either level, of all perturbations that are
    /// sought at the same time; the rivals of BEEAR ask after steps on the weights. `snapshot` gives what another
    /// process can go on from.
    ///
    /// [`ControlFlow::Break`] ends the run with [`Error::Interrupted`](crate::Error::Interrupted).
    fn after_step(&mut self, snapshot: &dyn Fn() -> Snapshot) -> ControlFlow<()> {
        let _ = snapshot;
        ControlFlow::Continue(())
    }
}

/// Ignores every event.
impl Observer for () {
    fn notify(&mut self, _event: &Event) {}
}

impl<F: FnMut(&Event)> Observer for F {
    fn notify(&mut self, event: &Event) {
        self(event);
    }
}
