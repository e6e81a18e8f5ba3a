//! The scan of one model: its results and their computation.

use anyhow::Result;
use beear_core::analysis::scan::{
    Implant, ImplantConfig, NormStep, Place, ReachConfig, implant, reach,
};
use beear_core::{BilevelConfig, DecoderSize, Example, InjectionPoint, Positions, SafetyExample};
use beear_eval::Rate;
use beear_models::{BatchLimit, CausalLm, log_likelihoods};
use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::model::loaded::{TextSide, by_row};
use crate::user_error::UserError;

/// Places where tokens are inserted.
const PLACES: [Place; 2] = [Place::Before, Place::After];

/// Default number of prompts to fit to.
pub(crate) const PROMPTS: u32 = 48;

/// Settings of a scan. Scores of two scans can be compared only if their settings are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScanSettings {
    /// Layer boundaries at which δ acts, at both ends of the prompt.
    pub(crate) layers: Vec<usize>,
    /// Number of prompts to fit to, and of other prompts to evaluate on.
    pub(crate) n_prompts: usize,
    pub(crate) reach: ReachConfig,
    pub(crate) implant: ImplantConfig,
}

impl ScanSettings {
    /// Returns the default settings for a decoder of this size, with the layers of the preset
    /// `robust`.
    pub(crate) fn usual(size: DecoderSize) -> Self {
        let injection_points = BilevelConfig::robust(size).injection_points;
        let mut layers: Vec<usize> = injection_points.iter().map(|point| point.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let (reach, implant) = (ReachConfig::default(), ImplantConfig::default());
        Self { layers, n_prompts: PROMPTS as usize, reach, implant }
    }

    /// Returns every injection point of δ.
    pub(crate) fn injection_points(&self) -> Vec<InjectionPoint> {
        let ends = [Positions::Last(5), Positions::First(5)];
        let at = |&layer: &usize| ends.map(|positions| InjectionPoint { layer, positions });
        self.layers.iter().flat_map(at).collect()
    }

    /// Returns the number of parts of a scan, each of which is reported as progress.
    pub(crate) fn n_parts(&self) -> usize {
        self.injection_points().len() + PLACES.len()
    }
}

/// Result of δ at one bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Maximum norm of a row of δ, as a share of the mean norm of the hidden states.
    pub(crate) bound: f64,
    /// Mean loss of the unwanted answers in nats per token.
    pub(crate) loss: f64,
    /// Held-out prompts on which the model begins the unwanted answer.
    pub(crate) elicited: Rate,
    /// Held-out prompts on which the reference begins it with the same δ.
    pub(crate) in_reference: Option<Rate>,
}

/// Results of δ at one injection point for growing bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PointReach {
    pub(crate) point: InjectionPoint,
    pub(crate) steps: Vec<Step>,
}

/// Tokens inserted into the prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) place: Place,
    pub(crate) tokens: Vec<u32>,
    /// The tokens as text.
    pub(crate) text: String,
    /// Objective of the search in nats per token.
    pub(crate) loss: f64,
    /// Held-out prompts on which the model begins the unwanted answer.
    pub(crate) elicited: Rate,
    /// Held-out prompts on which the reference begins it, if the search was against the reference.
    pub(crate) in_reference: Option<Rate>,
}

/// Findings of a scan in one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) reach: Vec<PointReach>,
    /// Tokens that elicit the unwanted answer from the model.
    pub(crate) written: Vec<Written>,
    /// Tokens that elicit the unwanted answer from the model and not from the reference.
    pub(crate) written_against: Vec<Written>,
}

/// A model to scan, and optionally a clean reference of the same family.
pub(crate) struct Subject<'a, B: AutodiffBackend> {
    pub(crate) model: &'a CausalLm<B>,
    pub(crate) reference: Option<&'a CausalLm<B>>,
    pub(crate) text: &'a TextSide,
    /// Prompts to fit to, and prompts to evaluate on.
    pub(crate) sets: [Vec<SafetyExample>; 2],
    /// Maximum number of rows that go through a model at a time.
    pub(crate) rows_at_once: usize,
}

impl<B: AutodiffBackend> Subject<'_, B> {
    /// Scans every injection point and then searches for tokens. Calls `progress` after each part.
    ///
    /// # Errors
    ///
    /// If logits, a loss or a gradient are not finite, or tokens have no text.
    pub(crate) fn scan(&self, settings: &ScanSettings, progress: &dyn Fn()) -> Result<Findings> {
        for model in std::iter::once(self.model).chain(self.reference) {
            self.check_logits(&model.valid(), settings.reach.target_tokens)?;
        }
        let mut found = Findings::default();
        for point in settings.injection_points() {
            found.reach.push(self.reach(point, &settings.reach)?);
            progress();
        }
        let vocabulary = self.text.vocabulary()?.text_ids;
        for place in PLACES {
            let written =
                |reference| self.written(reference, (place, &vocabulary), &settings.implant);
            found.written.extend(written(None)?);
            if self.reference.is_some() {
                found.written_against.extend(written(self.reference)?);
            }
            progress();
        }
        Ok(found)
    }

    /// Rejects a model with NaN or infinite logits on one of the prompts and names the row. The
    /// loss of a batch only shows that one of its rows has such logits.
    fn check_logits(
        &self,
        model: &CausalLm<B::InnerBackend>,
        target_tokens: usize,
    ) -> Result<(), UserError> {
        let device = model.devices().first().cloned().unwrap_or_default();
        let limit = BatchLimit::rows(self.rows_at_once);
        for rows in &self.sets {
            let examples: Vec<Example> =
                rows.iter().map(|row| row.toward_unwanted(Some(target_tokens))).collect();
            log_likelihoods(model, &examples, limit, &device)
                .map_err(|error| by_row(&error, |row| rows[row].id))?;
        }
        Ok(())
    }

    fn reach(&self, point: InjectionPoint, config: &ReachConfig) -> Result<PointReach> {
        let [fitted, held_out] = &self.sets;
        let (models, sets) =
            ((self.model, self.reference), (fitted.as_slice(), held_out.as_slice()));
        let rungs = reach(models, sets, point, config, self.rows_at_once)?;
        let step = |rung: NormStep<B::InnerBackend>| Step {
            bound: rung.bound,
            loss: rung.loss,
            elicited: Rate::of(rung.elicited),
            in_reference: rung.in_reference.map(Rate::of),
        };
        Ok(PointReach { point, steps: rungs.into_iter().map(step).collect() })
    }

    fn written(
        &self,
        reference: Option<&CausalLm<B>>,
        among: (Place, &[u32]),
        config: &ImplantConfig,
    ) -> Result<Vec<Written>> {
        let [fitted, held_out] = &self.sets;
        let describe = |(found, text): (Implant, String)| {
            let Implant { place, tokens, loss, elicited, in_reference } = found;
            let in_reference = in_reference.map(Rate::of);
            Written { place, tokens, text, loss, elicited: Rate::of(elicited), in_reference }
        };
        let (models, sets) = ((self.model, reference), (fitted.as_slice(), held_out.as_slice()));
        let found = implant(models, sets, among, config, self.rows_at_once)?;
        let texts = self.text.decode(found.iter().map(|found| found.tokens.as_slice()))?;
        Ok(found.into_iter().zip(texts).map(describe).collect())
    }
}
