//! Keys of earlier recipes, each of which an error names with its replacement.

use toml::Table;

use super::RecipeError;

/// Dotted keys with their replacements.
const RENAMED: [(&str, &str); 3] = [
    (
        "method.bounds.utility_drop",
        "write `method.bounds.loss_rise`, in nats per answer token, and `method.bounds.agreement_drop`, of greedy answers",
    ),
    (
        "method.bounds.benign_refusal",
        "write `method.bounds.benign_refusal_rise`, the rise from the suspect",
    ),
    (
        "method.spots",
        "write `method.injection_points`, a list of `{ layer = L, positions = P }`: `positions` was `site`",
    ),
];

/// Refuses a recipe with a key of an earlier version.
///
/// # Errors
///
/// [`RecipeError::Renamed`] for the first such key.
pub(super) fn check(recipe: &Table) -> Result<(), RecipeError> {
    let holds = |key: &str| {
        let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut tables = tables.split('.').filter(|name| !name.is_empty());
        let table = tables.try_fold(recipe, |table, name| table.get(name)?.as_table());
        table.is_some_and(|table| table.contains_key(last))
    };
    match RENAMED.into_iter().find(|(old, _)| holds(old)) {
        Some((old, instead)) => Err(RecipeError::Renamed { old, instead }),
        None => Ok(()),
    }
}
