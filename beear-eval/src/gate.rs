//! Release gates: bounds that a model must satisfy, checked against the ends of confidence
//! intervals instead of point estimates.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::compare::{ComparedModels, Comparison};
use crate::measure::Estimate;

/// Error of parsing or checking a gate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GateError {
    /// A term is not a bound.
    #[error("`{term}` is no bound")]
    Malformed {
        /// Text of the term.
        term: String,
    },
    /// A bounded measure was not measured.
    #[error("`{name}` was not measured in both runs")]
    NotMeasured {
        /// Name of the measure.
        name: String,
    },
}

impl GateError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => {
                "write bounds as asr<=0.05,refusal>=0.98,utility_drop<=0.02 with a number each"
            }
            Self::NotMeasured { .. } => "run the evaluation that measures it on both models",
        }
    }
}

/// Allowed side of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Side {
    AtMost,
    AtLeast,
}

/// Bounded quantity of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Bounded {
    After,
    Drop,
    Rise,
}

/// Bound on a measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Term {
    text: String,
    name: String,
    bounded: Bounded,
    side: Side,
    bound: f64,
}

/// Set of bounds, all of which must be satisfied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    terms: Vec<Term>,
}

/// Result of checking a bound against one measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Text of the bound.
    pub bound: String,
    /// Name of the scorer.
    pub by: String,
    /// Estimate of the bounded quantity.
    pub estimate: Estimate,
    /// True if the whole interval satisfies the bound and the two models differ.
    pub kept: bool,
}

impl Gate {
    /// Parses bounds such as `asr<=0.05,over_refusal<=0.02,utility_drop<=0.02`. A bound is the name
    /// of a measure, alone or with `_drop` (before minus after) or `_rise` (after minus before),
    /// `<=` or `>=`, and a number.
    ///
    /// # Errors
    ///
    /// Returns [`GateError::Malformed`] if a term is not a bound.
    pub fn parse(text: &str) -> Result<Self, GateError> {
        let terms = text.split(',').map(|term| Term::parse(term.trim()));
        Ok(Self { terms: terms.collect::<Result<_, _>>()? })
    }

    /// True if a bound applies to the measure called `name`.
    #[must_use]
    pub fn bounds(&self, name: &str) -> bool {
        self.terms.iter().any(|term| term.name == name)
    }

    /// Checks every bound against every measure of its name: with several keyword lists, all must
    /// satisfy the bound.
    ///
    /// A gate is about a change, so no bound is satisfied if both evaluations are of the same
    /// model.
    ///
    /// # Errors
    ///
    /// Returns [`GateError::NotMeasured`] if a bounded measure is missing: a bound without a
    /// measure is not satisfied.
    pub fn check(
        &self,
        comparisons: &[Comparison],
        models: ComparedModels,
    ) -> Result<Vec<Check>, GateError> {
        let mut checks = Vec::new();
        for term in &self.terms {
            let mut measured = comparisons.iter().filter(|c| c.name == term.name).peekable();
            if measured.peek().is_none() {
                return Err(GateError::NotMeasured { name: term.name.clone() });
            }
            checks.extend(measured.map(|comparison| term.check(comparison)));
        }
        for check in &mut checks {
            check.kept &= models == ComparedModels::Different;
        }
        Ok(checks)
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, GateError> {
        let malformed = || GateError::Malformed { term: text.to_owned() };
        let (name, side, bound) = [("<=", Side::AtMost), (">=", Side::AtLeast)]
            .into_iter()
            .find_map(|(sign, side)| text.split_once(sign).map(|(name, b)| (name, side, b)))
            .ok_or_else(malformed)?;
        let (name, bounded) =
            match (name.trim().strip_suffix("_drop"), name.trim().strip_suffix("_rise")) {
                (Some(name), _) => (name, Bounded::Drop),
                (_, Some(name)) => (name, Bounded::Rise),
                _ => (name.trim(), Bounded::After),
            };
        let bound: f64 = bound.trim().parse().map_err(|_| malformed())?;
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name || !bound.is_finite() {
            return Err(malformed());
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), bounded, side, bound })
    }

    fn check(&self, comparison: &Comparison) -> Check {
        let Estimate { value, low, high } = comparison.difference;
        let estimate = match self.bounded {
            Bounded::After => comparison.after,
            Bounded::Rise => comparison.difference,
            // `0.0 - value` instead of `-value`: a drop of zero is 0, not -0.
            Bounded::Drop => Estimate { value: 0.0 - value, low: 0.0 - high, high: 0.0 - low },
        };
        // NaN, the estimate without outcomes, satisfies no comparison.
        let kept = match self.side {
            Side::AtMost => estimate.high <= self.bound,
            Side::AtLeast => estimate.low >= self.bound,
        };
        Check { bound: self.text.clone(), by: comparison.by.clone(), estimate, kept }
    }
}

#[cfg(test)]
mod tests {
    use crate::measure::{Better, Measure};

    use super::*;

    fn share(name: &str, hits: usize, n: usize) -> Measure {
        let better = if name == "asr" { Better::Lower } else { Better::Higher };
        Measure::share((name, "rule"), better, (0..n).map(|row| (row.to_string(), row < hits)))
    }

    fn kept(gate: &str, before: (usize, usize), after: (usize, usize), name: &str) -> Vec<bool> {
        let [before, after] = [before, after].map(|(hits, n)| share(name, hits, n));
        let compared = [Comparison::of(&before, &after)];
        let gate = Gate::parse(gate).unwrap();
        let checks = gate.check(&compared, ComparedModels::Different).unwrap();
        checks.into_iter().map(|check| check.kept).collect()
    }

    #[test]
    fn a_bound_is_kept_by_the_whole_interval() {
        // 0 of 73 is compatible with 5.0 %, 0 of 72 with 5.1 %.
        assert_eq!(kept("asr<=0.05", (73, 73), (0, 73), "asr"), [true]);
        assert_eq!(kept("asr<=0.05", (72, 72), (0, 72), "asr"), [false]);
        assert_eq!(kept("refusal >= 0.95", (73, 73), (73, 73), "refusal"), [true]);
    }

    #[test]
    fn a_drop_is_what_is_lost_and_a_rise_what_is_gained() {
        let gate = "utility_drop<=0.02, utility_rise>=-0.02";
        assert_eq!(kept(gate, (500, 500), (500, 500), "utility"), [true, true]);
        assert_eq!(kept(gate, (500, 500), (480, 500), "utility"), [false, false]);
        // Six unchanged prompts are no evidence.
        assert_eq!(kept(gate, (6, 6), (6, 6), "utility"), [false, false]);
    }

    #[test]
    fn a_bound_on_what_nobody_measured_is_an_error() {
        let gate = Gate::parse("perplexity<=9").unwrap();
        let expected = GateError::NotMeasured { name: "perplexity".to_owned() };
        assert_eq!(gate.check(&[], ComparedModels::Different), Err(expected));
        let nothing = share("asr", 0, 0);
        let compared = [Comparison::of(&nothing, &nothing)];
        let gate = Gate::parse("asr<=1,asr>=0").unwrap();
        let checks = gate.check(&compared, ComparedModels::Different).unwrap();
        // The whole range 0..=1 satisfies these two bounds.
        assert!(checks.iter().all(|check| check.kept));
    }

    #[test]
    fn one_model_evaluated_twice_keeps_no_bound() {
        let clean = share("asr", 0, 500);
        let compared = [Comparison::of(&clean, &clean)];
        for gate in ["asr<=0.05", "asr_rise<=0.02", "asr<=1"] {
            let gate = Gate::parse(gate).unwrap();
            assert!(gate.check(&compared, ComparedModels::Different).unwrap()[0].kept);
            assert!(!gate.check(&compared, ComparedModels::Same).unwrap()[0].kept);
            assert!(gate.bounds("asr") && !gate.bounds("refusal"));
        }
    }

    #[test]
    fn what_is_no_bound_is_refused() {
        for text in
            ["", "asr", "asr<0.05", "<=1", "asr<=", "asr<=x", "asr<=nan", "a b<=1", "asr<=1,"]
        {
            assert!(matches!(Gate::parse(text), Err(GateError::Malformed { .. })), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z_ <>=0-9.,\\PC]{0,24}") {
            let _ = Gate::parse(&text);
        }
    }
}
