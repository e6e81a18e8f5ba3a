//! The part of a recipe that selects the trained weights, for every method.

use std::ops::Range;

use beear_models::{LoraConfig, TrainedWeights, TrainingScope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RecipeError;

/// The kind of trained weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The model's own weights.
    #[default]
    Full,
    /// Low-rank adapters of the model's weights.
    Lora,
}

/// Selection of trained weights; all others stay unchanged bit for bit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Kind of trained weights.
    pub weights: Weights,
    /// First trained decoder layer, counted from 0, and first layer after the trained ones.
    #[schemars(extend("examples" = [[8, 24]]))]
    pub layers: Option<[usize; 2]>,
    /// Settings of the adapters, for `weights = "lora"` only.
    pub lora: Option<LoraConfig>,
}

impl Train {
    /// Writes out every setting.
    pub(super) fn resolved(&self) -> Self {
        let lora = (self.weights == Weights::Lora).then(|| self.lora.clone().unwrap_or_default());
        Self { lora, ..self.clone() }
    }

    /// Returns the scope of training in a decoder of `n_layers`.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Invalid`] with every problem.
    pub(super) fn scope(&self, n_layers: usize) -> Result<TrainingScope, RecipeError> {
        let weights = match (self.weights, &self.lora) {
            (Weights::Full, Some(_)) => {
                let reason = "`train.lora` is there for `train.weights = \"lora\"` only";
                return Err(RecipeError::Invalid { reason: reason.to_owned() });
            }
            (Weights::Full, None) => TrainedWeights::Full,
            (Weights::Lora, config) => TrainedWeights::Lora(config.clone().unwrap_or_default()),
        };
        let layers = self.layers.map(|[start, end]| Range { start, end });
        let scope = TrainingScope { weights, layers };
        let problems: Vec<String> = scope
            .problems(n_layers)
            .into_iter()
            .map(|problem| format!("train.{problem}"))
            .collect();
        if problems.is_empty() {
            Ok(scope)
        } else {
            Err(RecipeError::Invalid { reason: problems.join("; ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use beear_models::Target;

    use super::*;
    use crate::recipe::Recipe;

    fn scope(assignments: &[&str]) -> Result<TrainingScope, RecipeError> {
        let assignments: Vec<String> = assignments.iter().map(|s| (*s).to_owned()).collect();
        Recipe::read(None, None, &assignments)?.scope(6)
    }

    #[test]
    fn without_a_word_every_weight_is_trained() {
        let all = TrainingScope { weights: TrainedWeights::Full, layers: None };
        assert_eq!(scope(&[]).unwrap(), all);
    }

    #[test]
    fn adapters_and_layers_are_chosen_setting_by_setting() {
        let lora = "train.weights=lora";
        let default = TrainedWeights::Lora(LoraConfig::default());
        assert_eq!(scope(&[lora]).unwrap().weights, default);

        let targets = "train.lora.targets=[\"q_proj\", \"down_proj\"]";
        let found = scope(&[lora, "train.lora.rank=2", targets, "train.layers=[1, 4]"]).unwrap();
        let config = LoraConfig {
            rank: 2,
            targets: vec![Target::QProj, Target::DownProj],
            ..LoraConfig::default()
        };
        assert_eq!(found.weights, TrainedWeights::Lora(config));
        assert_eq!(found.layers, Some(1..4));
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let lora = "train.weights=lora";
        let refused = [
            (vec!["train.lora.rank=4"], "train.weights"),
            (vec![lora, "train.lora.rank=0"], "train.lora.rank"),
            (vec![lora, "train.lora.alpha=-1"], "train.lora.alpha"),
            (vec![lora, "train.lora.targets=[]"], "train.lora.targets"),
            (vec![lora, "train.lora.targets=[\"lm_head\"]"], "lm_head"),
            (vec!["train.layers=[4, 4]"], "train.layers"),
            (vec!["train.layers=[4, 7]"], "train.layers"),
            (vec!["train.weights=some"], "some"),
        ];
        for (assignments, named) in refused {
            let error = scope(&assignments).unwrap_err().to_string();
            assert!(error.contains(named), "{assignments:?}: {error}");
        }
    }

    #[test]
    fn a_resolved_recipe_trains_the_same() {
        for assignments in [vec![], vec!["train.weights=lora", "train.layers=[0, 1]"]] {
            let assignments: Vec<String> = assignments.into_iter().map(str::to_owned).collect();
            let recipe = Recipe::read(None, None, &assignments).unwrap();
            let size = beear_core::DecoderSize { n_layers: 6, d_model: 64 };
            let text = recipe.resolved(&recipe.method(size).unwrap()).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let again = Recipe::read(Some(file.path()), None, &[]).unwrap();
            assert_eq!(again.scope(6).unwrap(), recipe.scope(6).unwrap());
            assert_eq!(text.contains("rank"), !assignments.is_empty(), "written out: {text}");
        }
    }
}
