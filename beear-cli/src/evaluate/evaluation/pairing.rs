//! Pairs of evaluations of two models with the same identity. Evaluations with different prompts or
//! settings are never compared.

use beear_eval::Identity;

use super::Evaluated;
use crate::user_error::UserError;

/// Evaluations before and after, in pairs.
pub(crate) struct Pairing {
    /// Evaluations of one kind and one identity, before and after.
    pub(crate) pairs: Vec<[Evaluated; 2]>,
    /// Evaluations before, and after, that have no partner on the other side.
    pub(crate) alone: [Vec<Evaluated>; 2],
}

/// Pairs evaluations of one kind whose identities agree in all parts that they must share.
///
/// # Errors
///
/// If both sides have an evaluation of a kind that has no partner: the error names every difference
/// between the two that are most alike. If the prompt format and the decoding of a pair's answers
/// are unknown.
pub(crate) fn pair(before: Vec<Evaluated>, after: Vec<Evaluated>) -> Result<Pairing, UserError> {
    let mut after: Vec<Option<Evaluated>> = after.into_iter().map(Some).collect();
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for was in before {
        let is_partner = |slot: &&mut Option<Evaluated>| {
            slot.as_ref().is_some_and(|is| was.is_of_kind_of(is) && differences(&was, is) == 0)
        };
        match after.iter_mut().find(is_partner).and_then(Option::take) {
            Some(is) => pairs.push([was, is]),
            None => alone.push(was),
        }
    }
    let after: Vec<Evaluated> = after.into_iter().flatten().collect();
    let unequal = alone.iter().flat_map(|was| after.iter().map(move |is| (was, is)));
    let unequal = unequal.filter(|(was, is)| was.is_of_kind_of(is));
    if let Some((was, is)) = unequal.min_by_key(|(was, is)| differences(was, is)) {
        return Err(not_comparable(was, is));
    }
    if let Some([was, is]) = pairs.iter().find(|[was, _]| !was.report.identity.is_known()) {
        let what = format!(
            "`{}` and `{}` cannot be compared: nothing tells the prompt format and the decoding of their answers",
            was.folder.display(),
            is.folder.display()
        );
        return Err(UserError::input(what, "have the prompts answered by `beear eval`"));
    }
    Ok(Pairing { pairs, alone: [alone, after] })
}

fn differences(was: &Evaluated, is: &Evaluated) -> usize {
    was.report.identity.differences(&is.report.identity).len()
}

fn not_comparable(was: &Evaluated, is: &Evaluated) -> UserError {
    let differences = was.report.identity.differences(&is.report.identity);
    let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let what = format!(
        "`{}` and `{}` cannot be compared: {}",
        was.folder.display(),
        is.folder.display(),
        differences.join("; ")
    );
    let hint = "evaluate both models with the same prompts, trigger, decoding, judges and --format";
    UserError::input(what, hint)
}

/// Checks that all evaluations are of one model.
///
/// # Errors
///
/// If two of them are of different models.
pub(crate) fn of_one_model(evaluated: &[Evaluated]) -> Result<(), UserError> {
    let is_other = |pair: &&[Evaluated]| {
        let [one, other] = [&pair[0], &pair[1]].map(|evaluated| &evaluated.report.identity);
        let are_single = [one, other].iter().all(|identity| identity.models.len() == 1);
        are_single && !one.is_of_same_models(other)
    };
    match evaluated.windows(2).find(is_other) {
        None => Ok(()),
        Some(pair) => {
            let name = |identity: &Identity| identity.models[0].name.clone();
            let [one, other] = [&pair[0], &pair[1]];
            let what = format!(
                "`{}` is of the model `{}` and `{}` of the model `{}`",
                one.folder.display(),
                name(&one.report.identity),
                other.folder.display(),
                name(&other.report.identity)
            );
            let hint = "name a folder that holds evaluations of one model only";
            Err(UserError::input(what, hint))
        }
    }
}
