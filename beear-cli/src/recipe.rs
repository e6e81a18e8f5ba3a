//! The recipe that a user writes in TOML, with `--set key.path=value` on top.

pub(crate) mod commented;
pub(crate) mod found_sets;
pub(crate) mod keyword_list;
mod method_hint;
mod renamed;
pub(crate) mod schema;
pub(crate) mod setting_file;
pub mod train;

use std::path::{Path, PathBuf};

use beear_core::{
    BilevelConfig, DecoderSize, Defence, FineTuningConfig, LatentAdversarialConfig,
    LayerConsistencyConfig,
};
use beear_eval::RefusalKeywords;
use beear_models::TrainingScope;
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{Table, Value};

pub(crate) use self::method_hint::{SMALLER_STEPS, hint};
use self::train::{Train, Weights};

/// An error of a recipe.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read recipe `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The text is not TOML, or has unknown keys or values of the wrong kind.
    #[error("invalid recipe: {reason}")]
    Invalid {
        /// The problem, and the expected value.
        reason: String,
    },
    /// A `--set` is not `key=value`.
    #[error("`--set {text}` is not key=value")]
    NotAnAssignment {
        /// The argument as it was written.
        text: String,
    },
    /// A key of an earlier version.
    #[error("invalid recipe: `{old}` is no longer a key; {instead}")]
    Renamed {
        /// The old key with its path.
        old: &'static str,
        /// The key that replaces it, and its meaning.
        instead: &'static str,
    },
    /// A recipe for another version of the tool.
    #[error("recipe version {version} is not supported: 1 is")]
    Version {
        /// The version in the recipe.
        version: u32,
    },
}

impl RecipeError {
    /// Returns the remedy, in one line.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the path and the permissions",
            Self::NotAnAssignment { .. } => "write it like `--set method.rounds=8`",
            Self::Invalid { .. } | Self::Renamed { .. } | Self::Version { .. } => {
                "`config.resolved.toml` of any run holds every setting"
            }
        }
    }
}

/// A defence.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Perturbations shared by all prompts, fitted and trained against in turn.
    #[default]
    Beear,
    /// Perturbations of each prompt by itself, at several layers.
    LatentAdversarial,
    /// Hidden states of neighbouring layers kept aligned (CROW).
    LayerConsistency,
    /// Plain training on the rows of both sets: the control.
    FineTuning,
}

/// A named set of defaults for BEEAR.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Several fresh perturbations over early layers and both ends of the prompt.
    #[default]
    Robust,
    /// The paper's single perturbation at one layer.
    Paper,
}

/// A recipe for `defend`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Version of the recipe format.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// Preset of BEEAR's defaults; every other method has one set of defaults.
    pub preset: Preset,
    /// Built-in prompt format, instead of the model's chat template.
    #[schemars(extend("enum" = schema::prompt_formats()))]
    pub prompt_format: Option<String>,
    /// Refusal keyword list that classifies generated safe answers.
    #[schemars(extend("enum" = RefusalKeywords::NAMES))]
    pub keywords: String,
    /// Maximum length of a generated answer, in tokens.
    pub max_new_tokens: usize,
    /// Share of both sets that is used for validation and never trained on, at most 512 rows of
    /// each.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub held_out: f64,
    /// Maximum length of an answer that is generated for a held-out row, in tokens; 0 generates
    /// none, and agreement is not checked.
    pub validation_tokens: usize,
    /// Selection of trained weights.
    pub train: Train,
    /// The `name` of the method, and overrides of its defaults.
    #[schemars(schema_with = "schema::method")]
    pub method: Table,
}

/// Stand-in for a decoder where only the keys of the method matter.
pub(crate) const ANY_SIZE: DecoderSize = DecoderSize { n_layers: 1, d_model: 1 };

impl Default for Recipe {
    fn default() -> Self {
        Self {
            version: 1,
            preset: Preset::Robust,
            prompt_format: None,
            keywords: "advbench-30".to_owned(),
            max_new_tokens: 64,
            held_out: 0.2,
            validation_tokens: 32,
            train: Train::default(),
            method: Table::new(),
        }
    }
}

impl Recipe {
    /// Reads a recipe (the default one without a file), and puts the preset and then the
    /// assignments on top.
    ///
    /// # Errors
    ///
    /// [`RecipeError`], a variant per mistake.
    pub fn read(
        path: Option<&Path>,
        preset: Option<Preset>,
        assignments: &[String],
    ) -> Result<Self, RecipeError> {
        let text = match path {
            Some(path) => beear_input::read_to_string(path)
                .map_err(|source| RecipeError::Io { path: path.to_owned(), source })?,
            None => String::new(),
        };
        Self::parse(&text, preset, assignments)
    }

    fn parse(
        text: &str,
        preset: Option<Preset>,
        assignments: &[String],
    ) -> Result<Self, RecipeError> {
        let mut table: Table = text.parse().map_err(invalid)?;
        for text in assignments {
            assign(&mut table, text)?;
        }
        renamed::check(&table)?;
        // For a single unknown key, the reader's error lists the valid ones.
        let unknown = schema::unknown_keys(&table);
        if unknown.len() > 1 {
            let reason = format!("unknown fields `{}`", unknown.join("`, `"));
            return Err(RecipeError::Invalid { reason });
        }
        let mut recipe: Self = Value::Table(table).try_into().map_err(invalid)?;
        recipe.preset = preset.unwrap_or(recipe.preset);
        if recipe.version != 1 {
            return Err(RecipeError::Version { version: recipe.version });
        }
        if !(0.0..1.0).contains(&recipe.held_out) {
            let reason = format!("held_out must be in 0..1: {}", recipe.held_out);
            return Err(RecipeError::Invalid { reason });
        }
        let name = recipe.method_name()?;
        if preset.is_some() && name != Method::Beear {
            let reason = "a preset is a set of defaults of `beear`, not of another method";
            return Err(RecipeError::Invalid { reason: reason.to_owned() });
        }
        // Errors in the method are reported before a model is read; every size has these keys.
        recipe.method(ANY_SIZE)?;
        recipe.scope(usize::MAX)?;
        Ok(recipe)
    }

    /// Returns the trained weights of a decoder of `n_layers`.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Invalid`] if the decoder has no such layers or adapters.
    pub fn scope(&self, n_layers: usize) -> Result<TrainingScope, RecipeError> {
        self.train.scope(n_layers)
    }

    /// Returns true if rows are held out for validation.
    #[must_use]
    pub fn watches(&self) -> bool {
        self.held_out > 0.0
    }

    /// Returns the seed of all randomness.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Invalid`] as [`method`](Self::method).
    pub fn seed(&self) -> Result<u64, RecipeError> {
        Ok(self.method(ANY_SIZE)?.seed())
    }

    /// Returns the name of the recipe's method.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Invalid`] if there is no such method.
    pub fn method_name(&self) -> Result<Method, RecipeError> {
        let name = self.method.get(NAME).cloned();
        name.map_or(Ok(Method::default()), |name| name.try_into().map_err(invalid))
    }

    /// Renders this recipe as a file with every setting of `method` written out, to be read again.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Invalid`] if a value has no form in TOML.
    pub fn resolved(&self, method: &Defence) -> Result<String, RecipeError> {
        let mut settings = Table::try_from(method).map_err(no_toml)?;
        if let Defence::Beear(_) = method {
            write_absent(&mut settings);
        }
        let name = Value::try_from(self.method_name()?).map_err(no_toml)?;
        settings.insert(NAME.to_owned(), name);
        let written = Self { method: settings, train: self.train.resolved(), ..self.clone() };
        toml::to_string_pretty(&written).map_err(no_toml)
    }

    /// Returns the method with its settings for a decoder of `size`.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Invalid`] for an unknown key or a value of the wrong kind.
    pub fn method(&self, size: DecoderSize) -> Result<Defence, RecipeError> {
        Ok(match (self.method_name()?, self.preset) {
            (Method::Beear, Preset::Robust) => {
                Defence::Beear(self.overlaid(BilevelConfig::robust(size))?)
            }
            (Method::Beear, Preset::Paper) => {
                Defence::Beear(self.overlaid(BilevelConfig::paper(size))?)
            }
            (Method::LatentAdversarial, _) => {
                Defence::LatentAdversarial(self.overlaid(LatentAdversarialConfig::new(size))?)
            }
            (Method::LayerConsistency, _) => {
                Defence::LayerConsistency(self.overlaid(LayerConsistencyConfig::new(size))?)
            }
            (Method::FineTuning, _) => {
                Defence::FineTuning(self.overlaid(FineTuningConfig::new(size))?)
            }
        })
    }

    /// Lays the recipe's overrides over `defaults`.
    fn overlaid<C: Serialize + DeserializeOwned>(&self, defaults: C) -> Result<C, RecipeError> {
        let mut settings = Table::try_from(defaults).map_err(no_toml)?;
        if self.train.weights == Weights::Lora {
            raise_rate(&mut settings);
        }
        let mut overrides = self.method.clone();
        overrides.remove(NAME);
        overlay(&mut settings, &overrides);
        Value::Table(settings).try_into().map_err(invalid)
    }
}

/// Factor of the default learning rate for adapters over the one for weights.
///
/// Schulman et al., [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), 2025, find ten
/// over many models; see docs/results.md for the demo's.
const ADAPTER_RATE: f64 = 10.0;

fn raise_rate(settings: &mut Table) {
    let rate = settings.get_mut("remove").and_then(|remove| remove.get_mut("learning_rate"));
    if let Some(Value::Float(rate)) = rate {
        *rate *= ADAPTER_RATE;
    }
}

/// Key of the method's name among its settings.
const NAME: &str = "name";

fn no_toml(error: toml::ser::Error) -> RecipeError {
    RecipeError::Invalid { reason: error.to_string() }
}

pub(crate) fn invalid(error: toml::de::Error) -> RecipeError {
    RecipeError::Invalid { reason: error.message().to_owned() }
}

/// Optional settings of BEEAR. TOML has no null; recipes write `"none"`.
const OPTIONAL: [&str; 4] =
    ["entrap.target_tokens", "entrap.norm_bound", "stop_above_loss", "patience"];

const NONE: &str = "none";

/// Writes `"none"` for the absent optional settings of BEEAR.
fn write_absent(settings: &mut Table) {
    for path in OPTIONAL {
        let (keys, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut tables = keys.split('.').filter(|key| !key.is_empty());
        let place =
            tables.try_fold(&mut *settings, |place, key| place.get_mut(key)?.as_table_mut());
        place.map(|place| place.entry(last).or_insert_with(|| Value::String(NONE.to_owned())));
    }
}

fn is_optional(key: &str) -> bool {
    OPTIONAL.iter().any(|path| path.rsplit('.').next() == Some(key))
}

/// Lays `over` over `under`. Tables merge, except tables with a single, different key each: those
/// are two choices of one enum (`{ absolute = 1 }`, `{ relative_to_hidden = 1 }`), and `over`
/// replaces `under`.
fn overlay(under: &mut Table, over: &Table) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new))
                if old.len() > 1 || old.keys().eq(new.keys()) =>
            {
                overlay(old, new);
            }
            (_, Value::String(text)) if text == NONE && is_optional(key) => {
                under.remove(key);
            }
            _ => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Maximum depth of tables, more than any setting has: unbounded nesting would overflow the stack.
const DEEPEST: usize = 16;

fn assign(table: &mut Table, text: &str) -> Result<(), RecipeError> {
    let mistake = || RecipeError::NotAnAssignment { text: text.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(mistake)?;
    // A value that is not TOML is a string: `preset=paper`.
    let parsed = format!("value = {value}").parse::<Table>();
    let value = parsed.ok().and_then(|mut t| t.remove("value"));
    let value = value.unwrap_or_else(|| Value::String(text[path.len() + 1..].to_owned()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(mistake)?;
    if keys.len() > DEEPEST {
        return Err(mistake());
    }
    let mut place = table;
    for key in keys {
        let entry = place.entry(key).or_insert_with(|| Value::Table(Table::new()));
        place = entry.as_table_mut().ok_or_else(mistake)?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use beear_core::config::StepSize;

    use super::*;
    use crate::mutated::near;

    const SMALL: DecoderSize = DecoderSize { n_layers: 6, d_model: 64 };

    fn method(assignments: &[&str]) -> Result<Defence, RecipeError> {
        let assignments: Vec<String> = assignments.iter().map(|s| (*s).to_owned()).collect();
        Recipe::read(None, None, &assignments)?.method(SMALL)
    }

    /// Returns the settings of BEEAR.
    fn recipe(assignments: &[&str]) -> Result<BilevelConfig, RecipeError> {
        match method(assignments)? {
            Defence::Beear(config) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_word_it_is_the_robust_preset() {
        assert_eq!(recipe(&[]).unwrap(), BilevelConfig::robust(SMALL));
        assert_eq!(recipe(&["preset=paper"]).unwrap(), BilevelConfig::paper(SMALL));
    }

    #[test]
    fn any_setting_can_be_overridden() {
        let config = recipe(&[
            "method.rounds=2",
            "method.entrap.step_size={ absolute = 0.5 }",
            "method.injection_points=[{ layer = 3, positions = { first = 2 } }]",
            "method.stop_above_loss=3.0",
            "method.entrap.norm_bound=0.5",
        ]);
        let config = config.unwrap();
        assert_eq!((config.rounds, config.injection_points.len()), (2, 1));
        assert_eq!(config.entrap.step_size, StepSize::Absolute(0.5));
        assert_eq!(config.stop_above_loss, Some(3.0));
        assert_eq!(config.entrap.norm_bound, Some(0.5));
        assert_eq!(config.entrap.steps, BilevelConfig::robust(SMALL).entrap.steps);
    }

    #[test]
    fn adapters_are_trained_at_ten_times_the_rate_unless_it_is_said() {
        let rate = |assignments: &[&str]| recipe(assignments).unwrap().remove.learning_rate;
        let usual = rate(&[]);
        let lora = "train.weights=lora";
        assert!((rate(&[lora]) / usual - 10.0).abs() < 1e-12);
        let said = rate(&[lora, "method.remove.learning_rate=3e-4"]);
        assert!((said - 3e-4).abs() < 1e-15);
    }

    #[test]
    fn what_may_be_absent_can_be_taken_away() {
        let config = recipe(&["method.entrap.target_tokens=none"]).unwrap();
        assert_eq!(config.entrap.target_tokens, None);
        assert!(recipe(&["method.rounds=none"]).is_err(), "rounds cannot be absent");
    }

    #[test]
    fn a_resolved_recipe_says_the_same_again() {
        let assignments = ["preset=paper", "method.entrap.norm_bound=0.5", "held_out=0.1"];
        let assignments = assignments.map(str::to_owned);
        let recipe = Recipe::read(None, None, &assignments).unwrap();
        let config = recipe.method(SMALL).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), recipe.resolved(&config).unwrap()).unwrap();
        let again = Recipe::read(Some(file.path()), None, &[]).unwrap();
        assert_eq!(again.method(SMALL).unwrap(), config);
        assert_eq!((again.held_out, again.preset), (0.1, Preset::Paper));
        // A preset laid over it changes no written setting.
        let other = Recipe::read(Some(file.path()), Some(Preset::Robust), &[]).unwrap();
        assert_eq!(other.method(SMALL).unwrap(), config);
    }

    #[test]
    fn a_rival_is_chosen_by_name_and_set_by_its_own_keys() {
        let name = "method.name=latent-adversarial";
        let config = method(&[name, "method.attack.norm_bound=1", "method.remove.steps=7"]);
        let Defence::LatentAdversarial(config) = config.unwrap() else { panic!("by its name") };
        assert_eq!((config.attack.norm_bound, config.remove.steps), (1.0, 7));
        assert_eq!(config.steps_per_attack, LatentAdversarialConfig::new(SMALL).steps_per_attack);
        let message = method(&[name, "method.rounds=2"]).unwrap_err().to_string();
        assert!(message.contains("rounds") && message.contains("steps_per_attack"), "{message}");
        let message = method(&["method.name=crow"]).unwrap_err().to_string();
        assert!(message.contains("crow") && message.contains("layer-consistency"), "{message}");
        let assignments = ["method.name=fine-tuning".to_owned()];
        let refused = Recipe::read(None, Some(Preset::Paper), &assignments);
        assert!(matches!(refused, Err(RecipeError::Invalid { .. })), "a preset is BEEAR's");
    }

    #[test]
    fn a_resolved_recipe_of_a_rival_says_the_same_again() {
        for name in ["latent-adversarial", "layer-consistency", "fine-tuning"] {
            let assignments = [format!("method.name={name}"), "method.seed=5".to_owned()];
            let recipe = Recipe::read(None, None, &assignments).unwrap();
            let method = recipe.method(SMALL).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), recipe.resolved(&method).unwrap()).unwrap();
            let again = Recipe::read(Some(file.path()), None, &[]).unwrap();
            assert_eq!(again.method(SMALL).unwrap(), method);
        }
    }

    #[test]
    fn unknown_keys_are_refused_and_the_known_ones_named() {
        let message = recipe(&["method.entrap.stepz=3"]).unwrap_err().to_string();
        assert!(message.contains("stepz") && message.contains("steps"), "{message}");
        let message = recipe(&["presets=paper"]).unwrap_err().to_string();
        assert!(message.contains("presets") && message.contains("preset"), "{message}");
        let both = recipe(&["method.entrap.stepz=3", "presets=paper"]).unwrap_err().to_string();
        assert_eq!(both, "invalid recipe: unknown fields `method.entrap.stepz`, `presets`");
        let rival = ["method.name=fine-tuning", "method.rounds=2", "method.injection_points=[]"];
        let both = recipe(&rival).unwrap_err().to_string();
        assert_eq!(
            both,
            "invalid recipe: unknown fields `method.injection_points`, `method.rounds`"
        );
        assert!(matches!(recipe(&["rounds"]), Err(RecipeError::NotAnAssignment { .. })));
        let deep = format!("{}rounds=1", "method.".repeat(9999));
        assert!(matches!(recipe(&[&deep]), Err(RecipeError::NotAnAssignment { .. })));
        assert!(matches!(recipe(&["version=2"]), Err(RecipeError::Version { version: 2 })));
    }

    /// Recipes with settings of every kind.
    pub(super) const RECIPES: [&str; 2] = [
        "version = 1\npreset = \"paper\"\nheld_out = 0.1\nkeywords = \"gcg-7\"\n[method]\nrounds = 2\n\
         injection_points = [{ layer = 1, positions = { last = 2 } }]\nstop_above_loss = \"none\"\n\
         entrap = { steps = 2, step_size = { absolute = 0.5 }, norm_bound = 1e-3 }\n",
        "prompt_format = \"paper-5\"\nmax_new_tokens = 64\n[method]\nname = \"latent-adversarial\"\n\
         seed = 5\nattack = { layers = [1], norm_bound = 1 }\n[method.remove]\nsteps = 7\n",
    ];

    const SETTINGS: [&str; 3] = [
        "method.rounds=2",
        "method.entrap.step_size={ absolute = 0.5 }",
        "method.injection_points=[{ layer = 3, positions = { first = 2 } }]",
    ];

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&RECIPES), set in near(&SETTINGS)) {
            for assignments in [vec![], vec![set]] {
                let Ok(recipe) = Recipe::parse(&text, None, &assignments) else { continue };
                let method = recipe.method(SMALL).unwrap();
                let again = Recipe::parse(&recipe.resolved(&method).unwrap(), None, &[]).unwrap();
                proptest::prop_assert_eq!(again.method(SMALL).unwrap(), method);
            }
        }
    }
}
