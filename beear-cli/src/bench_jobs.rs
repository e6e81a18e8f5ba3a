//! The jobs of `beear bench gpu`: each runs one kind of step on random weights and says how fast it was.

use anyhow::{Context, Result, ensure};
use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::{Batch, Decoder, Delta, Event, Perturbation, Remover, Spot};
use beear_models::{CausalLm, GenerateConfig, Prompt, Sampling, generate};
use burn::module::{AutodiffModule, Module};
use burn::tensor::{Distribution, FloatDType, Tensor};
use clap::ValueEnum;
use serde::Serialize;

use crate::backend::ComputeBackend;
use crate::bench_workload::Workload;
use crate::command::{Device, Inference, Train};
use crate::operations::{Gradient, Reading};
use crate::stopwatch::{Seconds, Stopwatch, WARM_UP};

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Job {
    /// Loss and gradient of the perturbation, every token read at every step.
    InnerWhole,
    /// The same with the tokens before the perturbation remembered.
    InnerRemembered,
    /// Answers to a batch of prompts.
    Decode,
    /// A step on all weights, under the perturbation.
    Outer,
}

/// How fast a job was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Speed {
    /// Of one step, or of one batch of answers.
    pub(crate) seconds: Seconds,
    /// Tokens of one: those of the rows in a step, remembered or not, and those that are made in answers.
    pub(crate) tokens: usize,
    /// Floating-point operations of one, as `operations.rs` counts them.
    pub(crate) operations: f64,
    /// What came once before the steps.
    pub(crate) prepare_seconds: Option<f64>,
    /// Tokens of a row that are not read at every step.
    pub(crate) remembered_tokens: Option<usize>,
}

/// A way to prepare a batch for the inner steps.
type Prepare<C> = fn(&CausalLm<Inference<C>>, Batch<Train<C>>, &[Spot]) -> PreparedAnswer<Train<C>>;

/// A model on a device and what to do with it.
pub(crate) struct Bench<'a, C: ComputeBackend> {
    pub(crate) workload: &'a Workload,
    pub(crate) device: &'a Device<C>,
}

/// Products in one lap, each of the last result: one alone may be shorter than starting it.
const CHAIN: usize = 8;

impl<C: ComputeBackend> Bench<'_, C> {
    /// Seconds of one product of two square matrices.
    pub(crate) fn matmul(&self, dtype: FloatDType) -> Result<Seconds> {
        let n = self.workload.matmul_size;
        // A product with such a matrix keeps the length of a row, on average.
        let scale = Distribution::Normal(0.0, 1.0 / (n as f64).sqrt());
        let random = || Tensor::<Inference<C>, 2>::random([n, n], scale, self.device).cast(dtype);
        let (left, right) = (random(), random());
        let mut watch = Stopwatch::<Inference<C>>::start(self.device);
        for _ in 0..WARM_UP + self.workload.steps {
            let chain = (0..CHAIN).fold(left.clone(), |left, _| left.matmul(right.clone()));
            watch.lap();
            drop(chain);
        }
        let Seconds { median, min, max } = watch.seconds(self.workload.steps)?;
        let one = |seconds: f64| seconds / CHAIN as f64;
        Ok(Seconds { median: one(median), min: one(min), max: one(max) })
    }

    /// Runs `job`; the weights are as before, but for [`Job::Outer`], which takes the model.
    pub(crate) fn run(&self, job: Job, model: CausalLm<Train<C>>) -> Result<Speed> {
        match job {
            Job::InnerWhole => self.inner(&model, PreparedAnswer::whole),
            Job::InnerRemembered => self.inner(&model, PreparedAnswer::new),
            Job::Decode => self.decode(&model.valid()),
            Job::Outer => self.outer(model),
        }
    }

    fn inner(&self, model: &CausalLm<Train<C>>, prepare: Prepare<C>) -> Result<Speed> {
        let (workload, device) = (self.workload, self.device);
        let (spot, batch_size) = (workload.spot(), workload.method.entrap.batch_size);
        let inference = model.valid();
        let frozen = CausalLm::<Train<C>>::from_inner(inference.clone()).no_grad();
        let batch = Batch::new(&workload.rows(batch_size), device);
        let mut once = Stopwatch::<Inference<C>>::start(device);
        let mut answer = None;
        // The first times are spent on choosing kernels, as those of the steps are.
        for _ in 0..=WARM_UP {
            answer = Some(prepare(&inference, batch.clone(), &[spot]));
            once.lap();
        }
        let answer = answer.context("it has been prepared")?;

        let shape = [spot.site.n_tokens(), model.d_model()];
        let mut watch = Stopwatch::<Inference<C>>::start(device);
        for _ in 0..WARM_UP + workload.steps {
            let values = Tensor::zeros(shape, device).require_grad();
            let perturbation = Perturbation::new(vec![Delta { spot, values }]);
            let grads = entrapment_loss(&frozen, &perturbation, &answer, None).backward();
            let grad = perturbation.deltas()[0].values.grad(&grads);
            watch.lap();
            ensure!(grad.is_some(), "the perturbation takes part in the loss");
        }
        let n_past = answer.n_past();
        let reading = Reading {
            n_layers: workload.shape.n_layers - spot.layer,
            batch_size,
            n_past,
            n_tokens: workload.row_length() - n_past,
            n_logits: workload.answer_length,
        };
        Ok(Speed {
            seconds: watch.seconds(workload.steps)?,
            tokens: batch_size * workload.row_length(),
            operations: reading.operations(&workload.shape, Gradient::Inputs),
            prepare_seconds: Some(once.seconds(1)?.median),
            remembered_tokens: Some(n_past),
        })
    }

    fn outer(&self, model: CausalLm<Train<C>>) -> Result<Speed> {
        let (workload, spot) = (self.workload, self.workload.spot());
        let mut config = workload.method.remove.clone();
        // One step more than is measured: the last also looks whether all weights are finite.
        config.steps = WARM_UP + workload.steps + 1;
        let shape = [spot.site.n_tokens(), model.d_model()];
        let values = Tensor::full(shape, 0.01, self.device);
        let found = [Perturbation::new(vec![Delta { spot, values }])];
        let sets = workload.sets();
        let mut remover = Remover::new(&model, &sets, &config, config.steps, 0);
        let mut watch = Stopwatch::<Inference<C>>::start(self.device);
        let mut observer = |event: &Event| {
            if let Event::OuterStep { .. } = event {
                watch.lap();
            }
        };
        remover.remove(model, &found, &sets, &mut observer)?;

        let (n_safety, n_performance) = (config.safety_batch_size, config.performance_batch_size);
        let operations = |batch_size, gradient| {
            self.whole_rows(batch_size).operations(&workload.shape, gradient)
        };
        let reference = if config.divergence_weight > 0.0 {
            operations(n_performance, Gradient::None)
        } else {
            0.0
        };
        Ok(Speed {
            seconds: watch.seconds(workload.steps)?,
            tokens: (n_safety + n_performance) * workload.row_length(),
            operations: operations(n_safety + n_performance, Gradient::All) + reference,
            prepare_seconds: None,
            remembered_tokens: None,
        })
    }

    fn decode(&self, model: &CausalLm<Inference<C>>) -> Result<Speed> {
        let (workload, n_workers) = (self.workload, C::n_workers());
        let batch_size = workload.method.entrap.batch_size;
        let n_new = workload.answer_length;
        let prompts: Vec<Vec<u32>> =
            workload.rows(batch_size).into_iter().map(|row| row.prompt).collect();
        let config = GenerateConfig {
            max_new_tokens: n_new,
            sampling: Sampling::Greedy,
            seed: 0,
            batch_size: batch_size.div_ceil(n_workers),
            n_workers,
        };
        let mut watch = Stopwatch::<Inference<C>>::start(self.device);
        for _ in 0..WARM_UP + workload.steps {
            let answers = generate(model, &Prompt::numbered(&prompts), &[], &config, self.device)?;
            watch.lap();
            ensure!(answers.iter().all(|a| a.tokens.len() == n_new), "no answer ends early");
        }
        let prompt = Reading {
            n_tokens: workload.prompt_length,
            n_logits: 1,
            ..self.whole_rows(batch_size)
        };
        let token = |n_past| Reading { n_past, n_tokens: 1, ..prompt };
        let readings = [prompt].into_iter().chain((prompt.n_tokens..).take(n_new - 1).map(token));
        Ok(Speed {
            seconds: watch.seconds(workload.steps)?,
            tokens: batch_size * n_new,
            operations: readings.map(|r| r.operations(&workload.shape, Gradient::None)).sum(),
            prepare_seconds: None,
            remembered_tokens: None,
        })
    }

    /// Rows of prompt and answer read by all layers.
    fn whole_rows(&self, batch_size: usize) -> Reading {
        Reading {
            n_layers: self.workload.shape.n_layers,
            batch_size,
            n_past: 0,
            n_tokens: self.workload.row_length(),
            n_logits: self.workload.answer_length,
        }
    }
}
