//! `AdamW` with moments and updates in f32 or wider, whatever the type of the weights.
//!
//! Loshchilov and Hutter, [Decoupled Weight Decay
//! Regularization](https://arxiv.org/abs/1711.05101). Burn keeps the moments in the type of the
//! weights: in bf16 the second moment changes by 0.1 % per step, less than its last digit, and a
//! step on a weight is lost as easily. Here Burn's update runs on widened weights and gradients,
//! and only its result is rounded, according to [`WeightUpdate`]. Weights of f32 and wider take the
//! same steps as with Burn's optimiser, bit for bit.

use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::record::Record;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, FloatDType, Tensor};

use super::projected_adam::ADAM_EPSILON;
use super::rounding::{is_narrow, stochastic};
use crate::config::{OptimizerState, RemoveConfig, WeightUpdate};
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::objective::answer::at_least_f32;
use crate::optim::eight_bit::{Blocks, FIRST, Levels, SECOND};
use crate::state::snapshot::{Saved, Tensors};

/// `AdamW` with moments and updates in f32 or wider.
#[derive(Clone)]
pub(crate) struct WideAdamW {
    adamw: AdamW,
    weight_update: WeightUpdate,
    optimizer_state: OptimizerState,
}

/// State of one tensor of weights between steps.
#[derive(Record, Clone)]
pub(crate) struct WideState<B: Backend, const D: usize> {
    /// Number of steps taken.
    time: usize,
    /// Mean of the gradient, in the type of [`OptimizerState`].
    moment_1: Moment<B, D>,
    /// Mean of the squared gradient, in the type of [`OptimizerState`].
    moment_2: Moment<B, D>,
    /// Weights without rounding, kept with [`WeightUpdate::Master`].
    master: Option<Tensor<B, D>>,
}

/// A moment of the gradient, as stored between steps.
#[derive(Record, Clone)]
enum Moment<B: Backend, const D: usize> {
    /// One number per weight.
    Each(Tensor<B, D>),
    /// One 8-bit code per weight.
    Blocks(Blocks<B>),
}

impl<B: Backend, const D: usize> Moment<B, D> {
    /// Stores `values` in the format of `state`.
    fn kept(values: Tensor<B, D>, levels: Levels, state: OptimizerState) -> Self {
        match state {
            OptimizerState::F32 => Self::Each(values),
            OptimizerState::BF16 => Self::Each(stochastic(values, DType::BF16)),
            OptimizerState::EightBit => Self::Blocks(Blocks::of(values, levels)),
        }
    }

    /// Returns the values in f32 or wider.
    fn wide(self, shape: [usize; D], levels: Levels) -> Tensor<B, D> {
        match self {
            Self::Each(values) => at_least_f32(values),
            Self::Blocks(blocks) => blocks.values(shape, levels),
        }
    }

    fn moved_to(self, device: &B::Device) -> Self {
        match self {
            Self::Each(values) => Self::Each(values.to_device(device)),
            Self::Blocks(blocks) => Self::Blocks(blocks.moved_to(device)),
        }
    }

    fn save(self, name: String, tensors: &mut Tensors) {
        match self {
            Self::Each(values) => tensors.add(name, values),
            Self::Blocks(blocks) => blocks.save(&name, tensors),
        }
    }

    /// Restores the moment of weights of `shape` that [`save`](Self::save) stored.
    fn restore(
        name: &str,
        saved: Saved<'_>,
        (shape, device): ([usize; D], &B::Device),
    ) -> Result<Self, Error> {
        if (saved.tensors)(name).is_some() {
            return Ok(Self::Each(saved.tensor(name, Some(shape), device)?));
        }
        Ok(Self::Blocks(Blocks::restore(name, saved, (shape.iter().product(), device))?))
    }
}

impl<B: Backend, const D: usize> WideState<B, D> {
    /// Saves everything except the number of steps, which the run saves.
    pub(crate) fn save(self, name: &str, tensors: &mut Tensors) {
        self.moment_1.save(format!("{name}.moment_1"), tensors);
        self.moment_2.save(format!("{name}.moment_2"), tensors);
        if let Some(master) = self.master {
            tensors.add(format!("{name}.master"), master);
        }
    }

    /// Restores the state of weights of `shape` that [`save`](Self::save) stored after `time`
    /// steps.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if a moment is missing or has another shape.
    pub(crate) fn restore(
        name: &str,
        (saved, time): (Saved<'_>, usize),
        place: ([usize; D], &B::Device),
    ) -> Result<Self, Error> {
        let moment = |moment: &str| Moment::restore(&format!("{name}.{moment}"), saved, place);
        let (moment_1, moment_2) = (moment("moment_1")?, moment("moment_2")?);
        let master = format!("{name}.master");
        let (shape, device) = place;
        let master = match (saved.tensors)(&master) {
            Some(_) => Some(saved.tensor(&master, Some(shape), device)?),
            None => None,
        };
        Ok(Self { time, moment_1, moment_2, master })
    }
}

impl WideAdamW {
    pub(crate) fn new(config: &RemoveConfig) -> Self {
        let adamw = AdamWConfig::new()
            .with_epsilon(ADAM_EPSILON)
            .with_weight_decay(config.weight_decay as f32)
            .build();
        let RemoveConfig { weight_update, optimizer_state, .. } = *config;
        Self { adamw, weight_update, optimizer_state }
    }

    /// Returns the optimiser of a whole model.
    pub(crate) fn of_model<B: AutodiffBackend, M: TrainableDecoder<B>>(
        self,
    ) -> OptimizerAdaptor<Self, M, B> {
        OptimizerAdaptor::from(self)
    }

    /// Returns true if a step on weights of `dtype` draws from the backend's generator.
    pub(crate) fn draws(&self, dtype: DType) -> bool {
        self.optimizer_state != OptimizerState::F32
            || self.weight_update == WeightUpdate::Stochastic && is_narrow(dtype)
    }
}

impl<B: Backend> SimpleOptimizer<B> for WideAdamW {
    type State<const D: usize> = WideState<B, D>;

    fn step<const D: usize>(
        &self,
        learning_rate: f64,
        weights: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<WideState<B, D>>,
    ) -> (Tensor<B, D>, Option<WideState<B, D>>) {
        let dtype = weights.dtype();
        let (moments, master) = match state {
            Some(state) => {
                let (first, second) = (state.moment_1, state.moment_2);
                let shape = weights.dims();
                let (first, second) = (first.wide(shape, FIRST), second.wide(shape, SECOND));
                let momentum = AdaptiveMomentumState::new(state.time, first, second);
                (Some(AdamWState::new(momentum)), state.master)
            }
            None => (None, None),
        };
        let wide = master.unwrap_or_else(|| at_least_f32(weights));
        let (wide, moments) = self.adamw.step(learning_rate, wide, at_least_f32(grad), moments);
        let state = moments.map(|moments| {
            let AdaptiveMomentumState { time, moment_1, moment_2, .. } = moments.momentum;
            let kept = |values, levels| Moment::kept(values, levels, self.optimizer_state);
            let (moment_1, moment_2) = (kept(moment_1, FIRST), kept(moment_2, SECOND));
            WideState { time, moment_1, moment_2, master: None }
        });
        if !is_narrow(dtype) {
            return (wide, state);
        }
        let nearest = |wide: Tensor<B, D>| wide.cast(FloatDType::from(dtype));
        let (weights, master) = match self.weight_update {
            WeightUpdate::Stochastic => (stochastic(wide, dtype), None),
            WeightUpdate::Master => (nearest(wide.clone()), Some(wide)),
            WeightUpdate::Nearest => (nearest(wide), None),
        };
        (weights, state.map(|state| WideState { master, ..state }))
    }

    fn to_device<const D: usize>(state: WideState<B, D>, device: &B::Device) -> WideState<B, D> {
        WideState {
            moment_1: state.moment_1.moved_to(device),
            moment_2: state.moment_2.moved_to(device),
            master: state.master.map(|weights| weights.to_device(device)),
            ..state
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;
    use crate::config::BilevelConfig;
    use crate::decoder::DecoderSize;

    type Weights = Tensor<Flex, 1>;

    const N_WEIGHTS: usize = 4096;

    /// Size of a step relative to a weight of 1; the neighbours in bf16 are 78 times as far away.
    const SMALL_STEP: f64 = 1e-4;

    const N_STEPS: usize = 200;

    fn config() -> RemoveConfig {
        BilevelConfig::robust(DecoderSize { n_layers: 1, d_model: 1 }).remove
    }

    /// Returns weights from 1 to 1.9, exact in bf16.
    fn start() -> Weights {
        let values = (0..N_WEIGHTS).map(|k| 1.0 + (k % 116) as f32 / 128.0).collect();
        Tensor::from_data(TensorData::new(values, [N_WEIGHTS]), &Default::default())
    }

    fn numbers(weights: Weights) -> Vec<f64> {
        weights.cast(FloatDType::F32).into_data().iter::<f32>().map(f64::from).collect()
    }

    /// Returns the weights after small steps in one direction: a constant gradient.
    fn after_small_steps(config: &RemoveConfig, dtype: FloatDType) -> Vec<f64> {
        Flex::seed(&Default::default(), 7);
        let optimizer = WideAdamW::new(config);
        let mut weights = start().cast(dtype);
        let grad = weights.ones_like();
        let mut state = None;
        for _ in 0..N_STEPS {
            (weights, state) = optimizer.step(SMALL_STEP, weights, grad.clone(), state);
        }
        assert_eq!(FloatDType::from(weights.dtype()), dtype);
        numbers(weights)
    }

    fn mean_and_standard_error(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, (variance / n).sqrt())
    }

    /// Returns the distances by which weights moved beyond those of `wide`.
    fn beyond(narrow: &[f64], wide: &[f64]) -> Vec<f64> {
        narrow.iter().zip(wide).map(|(narrow, wide)| narrow - wide).collect()
    }

    #[test]
    fn weights_of_f32_go_burns_way_bit_for_bit() {
        let config = RemoveConfig { weight_decay: 0.1, ..config() };
        let ours = WideAdamW::new(&config);
        let burns = AdamWConfig::new().with_epsilon(ADAM_EPSILON).with_weight_decay(0.1).build();
        let (mut weights, mut state) = (start(), None);
        let (mut expected, mut moments) = (start(), None);
        // The gradient of a fourth power: different at every step.
        let grad = |weights: &Weights| weights.clone().sub_scalar(1.4).powi_scalar(3);
        for _ in 0..50 {
            let grads = (grad(&weights), grad(&expected));
            (weights, state) = ours.step(1e-2, weights, grads.0, state);
            (expected, moments) = burns.step(1e-2, expected, grads.1, moments);
        }
        assert_ne!(numbers(weights.clone()), numbers(start()));
        assert_eq!(numbers(weights), numbers(expected));
    }

    #[test]
    fn rounding_to_the_nearest_loses_small_steps() {
        let config = RemoveConfig { weight_update: WeightUpdate::Nearest, ..config() };
        let ended = after_small_steps(&config, FloatDType::BF16);
        // At 1 itself the lower neighbour is half as far away, but still 39 steps.
        assert_eq!(ended, numbers(start()));
    }

    #[test]
    fn rounding_by_chance_ends_where_f32_does_on_average() {
        let wide = after_small_steps(&config(), FloatDType::F32);
        let moved = beyond(&wide, &numbers(start()));
        let travel = N_STEPS as f64 * SMALL_STEP;
        assert!(moved.iter().all(|moved| (moved + travel).abs() < 1e-4), "all by {travel}");
        for optimizer_state in [OptimizerState::F32, OptimizerState::BF16, OptimizerState::EightBit]
        {
            let config = RemoveConfig { optimizer_state, ..config() };
            let narrow = after_small_steps(&config, FloatDType::BF16);
            let (mean, standard_error) = mean_and_standard_error(&beyond(&narrow, &wide));
            assert!(standard_error < travel / 50.0, "{standard_error}");
            assert!(mean.abs() < 4.0 * standard_error, "{mean} {standard_error}");
        }
    }

    #[test]
    fn a_master_copy_ends_next_to_f32() {
        let config = RemoveConfig { weight_update: WeightUpdate::Master, ..config() };
        let narrow = after_small_steps(&config, FloatDType::BF16);
        let wide = after_small_steps(&config, FloatDType::F32);
        // Half the distance between neighbours in bf16, plus f32's own rounding.
        let farthest = 2.0_f64.powi(-8) + 1e-6;
        assert!(beyond(&narrow, &wide).iter().all(|d| d.abs() <= farthest));
    }

    #[test]
    fn moments_are_kept_in_the_type_asked_for() {
        let grad = || start().cast(FloatDType::BF16);
        for (optimizer_state, dtypes) in [
            (OptimizerState::F32, [DType::F32; 2]),
            (OptimizerState::BF16, [DType::BF16; 2]),
            (OptimizerState::EightBit, [DType::I8, DType::U8]),
        ] {
            let optimizer = WideAdamW::new(&RemoveConfig { optimizer_state, ..config() });
            let (_, state) = optimizer.step(SMALL_STEP, grad(), grad(), None);
            let state = state.expect("a step leaves moments");
            let dtype = |moment: &Moment<Flex, 1>| match moment {
                Moment::Each(values) => values.dtype(),
                Moment::Blocks(blocks) => blocks.dtype(),
            };
            assert_eq!([dtype(&state.moment_1), dtype(&state.moment_2)], dtypes);
        }
    }
}
