//! Events that the method reports while it runs. Core never logs; an [`Observer`] decides what to
//! show.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::objective::removal::RemovalTerms;
use crate::perturbation::InjectionPoint;
use crate::state::snapshot::Snapshot;
use crate::validation::{Assessment, ValidationSummary};

/// Every event an observer can receive, in the order of occurrence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one of a few events of a run: a box saves nothing")]
pub enum Event {
    /// The suspect has been validated, before any change.
    Started {
        /// Means over the suspect's held-out rows.
        validation: ValidationSummary,
    },
    /// One Adam step on `δ` has been taken.
    InnerStep {
        /// Index of the step within this perturbation, from 0.
        step: usize,
        /// Inner loss, in nats per answer token.
        loss: f64,
    },
    /// A perturbation has been found.
    Entrapped {
        /// Layers and positions where the perturbation acts.
        injection_points: Vec<InjectionPoint>,
        /// Inner loss of the first step.
        first_loss: f64,
        /// Mean inner loss of the last steps.
        last_loss: f64,
        /// Euclidean norm of all `δ`s of the perturbation as one vector.
        norm: f64,
    },
    /// One `AdamW` step on the weights has been taken.
    OuterStep {
        /// Index of the step within the run, from 0.
        step: usize,
        /// Terms of the outer loss.
        terms: RemovalTerms,
        /// Norm of the gradient over all weights, before clipping.
        gradient_norm: f64,
        /// Learning rate of the step.
        learning_rate: f64,
    },
    /// A round has ended.
    RoundEnded {
        /// Index of the round, from 0.
        round: usize,
        /// Comparison of the held-out rows with those of the suspect.
        validation: Assessment,
        /// True if the round is within bounds.
        within_bounds: bool,
        /// True if this round is the best so far.
        kept: bool,
    },
    /// The model has been out of bounds for as many rounds as
    /// [`patience`](crate::BilevelConfig::patience) allows: the run ends.
    OutOfBounds {
        /// Index of the round, from 0.
        round: usize,
    },
    /// The inner level no longer finds a perturbation that works: the stop rule has ended the run.
    NothingLeft {
        /// Index of the round, from 0.
        round: usize,
    },
}

/// A receiver of events that may end a run.
pub trait Observer {
    /// Receives an event, on the thread that runs the method.
    fn notify(&mut self, event: &Event);

    /// Decides whether the run continues. Called before the first step of a defence and after every
    /// step of either level; a step on all perturbations searched at the same time counts as one,
    /// and the baselines call it only after steps on the weights. `snapshot` returns the state from
    /// which another process can resume.
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
