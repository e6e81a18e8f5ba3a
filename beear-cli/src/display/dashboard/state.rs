//! What the dashboard knows of a run: events in, facts out. It has no clock and no terminal.

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

/// Lines that are kept; no terminal shows more.
const N_LINES: usize = 50;

/// What is known before the first step.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The model, the method and the backend, in words.
    pub(crate) title: String,
    /// Most rounds.
    pub(crate) n_rounds: usize,
    /// Perturbations of a round.
    pub(crate) n_perturbations: usize,
    /// Steps on each.
    pub(crate) n_inner: usize,
    /// Steps on the weights in a round.
    pub(crate) n_outer: usize,
    /// What a round must keep.
    pub(crate) bounds: ValidationBounds,
    /// Whether rows are held out.
    pub(crate) watched: bool,
    /// Whether the run has checkpoints.
    pub(crate) has_checkpoints: bool,
    /// Most memory as planned, in bytes.
    pub(crate) planned_memory: Option<u64>,
}

impl Setup {
    /// What `method` will do, of a run of which nothing else is known.
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
    /// The inner loss of the first step and of the last ones.
    pub(crate) losses: (f64, f64),
    pub(crate) norm: f64,
}

/// A round that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// None if no row is held out.
    pub(crate) validation: Option<Assessment>,
    pub(crate) within_bounds: bool,
    /// Whether it is the best so far.
    pub(crate) kept: bool,
}

/// What the run does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Before the first step.
    Begins,
    /// On a perturbation of the round, counted from 1; so many steps are taken.
    Entraps { perturbation: usize, step: usize },
    /// On the weights; so many steps are taken.
    Removes { step: usize },
    /// Its steps are taken.
    Looks,
}

/// A run, as far as it has told.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) setup: Setup,
    pub(crate) inner: Curve,
    /// Terms of the outer loss on forbidden prompts and on ordinary ones.
    pub(crate) outer: [Curve; 2],
    pub(crate) terms: Option<RemovalTerms>,
    pub(crate) initial: Option<ValidationSummary>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) found: Option<Found>,
    pub(crate) lines: VecDeque<String>,
    /// The step of the newest checkpoint.
    pub(crate) saved: Option<usize>,
    /// Memory now and the most of it so far, in bytes.
    pub(crate) memory: Option<[u64; 2]>,
    /// Whether the run has been asked to stop.
    pub(crate) stopping: bool,
    n_inner: usize,
    n_outer: usize,
    n_found: usize,
    /// Steps on the perturbation that is sought.
    n_inner_here: usize,
    begun: bool,
    pace: Pace,
}

impl State {
    /// Before the first event.
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

    /// Takes an event that happened at `at`, since the process began.
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

    /// Takes what an earlier process wrote down, a line of `metrics.jsonl`.
    pub(crate) fn earlier(&mut self, line: &Value) {
        if let Ok(event) = serde_json::from_value::<Event>(line.clone()) {
            self.take(&event);
        } else if line["event"] == "round_ended" {
            // Nothing was watched.
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

    /// What the run does now.
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

    /// Steps of both levels: those taken and all.
    pub(crate) fn steps(&self) -> (usize, usize) {
        let [inner, outer] = self.totals();
        (self.n_inner.min(inner) + self.n_outer.min(outer), inner + outer)
    }

    /// How long the run will go on, as seen at `now`; none if it cannot be known yet.
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

    /// Two rounds of two perturbations of three steps, and four steps on the weights.
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

    /// The events of one round with the numbers of round `round`.
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

    /// A run whose first round is over, and that has taken one step on a perturbation of the second.
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
        // The last event came after 14 seconds, each a second after the one before. Left are 5 inner steps, 4 outer
        // ones and a look.
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
        // As it is written where nothing is watched.
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
