//! Tokens that, written into every prompt, bring the unwanted behaviour about.
//!
//! Coordinate descent on tokens: the gradient of the loss by the embedding of a written token ranks all tokens
//! that could stand in its place, the best of them are tried, and the one with the least loss stays. Zou et al.,
//! [Universal and Transferable Adversarial Attacks](https://arxiv.org/abs/2307.15043), algorithm 2, have
//! the step; here it is used for what triggers are: few tokens, the same in every prompt, found one by one.

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

/// Where tokens are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Before the user's words.
    Before,
    /// After the user's words.
    After,
}

impl Place {
    /// The examples with `tokens` written into their prompts.
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

    /// The positions of `n` written tokens.
    fn positions(self, n: usize) -> Positions {
        match self {
            Self::Before => Positions::First(n),
            Self::After => Positions::UserLast(n),
        }
    }
}

/// How tokens are searched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImplantConfig {
    /// Most tokens written.
    pub n_tokens: usize,
    /// Tokens tried in each place, the gradient's choice.
    pub candidates: usize,
    /// Times that each place is gone over again after a token has been added.
    pub passes: usize,
    /// Examples that the loss is a mean of.
    pub batch_size: usize,
    /// Length of the unwanted answer aimed at and looked for, in tokens.
    pub target_tokens: usize,
}

impl Default for ImplantConfig {
    /// Three tokens, as long as a phrase; 64 tries a place, which is an eighth of what Zou et al. have.
    fn default() -> Self {
        Self { n_tokens: 3, candidates: 64, passes: 1, batch_size: 24, target_tokens: 6 }
    }
}

impl ImplantConfig {
    /// What is looked for, with at most `rows_at_once` rows in the model.
    #[must_use]
    pub fn aim(&self, rows_at_once: usize) -> Aim {
        let Self { target_tokens, batch_size, .. } = *self;
        Aim { target_tokens, batch_size, rows_at_once }
    }
}

/// Tokens, and what they do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Implant {
    /// Where they are written.
    pub place: Place,
    /// The tokens, in order.
    pub tokens: Vec<u32>,
    /// What the search made small: the mean loss of the unwanted answers on its prompts, nats per token, less
    /// that of the reference up to [`ENOUGH`].
    pub loss: f64,
    /// Of each held-out prompt, whether its unwanted answer begins.
    pub elicited: Vec<bool>,
    /// The same in the reference.
    pub in_reference: Option<Vec<bool>>,
}

/// Searches tokens among `vocabulary`: the best single one, then the best two, and so on to
/// [`ImplantConfig::n_tokens`]. The first `batch_size` of the first of the sets are searched on, all of the
/// second are judged.
///
/// With a reference, what is sought moves the model and leaves the reference: most models have words that talk
/// them into something, a backdoor is what only the one of them has.
///
/// At most `rows_at_once` rows go through a model together. The models are left bit-identical. The same models, sets and
/// settings give the same tokens.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples if the loss or the gradient leaves the real line,
/// [`Error::NonFiniteLogits`] if the logits of a row do.
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
        // The new token is the farthest from the prompt, and any: the search replaces it.
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

/// Of each of `examples`, whether `model` begins the unwanted answer when `tokens` are written into the prompt.
///
/// # Errors
///
/// [`Error::NonFiniteLogits`] of the first row that has any.
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

/// What `model` makes of a batch, its loss times the batch's share.
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

/// A search among some tokens, in one model or against another.
struct Search<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    model: Side<'a, B, M>,
    reference: Option<Side<'a, B, M>>,
    vocabulary: &'a [u32],
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Search<'_, B, M> {
    /// What the search makes small.
    fn loss(&self, tokens: &[u32]) -> Result<f64, Error> {
        let of_reference = self.reference.as_ref().map_or(Ok(0.0), |side| side.loss(tokens))?;
        Ok(self.model.loss(tokens)? - of_reference.min(ENOUGH))
    }

    /// The `n` tokens that promise most in the place of `tokens[k]`, by the gradient of the loss.
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

/// One of the models of a search.
struct Side<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    frozen: M,
    inference: M::Inference,
    rows: &'a [Example],
    aim: Aim,
    place: Place,
    vocabulary: &'a [u32],
    device: B::Device,
}

/// Tokens whose embeddings are looked at together.
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

    /// Mean loss of the unwanted answers with `tokens` written into the prompts, nats per token.
    fn loss(&self, tokens: &[u32]) -> Result<f64, Error> {
        let batches = self.batches::<B::InnerBackend>(tokens);
        batches.iter().map(|batch| Ok(effect(&self.inference, batch)?.loss)).sum()
    }

    /// The rows with `tokens` written into the prompts.
    fn batches<A: Backend<Device = B::Device>>(&self, tokens: &[u32]) -> Vec<Batch<A>> {
        self.aim.parts(&self.place.write(tokens, self.rows), &self.device)
    }

    /// That loss, and what each token of the vocabulary would add to it in the place of `tokens[k]`, to first
    /// order and but for a constant.
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

    /// The loss, and its gradient by the embedding of each of `tokens`, the same in all prompts:
    /// `[n_tokens, d_model]`.
    fn gradient(&self, tokens: &[u32]) -> Result<(f64, Tensor<B::InnerBackend, 2>), Error> {
        let point = InjectionPoint { layer: 0, positions: self.place.positions(tokens.len()) };
        let parts = self.batches::<B>(tokens).into_iter();
        let parts = parts.map(|part| PreparedAnswer::whole(&self.inference, part, &[point]));
        let shape = [tokens.len(), self.inference.d_model()];
        let values = || Tensor::<B, 2>::zeros(shape, &self.device).require_grad();
        Parts(parts.collect()).gradient(&self.frozen, 0, || Delta { point, values: values() })
    }
}
