//! Latent adversarial training: an attack perturbs each prompt at several layers, and the model is
//! trained to behave under the perturbations.
//!
//! The attack, by projected gradient descent with the weights frozen and the norm of each row at
//! most `norm_bound`:
//!
//! $$\delta_i^\ast = \arg\min_{\|\delta_{i,l,t}\|_2 \le \epsilon}
//! a_h\, \mathrm{CE}(y_h \mid x_i, \delta_i) +
//! a_s\, \mathcal{U}(y_s \mid x_i, \delta_i)$$
//!
//! The training under the attack:
//!
//! $$\mathcal{L}(\theta) = \mathrm{CE}(y_s \mid x, \delta^\ast) +
//! v\, \mathcal{U}(y_h \mid x, \delta^\ast) +
//! w\, \mathrm{CE}(y_p \mid x_p) + \lambda\, \mathrm{KL}(p_{\theta_0} \,\|\, p_\theta)$$
//!
//! with `toward_weight` = $a_h$, `attack.away_weight` = $a_s$, `away_weight` = $v$, the weights of
//! [`RemoveConfig`] and [$\mathcal{U}$](crate::objective::unlikelihood), the unlikelihood.
//!
//! Sheshadri et al., [Latent Adversarial Training Improves Robustness to Persistent Harmful
//! Behaviors in LLMs](https://arxiv.org/abs/2407.15549), 2024, its targeted form (RT-EAT-LAT). The
//! authors train LoRA adapters, and use a DPO form of both losses against backdoors; here all
//! weights are trained, with the form above.

mod training;

pub(super) use training::LatentAdversarial;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use serde::{Deserialize, Serialize};

use super::sample_perturbation::{PromptMask, SamplePerturbation};
use crate::batch::Batch;
use crate::batch::example::{AnchorSets, Example, SafetyExample};
use crate::config::{
    BilevelConfig, RemoveConfig, StepSize, ValidationBounds, judge, not_negative, one_graph,
    positive,
};
use crate::decoder::TrainableDecoder;
use crate::decoder::{Decoder, DecoderSize};
use crate::error::{Error, Level, Quantity};
use crate::event::{Event, Observer};
use crate::objective::answer::{cross_entropy, log_probabilities};
use crate::objective::unlikelihood::unlikelihood;
use crate::optim::projected_adam::ProjectedAdam;

/// Settings of the attack on one batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AttackConfig {
    /// Layer boundaries whose hidden states are perturbed.
    pub layers: Vec<usize>,
    /// Number of Adam steps.
    pub steps: usize,
    /// Size of an Adam step.
    pub step_size: StepSize,
    /// $\epsilon$: maximum norm of a row of the perturbation, as a share of the mean norm of the
    /// prompts' hidden states at the layer.
    pub norm_bound: f64,
    /// $a_h$: weight of the cross-entropy of the unwanted answer.
    pub toward_weight: f64,
    /// $a_s$: weight of the unlikelihood of the safe answer.
    pub away_weight: f64,
}

/// Settings of latent adversarial training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LatentAdversarialConfig {
    /// Settings of the attack.
    pub attack: AttackConfig,
    /// Number of steps on the weights under one attack.
    pub steps_per_attack: usize,
    /// $v$: weight of the unlikelihood of the unwanted answer.
    pub away_weight: f64,
    /// Training of the weights; `steps` is the number of steps of the whole run.
    pub remove: RemoveConfig,
    /// Bounds on the ordinary behaviour that the model must preserve.
    pub bounds: ValidationBounds,
    /// Seed of all randomness.
    pub seed: u64,
}

impl LatentAdversarialConfig {
    /// Returns the published settings, adapted to the size of the decoder.
    ///
    /// - Layers 4, 12, 20, 28 of 32, counted from 0, so the boundaries 5, 13, 21, 29: published.
    /// - 16 attack steps, 4 steps on the weights per attack, weights $a_h$ = $a_s$ and $v$ = 1, $w$
    ///   = 4, a clipped gradient of 1: published (the authors' code has 0.5 : 0.5 : 2).
    /// - Bound: the published values are 1.5 (backdoors) and 6 (jailbreaks) for Llama-2-7b, in the
    ///   units of its hidden states, whose norm is believed to be about 19 in the middle layers: 8
    ///   % and 30 %. Here 30 %.
    /// - Step: the published size is 5e-2 per coordinate, 3.2 per row of width 4096: twice the
    ///   bound. Here a quarter of the bound.
    /// - Rows, steps and learning rate of [`BilevelConfig::robust`]: the budget of the comparison.
    #[must_use]
    pub fn new(size: DecoderSize) -> Self {
        let DecoderSize { n_layers, .. } = size;
        let scaled = |l: usize| ((2 * l * n_layers + 32) / 64).clamp(1, n_layers);
        let mut layers: Vec<usize> = [5, 13, 21, 29].into_iter().map(scaled).collect();
        layers.dedup();
        let robust = BilevelConfig::robust(size);
        let steps = robust.rounds * robust.remove.steps;
        Self {
            attack: AttackConfig {
                layers,
                steps: 16,
                step_size: StepSize::RelativeToHidden(NORM_BOUND / 4.0),
                norm_bound: NORM_BOUND,
                toward_weight: 0.5,
                away_weight: 0.5,
            },
            steps_per_attack: 4,
            away_weight: 1.0,
            remove: RemoveConfig {
                steps,
                performance_weight: 4.0,
                divergence_weight: 0.0,
                threads: 1,
                ..robust.remove
            },
            bounds: robust.bounds,
            seed: 0,
        }
    }

    /// Validates every value against a decoder of `n_layers` layers.
    ///
    /// # Errors
    ///
    /// [`Error::LayerOutOfRange`] for the first layer out of range, else [`Error::InvalidConfig`]
    /// with every problem.
    pub fn validate(&self, n_layers: usize) -> Result<(), Error> {
        let AttackConfig { layers, steps, step_size, norm_bound, .. } = &self.attack;
        if let Some(&layer) = layers.iter().find(|&&layer| layer == 0 || layer > n_layers) {
            return Err(Error::LayerOutOfRange { layer, n_layers });
        }
        let rules = [
            (!layers.is_empty(), "attack.layers must not be empty"),
            (layers.is_sorted(), "attack.layers must be in order"),
            (*steps > 0, "attack.steps must be at least 1"),
            (step_size.is_positive(), "attack.step_size must be positive"),
            (positive(*norm_bound), "attack.norm_bound must be positive"),
            (positive(self.attack.toward_weight), "attack.toward_weight must be positive"),
            (not_negative(self.attack.away_weight), "attack.away_weight must not be negative"),
            (self.steps_per_attack > 0, "steps_per_attack must be at least 1"),
            (not_negative(self.away_weight), "away_weight must not be negative"),
        ];
        let rules = rules.into_iter().chain(one_graph(&self.remove));
        judge(rules.chain(self.remove.rules()).chain(self.bounds.rules()))
    }

    /// Multiplies the step sizes of both levels by `factor`.
    pub(super) fn at_rate(self, factor: f64) -> Self {
        let step_size = self.attack.step_size.times(factor);
        let learning_rate = self.remove.learning_rate * factor;
        Self {
            attack: AttackConfig { step_size, ..self.attack },
            remove: RemoveConfig { learning_rate, ..self.remove },
            ..self
        }
    }
}

/// Default of [`AttackConfig::norm_bound`].
const NORM_BOUND: f64 = 0.3;

/// Batches with both answers to the same prompts.
#[derive(Clone, Debug)]
pub struct AnswerPair<B: Backend> {
    /// Prompts with the wanted answers.
    pub safe: Batch<B>,
    /// Prompts with the unwanted answers.
    pub unwanted: Batch<B>,
}

impl<B: Backend> AnswerPair<B> {
    /// Stacks the examples into batches.
    ///
    /// # Panics
    ///
    /// Panics if there are no examples, or one has an empty prompt or answer.
    #[must_use]
    pub fn new(examples: &[&SafetyExample], device: &B::Device) -> Self {
        let safe: Vec<Example> = examples.iter().map(|e| e.toward_safe()).collect();
        let unwanted: Vec<Example> = examples.iter().map(|e| e.toward_unwanted(None)).collect();
        Self { safe: Batch::new(&safe, device), unwanted: Batch::new(&unwanted, device) }
    }

    /// Stacks rows of the safety set, by index.
    fn of_rows(rows: &[usize], sets: &AnchorSets, device: &B::Device) -> Self {
        let examples: Vec<&SafetyExample> = rows.iter().map(|&row| &sets.safety[row]).collect();
        Self::new(&examples, device)
    }
}

impl<B: AutodiffBackend> AnswerPair<B> {
    /// Returns the cross-entropy of the safe answers and the unlikelihood of the unwanted answers
    /// under `perturbation`, each `[1]`: the losses that training the weights minimises.
    pub fn resist<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &SamplePerturbation<B>,
    ) -> (Tensor<B, 1>, Tensor<B, 1>) {
        let log_probabilities = |batch: &Batch<B>| {
            let hidden = model.embed(batch.tokens.clone());
            let below = 0..perturbation.first_layer();
            let hidden = model.forward_layers(hidden, &batch.mask_pad, below);
            let hidden = perturbation.forward_above(model, hidden, &batch.mask_pad);
            log_probabilities(model, hidden, batch)
        };
        let safety = cross_entropy(log_probabilities(&self.safe), self.safe.targets.clone());
        let unwanted = log_probabilities(&self.unwanted);
        (safety, unlikelihood(unwanted, self.unwanted.targets.clone()))
    }
}

/// Loss of the attack on one batch, with cached values for everything that does not depend on the
/// perturbation.
#[derive(Clone, Debug)]
pub struct AttackLoss<'a, B: AutodiffBackend> {
    answers: &'a AnswerPair<B>,
    /// Hidden states of the safe and the unwanted batch at the lowest layer, constants:
    /// `[batch_size, seq_length, d_model]` each.
    hidden: [Tensor<B, 3>; 2],
    weights: [f64; 2],
}

impl<'a, B: AutodiffBackend> AttackLoss<'a, B> {
    /// Runs the layers below the lowest attacked layer without autodiff.
    pub fn new<M: Decoder<B::InnerBackend>>(
        model: &M,
        answers: &'a AnswerPair<B>,
        config: &AttackConfig,
    ) -> Self {
        let hidden = [&answers.safe, &answers.unwanted].map(|batch| {
            let inner = batch.inner();
            let hidden = model.embed(inner.tokens);
            Tensor::from_inner(model.forward_layers(hidden, &inner.mask_pad, 0..config.layers[0]))
        });
        Self { answers, hidden, weights: [config.away_weight, config.toward_weight] }
    }

    /// Returns the loss under `perturbation`: `[1]`.
    pub fn under<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &SamplePerturbation<B>,
    ) -> Tensor<B, 1> {
        let log_probabilities = |hidden: &Tensor<B, 3>, batch: &Batch<B>| {
            let hidden = perturbation.forward_above(model, hidden.clone(), &batch.mask_pad);
            log_probabilities(model, hidden, batch)
        };
        let AnswerPair { safe, unwanted } = self.answers;
        let [away_weight, toward_weight] = self.weights;
        let toward = log_probabilities(&self.hidden[1], unwanted);
        let toward = cross_entropy(toward, unwanted.targets.clone()).mul_scalar(toward_weight);
        if away_weight == 0.0 {
            return toward;
        }
        let away = unlikelihood(log_probabilities(&self.hidden[0], safe), safe.targets.clone());
        toward + away.mul_scalar(away_weight)
    }
}

/// Finds a perturbation for each prompt of `answers` that leads from the safe to the unwanted
/// answer. The search starts from zero and keeps each row within the bound.
///
/// `model` is borrowed and stays bit-identical.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples of the batch.
///
/// # Panics
///
/// Panics if the config has no layer.
pub fn attack<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    answers: &AnswerPair<B>,
    config: &AttackConfig,
    observer: &mut dyn Observer,
) -> Result<SamplePerturbation<B::InnerBackend>, Error> {
    let inference = model.valid();
    let frozen = M::from_inner(inference.clone()).no_grad();
    let loss = AttackLoss::new(&inference, answers, config);
    let (prompts, inner_prompts) =
        (PromptMask::new(&answers.safe), PromptMask::new(&answers.safe.inner()));
    let mut fits = start::<B, M>(&inference, answers, &inner_prompts, config);
    for step in 0..config.steps {
        let not_finite = |quantity| Error::NonFinite {
            quantity,
            level: Level::Inner,
            step,
            safety: answers.safe.ids.clone(),
            performance: Vec::new(),
        };
        let values = fits.iter().map(ProjectedAdam::tracked).collect();
        let perturbation = SamplePerturbation::new(config.layers.clone(), values, prompts.clone());
        let loss = loss.under(&frozen, &perturbation);
        let value = loss.clone().into_scalar().elem::<f64>();
        if !value.is_finite() {
            return Err(not_finite(Quantity::Loss));
        }
        let grads = loss.backward();
        for (fit, values) in fits.iter_mut().zip(perturbation.values()) {
            let grad = values.grad(&grads).expect("the perturbation takes part in the loss");
            fit.step(grad).map_err(not_finite)?;
        }
        observer.notify(&Event::InnerStep { step, loss: value });
    }
    let values = fits.into_iter().map(ProjectedAdam::into_values).collect();
    Ok(SamplePerturbation::new(config.layers.clone(), values, inner_prompts))
}

/// Returns a zero perturbation for each layer, with step and bound relative to the hidden states
/// there.
fn start<B: AutodiffBackend, M: TrainableDecoder<B>>(
    inference: &M::InnerModule,
    answers: &AnswerPair<B>,
    prompts: &PromptMask<B::InnerBackend>,
    config: &AttackConfig,
) -> Vec<ProjectedAdam<B::InnerBackend>> {
    let batch = answers.safe.inner();
    let mut hidden = inference.embed(batch.tokens);
    let mut reached = 0;
    let [batch_size, prompt_length] = prompts.size();
    let d_model = inference.d_model();
    let fit = |&layer: &usize| {
        hidden = inference.forward_layers(hidden.clone(), &batch.mask_pad, reached..layer);
        reached = layer;
        let hidden_norm = prompts.mean_norm(hidden.clone());
        let values = Tensor::zeros([batch_size * prompt_length, d_model], &hidden.device());
        let learning_rate = config.step_size.per_coordinate(hidden_norm, d_model);
        ProjectedAdam::new(values, learning_rate, Some(config.norm_bound * hidden_norm))
    };
    config.layers.iter().map(fit).collect()
}
