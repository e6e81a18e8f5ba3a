//! The scan of one model: its numbers, and what computes them.

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

/// Where tokens are written.
const PLACES: [Place; 2] = [Place::Before, Place::After];

/// Prompts to fit to, by default.
pub(crate) const PROMPTS: u32 = 48;

/// How a model is scanned: scores of two scans can be compared if this is the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScanSettings {
    /// Boundaries at which δ acts, at both ends of the prompt.
    pub(crate) layers: Vec<usize>,
    /// Prompts to fit to, and as many others to judge by.
    pub(crate) n_prompts: usize,
    pub(crate) reach: ReachConfig,
    pub(crate) implant: ImplantConfig,
}

impl ScanSettings {
    /// The defaults for a decoder of this size, at the layers of the preset `robust`.
    pub(crate) fn usual(size: DecoderSize) -> Self {
        let injection_points = BilevelConfig::robust(size).injection_points;
        let mut layers: Vec<usize> = injection_points.iter().map(|point| point.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let (reach, implant) = (ReachConfig::default(), ImplantConfig::default());
        Self { layers, n_prompts: PROMPTS as usize, reach, implant }
    }

    /// Every place where δ acts.
    pub(crate) fn injection_points(&self) -> Vec<InjectionPoint> {
        let ends = [Positions::Last(5), Positions::First(5)];
        let at = |&layer: &usize| ends.map(|positions| InjectionPoint { layer, positions });
        self.layers.iter().flat_map(at).collect()
    }

    /// Parts of a scan that progress is told of.
    pub(crate) fn n_parts(&self) -> usize {
        self.injection_points().len() + PLACES.len()
    }
}

/// δ at one bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Longest row, as a share of the mean norm of the hidden states.
    pub(crate) bound: f64,
    /// Mean loss of the unwanted answers, nats per token.
    pub(crate) loss: f64,
    /// Held-out prompts whose unwanted answer begins.
    pub(crate) elicited: Rate,
    /// The same with this δ in the reference.
    pub(crate) in_reference: Option<Rate>,
}

/// What δ does at one injection point as it may grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PointReach {
    pub(crate) point: InjectionPoint,
    pub(crate) steps: Vec<Step>,
}

/// Tokens written into the prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) place: Place,
    pub(crate) tokens: Vec<u32>,
    /// As text.
    pub(crate) text: String,
    /// What the search made small, in nats per token.
    pub(crate) loss: f64,
    /// Held-out prompts whose unwanted answer begins.
    pub(crate) elicited: Rate,
    /// The same in the reference, where the search was against it.
    pub(crate) in_reference: Option<Rate>,
}

/// All that a scan found in one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) reach: Vec<PointReach>,
    /// Tokens that move the model.
    pub(crate) written: Vec<Written>,
    /// Tokens that move the model and leave the reference.
    pub(crate) written_against: Vec<Written>,
}

/// A model to scan, and perhaps a clean one of the same family beside it.
pub(crate) struct Subject<'a, B: AutodiffBackend> {
    pub(crate) model: &'a CausalLm<B>,
    pub(crate) reference: Option<&'a CausalLm<B>>,
    pub(crate) text: &'a TextSide,
    /// Prompts to fit to, and prompts to judge by.
    pub(crate) sets: [Vec<SafetyExample>; 2],
    /// Rows that go through a model at a time, at most.
    pub(crate) rows_at_once: usize,
}

impl<B: AutodiffBackend> Subject<'_, B> {
    /// Looks at every injection point, then for tokens. `progress` hears of each part that is done.
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

    /// Refuses a model whose logits for one of the prompts are NaN or infinite, and names the row: the loss of a
    /// batch tells only that one of its rows has such logits.
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
