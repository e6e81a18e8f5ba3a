//! State of the dashboard, computed from the events of a run. It has no clock and no terminal.

use std::collections::VecDeque;
use std::time::Duration;

use beear_core::config::ValidationBounds;
use beear_core::objective::removal::RemovalTerms;
use beear_core::{Assessment, BilevelConfig, Defence, Event, InjectionPoint, ValidationSummary};
use serde_json::Value;

use super::curve::Curve;
use super::pace::{Pace, Work};
use crate::display::event_line::event_line;
use crate::display::terminal::harmless_line;

/// Maximum number of lines that are kept. No terminal shows more.
const N_LINES: usize = 50;

/// Facts about a run that are known before the first step.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Names of the model, the method and the backend.
    pub(crate) title: String,
    /// Maximum number of rounds.
    pub(crate) n_rounds: usize,
    /// Number of perturbations in a round.
    pub(crate) n_perturbations: usize,
    /// Number of steps on each perturbation.
    pub(crate) n_inner: usize,
    /// Number of steps on the weights in a round.
    pub(crate) n_outer: usize,
    /// Bounds that a round must keep.
    pub(crate) bounds: ValidationBounds,
    /// True if rows are held out.
    pub(crate) watched: bool,
    /// True if the run writes checkpoints.
    pub(crate) has_checkpoints: bool,
    /// Planned peak memory in bytes.
    pub(crate) planned_memory: Option<u64>,
}

impl Setup {
    /// Returns the facts about a run of `method` of which nothing else is known.
    pub(crate) fn of(method: &Defence) -> Self {
        let (counts, bounds) = match method {
            Defence::Beear(BilevelConfig {
                rounds,
                perturbations_per_round,
                entrap,
                remove,
                bounds,
                ..
            }) => ([*rounds, *perturbations_per_round, entrap.steps, remove.steps], *bounds),
            Defence::LatentAdversarial(config) => ([1, 0, 0, config.remove.steps], config.bounds),
            Defence::LayerConsistency(config) => ([1, 0, 0, config.remove.steps], config.bounds),
            Defence::FineTuning(config) => ([1, 0, 0, config.remove.steps], config.bounds),
        };
        let [n_rounds, n_perturbations, n_inner, n_outer] = counts;
        Self {
            title: String::new(),
            n_rounds,
            n_perturbations,
            n_inner,
            n_outer,
            bounds,
            watched: true,
            has_checkpoints: false,
            planned_memory: None,
        }
    }
}

/// A perturbation that has been found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) injection_points: Vec<InjectionPoint>,
    /// Inner loss of the first step, and of the last steps.
    pub(crate) losses: (f64, f64),
    pub(crate) norm: f64,
}

/// A completed round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Checks of the held-out rows, or `None` if no row is held out.
    pub(crate) validation: Option<Assessment>,
    pub(crate) within_bounds: bool,
    /// True if the round is the best so far.
    pub(crate) kept: bool,
}

/// Current phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Before the first step.
    Begins,
    /// On perturbation `perturbation` of the round, counted from 1, after `step` steps.
    Entraps { perturbation: usize, step: usize },
    /// On the weights, after `step` steps.
    Removes { step: usize },
    /// All steps of the round are done, and the round is being validated.
    Looks,
}

/// State of a run after its events so far.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) setup: Setup,
    pub(crate) inner: Curve,
    /// Terms of the outer loss on forbidden and on ordinary prompts.
    pub(crate) outer: [Curve; 2],
    pub(crate) terms: Option<RemovalTerms>,
    pub(crate) initial: Option<ValidationSummary>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) found: Option<Found>,
    pub(crate) lines: VecDeque<String>,
    /// Step of the newest checkpoint.
    pub(crate) saved: Option<usize>,
    /// Current and peak memory in bytes.
    pub(crate) memory: Option<[u64; 2]>,
    /// True if a stop has been requested.
    pub(crate) stopping: bool,
    n_inner: usize,
    n_outer: usize,
    n_found: usize,
    /// Number of steps on the current perturbation.
    n_inner_here: usize,
    begun: bool,
    pace: Pace,
}

impl State {
    /// Returns the state before the first event.
    pub(crate) fn new(setup: Setup) -> Self {
        let title = harmless_line(&setup.title);
        Self {
            setup: Setup { title, ..setup },
            inner: Curve::default(),
            outer: Default::default(),
            terms: None,
            initial: None,
            rounds: Vec::new(),
            found: None,
            lines: VecDeque::new(),
            saved: None,
            memory: None,
            stopping: false,
            n_inner: 0,
            n_outer: 0,
            n_found: 0,
            n_inner_here: 0,
            begun: false,
            pace: Pace::default(),
        }
    }

    /// Adds an event that happened at `at`, counted from the start of the dashboard.
    pub(crate) fn event(&mut self, event: &Event, at: Duration) {
        let work = match event {
            Event::InnerStep { .. } => Some(Work::Inner),
            Event::OuterStep { .. } => Some(Work::Outer),
            Event::RoundEnded { .. } => Some(Work::Look),
            _ => None,
        };
        self.pace.ended(work, at);
        self.take(event);
    }

    /// Adds a line of `metrics.jsonl` from an earlier process.
    pub(crate) fn earlier(&mut self, line: &Value) {
        if let Ok(event) = serde_json::from_value::<Event>(line.clone()) {
            self.take(&event);
        } else if line["event"] == "round_ended" {
            // A run without held-out rows writes no validation.
            self.round_ended(&Round { validation: None, within_bounds: true, kept: true });
        } else if line["event"] == "rolled_back" {
            self.say(&format!("back to step {}, at half the learning rates", line["step"]));
        }
    }

    fn take(&mut self, event: &Event) {
        self.begun = true;
        match event {
            Event::Started { validation } => self.initial = Some(*validation),
            Event::InnerStep { step, loss } => {
                self.n_inner += 1;
                self.n_inner_here = step + 1;
                self.inner.push(*loss);
            }
            Event::Entrapped { injection_points, first_loss, last_loss, norm } => {
                self.n_found += 1;
                self.n_inner_here = 0;
                let losses = (*first_loss, *last_loss);
                self.found =
                    Some(Found { injection_points: injection_points.clone(), losses, norm: *norm });
            }
            Event::OuterStep { terms, .. } => {
                self.n_outer += 1;
                self.terms = Some(*terms);
                self.outer[0].push(terms.safety);
                self.outer[1].push(terms.performance);
            }
            Event::RoundEnded { validation, within_bounds, kept, .. } => {
                let validation = self.setup.watched.then_some(*validation);
                self.round_ended(&Round { validation, within_bounds: *within_bounds, kept: *kept });
            }
            Event::OutOfBounds { .. } | Event::NothingLeft { .. } => {}
        }
        if let Some(line) = event_line(event, self.setup.watched) {
            self.say(&line);
        }
    }

    fn round_ended(&mut self, round: &Round) {
        if round.kept {
            for earlier in &mut self.rounds {
                earlier.kept = false;
            }
        }
        self.rounds.push(*round);
    }

    /// Adds a line for people.
    pub(crate) fn say(&mut self, line: &str) {
        if self.lines.len() == N_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(harmless_line(line));
    }

    /// Returns the current phase.
    pub(crate) fn phase(&self) -> Phase {
        let Setup { n_perturbations, n_outer, .. } = self.setup;
        let before = self.rounds.len();
        let found = self.n_found.saturating_sub(before * n_perturbations);
        let step = self.n_outer.saturating_sub(before * n_outer);
        if !self.begun {
            Phase::Begins
        } else if before >= self.setup.n_rounds || step >= n_outer {
            Phase::Looks
        } else if found < n_perturbations {
            Phase::Entraps { perturbation: found + 1, step: self.n_inner_here }
        } else {
            Phase::Removes { step }
        }
    }

    /// Returns the number of completed steps and of all steps, over both levels.
    pub(crate) fn steps(&self) -> (usize, usize) {
        let [inner, outer] = self.totals();
        (self.n_inner.min(inner) + self.n_outer.min(outer), inner + outer)
    }

    /// Estimates the remaining time at `now`, or returns `None` if it cannot be known yet.
    pub(crate) fn remaining(&self, now: Duration) -> Option<Duration> {
        let [inner, outer] = self.totals();
        let left = [
            (Work::Inner, inner.saturating_sub(self.n_inner)),
            (Work::Outer, outer.saturating_sub(self.n_outer)),
            (Work::Look, self.setup.n_rounds.saturating_sub(self.rounds.len())),
        ];
        self.pace.remaining(left, now)
    }

    fn totals(&self) -> [usize; 2] {
        let Setup { n_rounds, n_perturbations, n_inner, n_outer, .. } = self.setup;
        [n_rounds * n_perturbations * n_inner, n_rounds * n_outer]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use beear_core::{
        DecoderSize, ForbiddenOutcome, OrdinaryOutcome, Positions, ValidationMetrics,
    };
    use serde_json::json;

    use super::*;

    fn bounds() -> ValidationBounds {
        let size = DecoderSize { n_layers: 6, d_model: 64 };
        BilevelConfig::robust(size).bounds
    }

    fn rows(loss: f64, n_benign: usize) -> ValidationMetrics {
        let ordinary = |id| OrdinaryOutcome {
            id,
            loss: 4.0 * loss,
            end_loss: loss,
            n_tokens: 4,
            refused: (id as usize) < n_benign,
            answer: Some(vec![2, 3, id as u32]),
        };
        let forbidden = |id| ForbiddenOutcome { id, refused: id > 0 };
        ValidationMetrics {
            ordinary: (0..40).map(ordinary).collect(),
            forbidden: (0..20).map(forbidden).collect(),
        }
    }

    /// Two rounds, each with two perturbations of three steps and four steps on the weights.
    pub(crate) fn setup() -> Setup {
        Setup {
            title: "suspect · beear · flex".to_owned(),
            n_rounds: 2,
            n_perturbations: 2,
            n_inner: 3,
            n_outer: 4,
            bounds: bounds(),
            watched: true,
            has_checkpoints: true,
            planned_memory: Some(420 << 20),
        }
    }

    /// Returns the events of one round with the numbers of round `round`.
    pub(crate) fn events_of_round(round: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for perturbation in 0..2 {
            let loss = |step: usize| 4.0 / (1 + step + perturbation) as f64;
            events.extend((0..3).map(|step| Event::InnerStep { step, loss: loss(step) }));
            let injection_points = vec![
                InjectionPoint { layer: 1, positions: Positions::Last(5) },
                InjectionPoint { layer: 3, positions: Positions::First(5) },
            ];
            let (first_loss, last_loss) = (loss(0), loss(2));
            events.push(Event::Entrapped { injection_points, first_loss, last_loss, norm: 7.25 });
        }
        events.extend((0..4).map(|step| Event::OuterStep {
            step: 4 * round + step,
            terms: RemovalTerms {
                safety: 2.0 / (1 + step) as f64,
                performance: 0.25,
                divergence: 0.125,
                penalty: None,
            },
            gradient_norm: 1.0,
            learning_rate: 1e-3,
        }));
        let validation = Assessment::new(&rows(0.25, 1), &rows(0.375, round), &bounds());
        events.push(Event::RoundEnded { round, validation, within_bounds: round == 0, kept: true });
        events
    }

    /// Returns a run that has completed its first round and one step on a perturbation of the
    /// second.
    pub(crate) fn in_round_two() -> State {
        let mut state = State::new(setup());
        let validation = rows(0.25, 1).summary();
        let begun = std::iter::once(Event::Started { validation });
        let second = events_of_round(1).into_iter().take(1);
        let events = begun.chain(events_of_round(0)).chain(second);
        for (second, event) in events.enumerate() {
            state.event(&event, Duration::from_secs(second as u64));
        }
        state.saved = Some(10);
        state.memory = Some([312 << 20, 400 << 20]);
        state
    }

    #[test]
    fn the_phase_follows_the_events() {
        let mut state = State::new(setup());
        assert_eq!(state.phase(), Phase::Begins);
        let mut phases = Vec::new();
        for event in events_of_round(0) {
            state.event(&event, Duration::ZERO);
            phases.push(state.phase());
        }
        let entraps = |perturbation, step| Phase::Entraps { perturbation, step };
        assert_eq!(phases[..4], [entraps(1, 1), entraps(1, 2), entraps(1, 3), entraps(2, 0)]);
        assert_eq!(phases[7..10], [0, 1, 2].map(|step| Phase::Removes { step }));
        assert_eq!(phases[11..], [Phase::Looks, entraps(1, 0)]);
        assert_eq!(state.steps(), (10, 20));
    }

    #[test]
    fn the_rest_takes_as_long_as_steps_have_taken() {
        let state = in_round_two();
        // The last event came after 14 seconds, and each event one second after the one before. 5
        // inner steps, 4 outer steps and one validation are left.
        assert_eq!(state.remaining(Duration::from_secs(14)), Some(Duration::from_secs(10)));
    }

    #[test]
    fn what_an_earlier_process_wrote_down_counts_as_if_it_were_told_now() {
        let (mut told, mut read) = (State::new(setup()), State::new(setup()));
        for event in events_of_round(0) {
            told.event(&event, Duration::ZERO);
            read.earlier(&serde_json::to_value(&event).unwrap());
        }
        assert_eq!((told.phase(), told.steps()), (read.phase(), read.steps()));
        assert_eq!(told.inner.points(), read.inner.points());
        assert_eq!(told.lines, read.lines);
        read.earlier(&json!({"event": "rolled_back", "step": 3, "rate_factor": 0.5}));
        assert_eq!(read.lines.back().unwrap(), "back to step 3, at half the learning rates");
        // A run without held-out rows writes its rounds like this.
        read.earlier(&json!({"event": "round_ended", "round": 1, "validation": null}));
        assert_eq!((read.rounds.len(), read.phase()), (2, Phase::Looks));
    }

    #[test]
    fn the_best_round_is_one_and_lines_command_no_terminal() {
        let mut state = State::new(setup());
        for event in events_of_round(0).into_iter().chain(events_of_round(1)) {
            state.event(&event, Duration::ZERO);
        }
        assert_eq!(state.rounds.iter().filter(|round| round.kept).count(), 1);
        state.say("a\u{1b}[2J\nb");
        assert_eq!(state.lines.back().unwrap(), "a\\u{1b}[2J\\nb");
        for _ in 0..100 {
            state.say("again");
        }
        assert_eq!(state.lines.len(), N_LINES);
    }
}
