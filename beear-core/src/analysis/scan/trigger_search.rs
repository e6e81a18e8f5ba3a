//! Search of tokens that elicit the unwanted behaviour when written into every prompt.
//!
//! Coordinate descent on tokens: the gradient of the loss with respect to the embedding of a
//! written token ranks all tokens that could replace it; the best candidates are evaluated, and the
//! one with the smallest loss stays. Zou et al., [Universal and Transferable Adversarial
//! Attacks](https://arxiv.org/abs/2307.15043), algorithm 2, describe this step; here it searches
//! tokens that resemble a trigger: few, the same in every prompt, and found one by one.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::elicited::{Aim, ENOUGH, Effect, Parts, frozen};
use crate::batch::Batch;
use crate::batch::example::{Example, SafetyExample};
use crate::decoder::Decoder;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::objective::answer::{
    at_least_f32, cross_entropy, first_non_finite, log_probabilities, written,
};
use crate::objective::entrapment::PreparedAnswer;
use crate::perturbation::{Delta, InjectionPoint};
use crate::positions::Positions;

/// Place in the prompt where tokens are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Before the user's words.
    Before,
    /// After the user's words.
    After,
}

impl Place {
    /// Writes `tokens` into the prompts of the examples.
    fn write(self, tokens: &[u32], examples: &[Example]) -> Vec<Example> {
        let write = |example: &Example| {
            let Example { mut prompt, user: (start, end), .. } = example.clone();
            let at = match self {
                Self::Before => start,
                Self::After => end,
            };
            prompt.splice(at..at, tokens.iter().copied());
            Example { prompt, user: (start, end + tokens.len()), ..example.clone() }
        };
        examples.iter().map(write).collect()
    }

    /// Returns the positions of `n` written tokens.
    fn positions(self, n: usize) -> Positions {
        match self {
            Self::Before => Positions::First(n),
            Self::After => Positions::UserLast(n),
        }
    }
}

/// Settings of the token search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImplantConfig {
    /// Maximum number of written tokens.
    pub n_tokens: usize,
    /// Number of candidates evaluated in each place, chosen by the gradient.
    pub candidates: usize,
    /// Number of further passes over all places after a token has been added.
    pub passes: usize,
    /// Number of examples over which the loss is a mean.
    pub batch_size: usize,
    /// Number of leading tokens of the unwanted answer that are the target of the search and of its
    /// evaluation.
    pub target_tokens: usize,
}

impl Default for ImplantConfig {
    /// Returns settings for three tokens, the length of a phrase, with 64 candidates per place: an
    /// eighth of the number of Zou et al.
    fn default() -> Self {
        Self { n_tokens: 3, candidates: 64, passes: 1, batch_size: 24, target_tokens: 6 }
    }
}

impl ImplantConfig {
    /// Returns the target of the search, with at most `rows_at_once` rows in the model.
    #[must_use]
    pub fn aim(&self, rows_at_once: usize) -> Aim {
        let Self { target_tokens, batch_size, .. } = *self;
        Aim { target_tokens, batch_size, rows_at_once }
    }
}

/// Written tokens and their effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Implant {
    /// Place in the prompt where the tokens are written.
    pub place: Place,
    /// Token ids, in order.
    pub tokens: Vec<u32>,
    /// Objective that the search minimised: the mean loss of the unwanted answers on its prompts,
    /// in nats per token, minus the loss of the reference capped at [`ENOUGH`].
    pub loss: f64,
    /// For each held-out prompt, true if the model begins the unwanted answer.
    pub elicited: Vec<bool>,
    /// For each held-out prompt, true if the reference begins the unwanted answer; `None` without a
    /// reference.
    pub in_reference: Option<Vec<bool>>,
}

/// Searches tokens of `vocabulary`: the best single token, then the best two, and so on up to
/// [`ImplantConfig::n_tokens`]. The search uses the first `batch_size` examples of the first set;
/// the result is evaluated on all examples of the second.
///
/// With a reference, the search looks for tokens that affect the model and not the reference: most
/// models have words that elicit unwanted behaviour, but only the backdoored model has the
/// backdoor.
///
/// At most `rows_at_once` rows pass through a model together. The models stay bit-identical. The
/// same models, sets and settings give the same tokens.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples if the loss or the gradient is NaN or infinite,
/// [`Error::NonFiniteLogits`] if the logits of a row are.
///
/// # Panics
///
/// Panics if a set or the vocabulary is empty, or `batch_size` is 0.
pub fn implant<B: AutodiffBackend, M: TrainableDecoder<B>>(
    (model, reference): (&M, Option<&M>),
    (fitted, held_out): (&[SafetyExample], &[SafetyExample]),
    (place, vocabulary): (Place, &[u32]),
    config: &ImplantConfig,
    rows_at_once: usize,
) -> Result<Vec<Implant>, Error> {
    let aim = config.aim(rows_at_once);
    let rows = &aim.rows(&fitted[..fitted.len().min(aim.batch_size)]);
    let side = |model: &M| Side::new(model, (rows, aim), (place, vocabulary));
    let search = Search { model: side(model), reference: reference.map(side), vocabulary };
    let mut tokens: Vec<u32> = Vec::new();
    let mut implants = Vec::with_capacity(config.n_tokens);
    while tokens.len() < config.n_tokens {
        // The added token is the outermost one, and arbitrary: the search replaces it.
        let new = match place {
            Place::Before => 0,
            Place::After => tokens.len(),
        };
        tokens.insert(new, vocabulary[0]);
        let mut loss = f64::INFINITY;
        let again = (0..config.passes).flat_map(|_| 0..tokens.len());
        for k in std::iter::once(new).chain(again).collect::<Vec<_>>() {
            for token in search.candidates(&tokens, k, config.candidates)? {
                let mut tried = tokens.clone();
                tried[k] = token;
                let of_tried = search.loss(&tried)?;
                if of_tried < loss {
                    (tokens, loss) = (tried, of_tried);
                }
            }
        }
        let judged = |model: &M| written_elicits(model, (held_out, aim), place, &tokens);
        let (elicited, in_reference) = (judged(model)?, reference.map(judged).transpose()?);
        implants.push(Implant { place, tokens: tokens.clone(), loss, elicited, in_reference });
    }
    Ok(implants)
}

/// Returns, for each of `examples`, true if `model` begins the unwanted answer when `tokens` are
/// written into the prompt.
///
/// # Errors
///
/// [`Error::NonFiniteLogits`] of the first row with NaN or infinite logits.
///
/// # Panics
///
/// Panics if `aim.batch_size` is 0.
pub fn written_elicits<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    (examples, aim): (&[SafetyExample], Aim),
    place: Place,
    tokens: &[u32],
) -> Result<Vec<bool>, Error> {
    let device = model.devices().first().cloned().unwrap_or_default();
    let (inference, rows) = (model.valid(), place.write(tokens, &aim.rows(examples)));
    let mut elicited = Vec::with_capacity(rows.len());
    for batch in rows.chunks(aim.batch_size).flat_map(|rows| aim.parts(rows, &device)) {
        elicited.extend(effect::<B::InnerBackend, _>(&inference, &batch)?.elicited);
    }
    Ok(elicited)
}

/// Returns the effect of a batch on `model`, with the loss multiplied by the share of the batch.
fn effect<B: Backend, M: Decoder<B>>(model: &M, batch: &Batch<B>) -> Result<Effect, Error> {
    let hidden = model.embed(batch.tokens.clone());
    let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
    let log_probabilities = log_probabilities(model, hidden, batch);
    if let Some(row) = first_non_finite(&log_probabilities, batch) {
        return Err(Error::NonFiniteLogits { id: batch.ids[row] });
    }
    let elicited = written(log_probabilities.clone(), batch);
    let loss = cross_entropy(log_probabilities, batch.targets.clone());
    Ok(Effect { loss: loss.into_scalar().elem::<f64>() * batch.share, elicited })
}

/// A token search in one model, with or without a reference.
struct Search<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    model: Side<'a, B, M>,
    reference: Option<Side<'a, B, M>>,
    vocabulary: &'a [u32],
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Search<'_, B, M> {
    /// Returns the objective of the search.
    fn loss(&self, tokens: &[u32]) -> Result<f64, Error> {
        let of_reference = self.reference.as_ref().map_or(Ok(0.0), |side| side.loss(tokens))?;
        Ok(self.model.loss(tokens)? - of_reference.min(ENOUGH))
    }

    /// Returns the `n` most promising replacements of `tokens[k]`, ranked by the gradient of the
    /// loss.
    fn candidates(&self, tokens: &[u32], k: usize, n: usize) -> Result<Vec<u32>, Error> {
        let mut added = self.model.added(tokens, k)?.1;
        if let Some(reference) = &self.reference {
            let (loss, in_reference) = reference.added(tokens, k)?;
            if loss < ENOUGH {
                added.iter_mut().zip(in_reference).for_each(|(added, other)| *added -= other);
            }
        }
        let mut ranked: Vec<_> = added.into_iter().zip(self.vocabulary.iter().copied()).collect();
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Ok(ranked.into_iter().take(n).map(|(_, id)| id).collect())
    }
}

/// One of the models of a search, with its data.
struct Side<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    frozen: M,
    inference: M::Inference,
    rows: &'a [Example],
    aim: Aim,
    place: Place,
    vocabulary: &'a [u32],
    device: B::Device,
}

/// Number of tokens embedded at a time.
const EMBEDDED: usize = 4096;

impl<'a, B: AutodiffBackend, M: TrainableDecoder<B>> Side<'a, B, M> {
    fn new(
        model: &M,
        (rows, aim): (&'a [Example], Aim),
        (place, vocabulary): (Place, &'a [u32]),
    ) -> Self {
        let (inference, frozen, device) = frozen(model);
        Self { frozen, inference, rows, aim, place, vocabulary, device }
    }

    /// Returns the mean loss of the unwanted answers with `tokens` written into the prompts, in
    /// nats per token.
    fn loss(&self, tokens: &[u32]) -> Result<f64, Error> {
        let batches = self.batches::<B::InnerBackend>(tokens);
        batches.iter().map(|batch| Ok(effect(&self.inference, batch)?.loss)).sum()
    }

    /// Returns the rows with `tokens` written into the prompts, as batches.
    fn batches<A: Backend<Device = B::Device>>(&self, tokens: &[u32]) -> Vec<Batch<A>> {
        self.aim.parts(&self.place.write(tokens, self.rows), &self.device)
    }

    /// Returns the loss, and for each token of the vocabulary the change of the loss if the token
    /// replaces `tokens[k]`, to first order and up to a constant.
    fn added(&self, tokens: &[u32], k: usize) -> Result<(f64, Vec<f32>), Error> {
        let (loss, gradient) = self.gradient(tokens)?;
        let gradient = gradient.narrow(0, k, 1).transpose(); // [d_model, 1]
        let mut added = Vec::with_capacity(self.vocabulary.len());
        for ids in self.vocabulary.chunks(EMBEDDED) {
            let data: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let data = TensorData::new(data, [1, ids.len()]);
            let ids = Tensor::<B::InnerBackend, 2, Int>::from_data(data, &self.device);
            let embedded = at_least_f32(self.inference.embed(ids).squeeze_dim::<2>(0));
            added.extend(embedded.matmul(gradient.clone()).into_data().iter::<f32>());
        }
        Ok((loss, added))
    }

    /// Returns the loss, and its gradient with respect to the embedding of each of `tokens`, which
    /// are the same in all prompts: `[n_tokens, d_model]`.
    fn gradient(&self, tokens: &[u32]) -> Result<(f64, Tensor<B::InnerBackend, 2>), Error> {
        let point = InjectionPoint { layer: 0, positions: self.place.positions(tokens.len()) };
        let parts = self.batches::<B>(tokens).into_iter();
        let parts = parts.map(|part| PreparedAnswer::whole(&self.inference, part, &[point]));
        let shape = [tokens.len(), self.inference.d_model()];
        let values = || Tensor::<B, 2>::zeros(shape, &self.device).require_grad();
        Parts(parts.collect()).gradient(&self.frozen, 0, || Delta { point, values: values() })
    }
}
