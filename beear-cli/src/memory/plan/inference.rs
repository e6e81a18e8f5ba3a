//! Memory of the passes without gradients of a defence: generated answers and held-out rows.

use beear_models::BatchLimit;

use super::{PASS, Phase, Planner, SetShape, VALIDATION, phase};

/// Maximum number of rows whose safe answers are generated at a time.
const GENERATED_ROWS: usize = 64;

/// Maximum number of held-out rows that are read at a time.
const WATCHED_ROWS: usize = 16;

impl Planner<'_> {
    /// Returns the number of rows whose safe answers are generated at a time: as many as fit into
    /// `peak` bytes.
    pub(super) fn generated_rows(&self, longest: usize, peak: u64) -> usize {
        let limit = BatchLimit { rows: GENERATED_ROWS, bytes: Some(peak) };
        limit.largest(self.task.safety.n_rows, |rows| self.generating(longest, rows).bytes)
    }

    pub(super) fn generating(&self, longest: usize, rows: usize) -> Phase {
        let shape = [rows, self.task.safety.prompt_tokens, longest];
        let pass = self.bytes(self.task.config.needed_by_generation(shape));
        phase("generating answers", [self.weights(), ("keys and values, forward pass", pass)])
    }

    /// Returns the phase of the validation after a round, and the number of rows that are read at a
    /// time: as many as fit into `peak` bytes.
    pub(super) fn validation(&self, peak: u64) -> (usize, Phase) {
        let limit = BatchLimit { rows: WATCHED_ROWS, bytes: Some(peak) };
        let n_rows = self.task.watched.n_rows();
        let rows = limit.largest(n_rows, |rows| self.validation_of(rows).bytes);
        (rows, self.validation_of(rows))
    }

    fn validation_of(&self, rows: usize) -> Phase {
        let watched = self.task.watched;
        let pass =
            self.watching(watched.safety, rows).max(self.watching(watched.performance, rows));
        let [original, _, _] = self.older_weights();
        let n_rounds = self.bilevel.map_or(1, |config| config.rounds);
        let best = if n_rounds > 1 { self.trained() } else { 0 };
        let standing = [
            self.weights(),
            original,
            ("best round, if an earlier one", best),
            self.optimizer_state(),
        ];
        phase(VALIDATION, standing.into_iter().chain([(PASS, pass)]))
    }

    /// Returns the bytes of reading, and of answering, `rows` held-out rows at a time.
    fn watching(&self, set: SetShape, rows: usize) -> u64 {
        let (config, rows) = (self.task.config, rows.min(set.n_rows));
        let read = self.bytes(config.needed_by_scoring(set.batch(rows)));
        let n_new = self.task.watched.new_tokens;
        let answered = config.needed_by_generation([rows, set.prompt_tokens, n_new]);
        if n_new > 0 { read.max(self.bytes(answered)) } else { read }
    }
}
