//! The steps of latent adversarial training, and its state between two steps.

use burn::tensor::ElementConversion;
use burn::tensor::backend::AutodiffBackend;

use super::{AnswerPair, LatentAdversarialConfig, attack};
use crate::baselines::sample_perturbation::{PromptMask, SamplePerturbation};
use crate::batch::Batch;
use crate::batch::example::AnchorSets;
use crate::batch::sampler::AnchorSampler;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::event::Observer;
use crate::method::outer_level::{self, OuterLevel};
use crate::objective::removal::{RemovalLoss, RemovalTerms, RemovalWeights};
use crate::optim::weight_step::{LossGradient, StepGradient, WeightStep};
use crate::perturbation::Perturbation;
use crate::state::progress::{AttackNumbers, OuterNumbers};
use crate::state::snapshot::{Saved, Tensors, malformed};

/// State of latent adversarial training between two steps. Training alternates between an attack on
/// a batch of prompts and a few steps under the attack.
pub(in crate::baselines) struct LatentAdversarial<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: LatentAdversarialConfig,
    original: Option<M::InnerModule>,
    weight_step: WeightStep<B, M>,
    rows: AnchorSampler,
    attacked: Option<Attacked<B>>,
}

/// Batch under the current attack.
struct Attacked<B: AutodiffBackend> {
    /// Indices of the rows in the safety set.
    rows: Vec<usize>,
    answers: AnswerPair<B>,
    found: SamplePerturbation<B::InnerBackend>,
}

/// Prefix of the names of the attack's tensors in a snapshot.
const ATTACK: &str = "attack";

impl<B: AutodiffBackend, M: TrainableDecoder<B>> LatentAdversarial<B, M> {
    pub(in crate::baselines) fn new(
        config: LatentAdversarialConfig,
        model: &M,
        sets: &AnchorSets,
    ) -> Self {
        let LatentAdversarialConfig { remove, seed, .. } = &config;
        Self {
            original: (remove.divergence_weight > 0.0).then(|| model.valid()),
            weight_step: WeightStep::new(remove, remove.steps, *seed),
            rows: AnchorSampler::new(sets, *seed),
            attacked: None,
            config,
        }
    }

    /// Returns true if the next step is the first under a fresh attack.
    fn attacks_next(&self) -> bool {
        self.weight_step.n_steps().is_multiple_of(self.config.steps_per_attack)
    }
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> OuterLevel<B, M> for LatentAdversarial<B, M> {
    fn step(
        &mut self,
        model: M,
        (_, is_last): (Option<&Perturbation<B::InnerBackend>>, bool),
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error> {
        let device = model.devices().first().cloned().unwrap_or_default();
        if self.attacks_next() {
            let rows = self.rows.safety_rows(self.config.remove.safety_batch_size);
            let answers = AnswerPair::of_rows(&rows, sets, &device);
            let found = attack(&model, &answers, &self.config.attack, observer)?;
            self.attacked = Some(Attacked { rows, answers, found });
        }
        let config = &self.config.remove;
        let Attacked { answers, found, .. } =
            self.attacked.as_ref().expect("the first step attacks");
        let perturbation = SamplePerturbation::constant(found);
        let ordinary = self.rows.performance(sets, config.performance_batch_size);
        let ordinary = Batch::new(&ordinary, &device);
        let (safety, away) = answers.resist(&model, &perturbation);
        let loss = RemovalLoss::with_safety(safety, &model, self.original.as_ref(), &ordinary);
        let penalty = away.clone().into_scalar().elem();
        let total =
            loss.total(RemovalWeights::from(config)) + away.mul_scalar(self.config.away_weight);
        let terms = RemovalTerms { penalty: Some(penalty), ..loss.terms() };
        let gradient = StepGradient {
            loss: LossGradient::of(total, terms, &model),
            safety: &answers.safe.ids,
            performance: &ordinary.ids,
            is_last,
        };
        self.weight_step.step(model, gradient, observer)
    }

    fn save(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers {
        let numbers = outer_level::save((&self.weight_step, &self.rows), model, tensors);
        let attacked = self.attacked.as_ref().filter(|_| !self.attacks_next());
        let attack = attacked.map(|Attacked { rows, found, .. }| {
            for (k, values) in found.values().iter().enumerate() {
                tensors.add(format!("{ATTACK}.{k}"), values.clone());
            }
            AttackNumbers { rows: rows.clone(), layers: found.layers().to_vec() }
        });
        OuterNumbers { attack, ..numbers }
    }

    fn restore(
        self: Box<Self>,
        (model, sets): (&M, &AnchorSets),
        (saved, numbers): (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error> {
        let (weight_step, rows) =
            outer_level::restore(self.weight_step, (model, sets), (saved, numbers))?;
        let level = Self { weight_step, rows, attacked: None, ..*self };
        if numbers.attack.is_none() != level.attacks_next() {
            return Err(malformed("it attacks at other steps"));
        }
        let attacked = numbers.attack.as_ref();
        let attacked = attacked.map(|attack| level.stored_attack((model, sets), (saved, attack)));
        Ok(Box::new(Self { attacked: attacked.transpose()?, ..level }))
    }
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> LatentAdversarial<B, M> {
    /// Restores the attack that [`save`](OuterLevel::save) stored.
    fn stored_attack(
        &self,
        (model, sets): (&M, &AnchorSets),
        (saved, numbers): (Saved<'_>, &AttackNumbers),
    ) -> Result<Attacked<B>, Error> {
        let AttackNumbers { rows, layers } = numbers;
        let LatentAdversarialConfig { attack, remove, .. } = &self.config;
        let are_rows = rows.iter().all(|row| *row < sets.safety.len());
        if !are_rows || rows.len() != remove.safety_batch_size {
            return Err(malformed("other rows are attacked"));
        }
        if *layers != attack.layers {
            return Err(malformed("other layers are attacked"));
        }
        let device = model.devices().first().cloned().unwrap_or_default();
        let answers = AnswerPair::of_rows(rows, sets, &device);
        let prompts = PromptMask::new(&answers.safe.inner());
        let [batch_size, prompt_length] = prompts.size();
        let shape = [batch_size * prompt_length, model.d_model()];
        let values =
            (0..layers.len()).map(|k| saved.tensor(&format!("{ATTACK}.{k}"), Some(shape), &device));
        let values = values.collect::<Result<Vec<_>, Error>>()?;
        let found = SamplePerturbation::new(layers.clone(), values, prompts);
        Ok(Attacked { rows: rows.clone(), answers, found })
    }
}
