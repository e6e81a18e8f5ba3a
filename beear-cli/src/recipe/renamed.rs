//! Keys of earlier recipes, which a mistake names with those that stand for them now.

use toml::Table;

use super::RecipeError;

/// Keys with the tables that they stand in, and what to write instead.
const RENAMED: [([&str; 3], &str, &str); 2] = [
    (
        ["method", "bounds", "utility_drop"],
        "method.bounds.utility_drop",
        "write `method.bounds.loss_rise`, in nats per answer token, and `method.bounds.agreement_drop`, of greedy answers",
    ),
    (
        ["method", "bounds", "benign_refusal"],
        "method.bounds.benign_refusal",
        "write `method.bounds.benign_refusal_rise`, the rise from the suspect",
    ),
];

/// Looks for the keys in what was read.
///
/// # Errors
///
/// [`RecipeError::Renamed`] for the first one found.
pub(super) fn check(recipe: &Table) -> Result<(), RecipeError> {
    for ([first, second, last], old, instead) in RENAMED {
        let inner = recipe.get(first).and_then(|outer| outer.get(second));
        if inner.and_then(|inner| inner.get(last)).is_some() {
            return Err(RecipeError::Renamed { old, instead });
        }
    }
    Ok(())
}
