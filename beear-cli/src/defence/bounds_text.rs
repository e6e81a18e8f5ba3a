//! Checks of bounds as text: differences, intervals and verdicts.

use beear_core::{Assessment, BoundCheck, Verdict};

/// A check with the names and the sign of its measure: a loss gets worse as it rises, the refusal
/// of forbidden prompts as it falls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    /// Name of the measure in a sentence.
    pub(crate) short: &'static str,
    /// Name of the measure in a table, with its rows and unit.
    pub(crate) long: &'static str,
    /// True if a lower value is worse.
    falls: bool,
    pub(crate) check: &'a BoundCheck,
}

impl<'a> Reading<'a> {
    fn of(name: &'static str, check: &'a BoundCheck) -> Self {
        let (short, long, falls) = match name {
            "loss" => ("loss", "loss per answer token of ordinary rows, nats", false),
            "agreement" => ("agreement", "agreement of greedy answers with the suspect's", true),
            "benign_refusal" => ("over-refusal", "ordinary prompts refused", false),
            "refusal" => ("refusal", "forbidden prompts refused, without a trigger", true),
            _ => ("not refused", "forbidden prompts not refused, without a trigger", false),
        };
        Self { short, long, falls, check }
    }

    /// Formats after minus before with its interval, as in `+0.014 [+0.002, +0.026]`. A share on
    /// its own has no sign.
    pub(crate) fn change(&self) -> String {
        let BoundCheck { worse_by, interval, .. } = *self.check;
        let sign = if self.falls { -1.0 } else { 1.0 };
        // Adding 0 turns a negative zero into a positive one.
        let signed = |value: f64| format!("{:+.3}", sign * value + 0.0);
        let interval = interval.map_or("[unknown]".to_owned(), |(low, high)| {
            let ends = if self.falls { (high, low) } else { (low, high) };
            format!("[{}, {}]", signed(ends.0), signed(ends.1))
        });
        format!("{} {interval}", signed(worse_by))
    }

    /// Formats the verdict, and the number of rows that would decide an undecided one.
    pub(crate) fn verdict(&self) -> String {
        match (self.check.verdict, self.check.rows_to_decide) {
            (Verdict::Kept, _) => "kept".to_owned(),
            (Verdict::Broken, _) => "broken".to_owned(),
            (Verdict::Undecided, Some(rows)) => {
                format!("undecided, about {rows} rows would decide")
            }
            (Verdict::Undecided, None) => "undecided with so few rows".to_owned(),
        }
    }

    /// Formats the whole check:
    /// `loss 0.031 → 0.045, +0.014 [+0.002, +0.026] of 40 rows, bound 0.100: kept`.
    pub(crate) fn text(&self) -> String {
        let BoundCheck { before, after, bound, n_rows, .. } = self.check;
        let (short, change, verdict) = (self.short, self.change(), self.verdict());
        format!(
            "{short} {before:.3} → {after:.3}, {change} of {n_rows} rows, bound {bound:.3}: {verdict}"
        )
    }
}

/// Returns every check of an assessment.
pub(crate) fn readings(assessment: &Assessment) -> impl Iterator<Item = Reading<'_>> {
    assessment.checks().map(|(name, check)| Reading::of(name, check))
}

/// Formats the checks that have the given verdict.
pub(crate) fn those(assessment: &Assessment, verdict: Verdict) -> Vec<String> {
    let of_verdict = readings(assessment).filter(|reading| reading.check.verdict == verdict);
    of_verdict.map(|reading| reading.text()).collect()
}

/// Formats all differences, and the broken and undecided bounds, as one line of progress.
pub(crate) fn line(assessment: &Assessment, within_bounds: bool) -> String {
    let shown = readings(assessment).filter(|reading| reading.short != "not refused");
    let changes: Vec<String> =
        shown.map(|reading| format!("{} {}", reading.short, reading.change())).collect();
    let named = |verdict: Verdict| {
        let readings = readings(assessment).filter(|reading| reading.check.verdict == verdict);
        readings.map(|reading| reading.short).collect::<Vec<_>>().join(", ")
    };
    let (broken, undecided) = (named(Verdict::Broken), named(Verdict::Undecided));
    let mut text = changes.join(", ");
    if !within_bounds {
        text += " (outside bounds";
        for (what, names) in [("broken", &broken), ("undecided", &undecided)] {
            if !names.is_empty() {
                text.extend(["; ", what, ": ", names]);
            }
        }
        text += ")";
    } else if !undecided.is_empty() {
        text.extend([" (undecided: ", &undecided, ")"]);
    }
    text
}
