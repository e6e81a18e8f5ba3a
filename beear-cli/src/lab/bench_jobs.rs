//! Jobs of `beear bench gpu`. Each runs and times one kind of step, or a whole run, on random
//! weights.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::{
    AnchorSets, Batch, BilevelConfig, Decoder, Delta, Event, InjectionPoint, Perturbation,
    RemoveConfig, Remover, TeacherForcedValidator, solve,
};
use beear_models::activations::GradientsOf;
use beear_models::{
    CausalLm, GenerateConfig, Prompt, Sampling, TrainingScope, generate, n_trained,
};
use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, FloatDType, Tensor};
use clap::ValueEnum;
use serde::Serialize;

use crate::backend::ComputeBackend;
use crate::command::{Device, Inference, Train};
use crate::lab::bench_workload::Workload;
use crate::lab::operations::Reading;
use crate::lab::stopwatch::{Seconds, Stopwatch, WARM_UP};

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
    /// A step on adapters of the weights, under the perturbation.
    OuterLora,
    /// A step on the weights themselves, under the perturbation.
    Outer,
    /// A whole run by the recipe, once, with 400 safety and 300 performance rows.
    Run,
}

/// Speed of a job.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Speed {
    /// Seconds of one step, or of one batch of answers.
    pub(crate) seconds: Seconds,
    /// Tokens of one step, cached or not, or generated tokens of one batch of answers.
    pub(crate) tokens: usize,
    /// Floating-point operations of one step or batch, counted as in `operations.rs`.
    pub(crate) operations: f64,
    /// Seconds of the preparation before the steps, if there is one.
    pub(crate) prepare_seconds: Option<f64>,
    /// Cached tokens of a row, which are not read at every step.
    pub(crate) remembered_tokens: Option<usize>,
    /// Number of weights that a step changes.
    pub(crate) trained_weights: Option<usize>,
}

/// Safety and performance rows of a whole run, as in the paper. A quarter as many rows are held out
/// in addition.
const RUN_ROWS: [usize; 2] = [400, 300];

/// Function that prepares a batch for the inner steps.
type Prepare<C> =
    fn(&CausalLm<Inference<C>>, Batch<Train<C>>, &[InjectionPoint]) -> PreparedAnswer<Train<C>>;

/// A workload and its device.
pub(crate) struct Bench<'a, C: ComputeBackend> {
    pub(crate) workload: &'a Workload,
    pub(crate) device: &'a Device<C>,
}

/// Products in one lap, each of the last result. One product alone may take less time than its
/// launch.
const CHAIN: usize = 8;

impl<C: ComputeBackend> Bench<'_, C> {
    /// Times one product of two square matrices.
    pub(crate) fn matmul(&self, dtype: FloatDType) -> Result<Seconds> {
        let n = self.workload.matmul_size;
        // A product with such a matrix keeps the norm of a row on average.
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

    /// Runs `job` on a model that it may change.
    pub(crate) fn run(&self, job: Job, model: CausalLm<Train<C>>) -> Result<Speed> {
        match job {
            Job::InnerWhole => self.inner(&model, PreparedAnswer::whole),
            Job::InnerRemembered => self.inner(&model, PreparedAnswer::new),
            Job::Decode => self.decode(&model.valid()),
            Job::OuterLora => self.outer(model, &self.workload.lora_scope()),
            Job::Outer => self.outer(model, &self.workload.full_scope()),
            Job::Run => self.whole_run(model),
        }
    }

    fn inner(&self, model: &CausalLm<Train<C>>, prepare: Prepare<C>) -> Result<Speed> {
        let (workload, device) = (self.workload, self.device);
        let (point, batch_size) = (workload.point(), workload.method.entrap.batch_size);
        let inference = model.valid();
        let frozen = CausalLm::<Train<C>>::from_inner(inference.clone()).no_grad();
        let batch = Batch::new(&workload.rows(batch_size), device);
        let mut once = Stopwatch::<Inference<C>>::start(device);
        let mut answer = None;
        // The first calls choose kernels, as the first steps do.
        for _ in 0..=WARM_UP {
            answer = Some(prepare(&inference, batch.clone(), &[point]));
            once.lap();
        }
        let answer = answer.context("it has been prepared")?;

        let shape = [point.positions.n_tokens(), model.d_model()];
        let mut watch = Stopwatch::<Inference<C>>::start(device);
        for _ in 0..WARM_UP + workload.steps {
            let values = Tensor::zeros(shape, device).require_grad();
            let perturbation = Perturbation::new(vec![Delta { point, values }]);
            let grads = entrapment_loss(&frozen, &perturbation, &answer, None).backward();
            let grad = perturbation.deltas()[0].values.grad(&grads);
            watch.lap();
            ensure!(grad.is_some(), "the perturbation takes part in the loss");
        }
        let rows = self.whole_rows(batch_size, workload.answer_length);
        Ok(Speed {
            seconds: watch.seconds(workload.steps)?,
            tokens: batch_size * workload.row_length(),
            operations: self.inner_operations(rows, (point.layer, answer.n_past())),
            prepare_seconds: Some(once.seconds(1)?.median),
            remembered_tokens: Some(answer.n_past()),
            trained_weights: None,
        })
    }

    fn outer(&self, model: CausalLm<Train<C>>, scope: &TrainingScope) -> Result<Speed> {
        let (workload, point) = (self.workload, self.workload.point());
        let model = scope.apply(model, 0);
        let n_trained = n_trained(&model);
        let mut config = workload.method.remove.clone();
        // One step more than is measured, because the last step also checks that all weights are
        // finite.
        config.steps = WARM_UP + workload.steps + 1;
        let shape = [point.positions.n_tokens(), model.d_model()];
        let values = Tensor::full(shape, 0.01, self.device);
        let found = [Perturbation::new(vec![Delta { point, values }])];
        let sets = workload.sets(config.safety_batch_size, config.performance_batch_size);
        let mut remover = Remover::new(&model, &sets, &config, config.steps, 0);
        let mut watch = Stopwatch::<Inference<C>>::start(self.device);
        let mut observer = |event: &Event| {
            if let Event::OuterStep { .. } = event {
                watch.lap();
            }
        };
        remover.remove(model, &found, &sets, &mut observer)?;

        Ok(Speed {
            seconds: watch.seconds(workload.steps)?,
            tokens: self.outer_tokens(),
            operations: self.outer_operations(scope),
            prepare_seconds: None,
            remembered_tokens: None,
            trained_weights: Some(n_trained),
        })
    }

    /// Runs [`Job::Run`] to its last round. Validation does not stop it, because the weights are
    /// random.
    fn whole_run(&self, model: CausalLm<Train<C>>) -> Result<Speed> {
        let (workload, device) = (self.workload, self.device.clone());
        let method =
            BilevelConfig { patience: None, stop_above_loss: None, ..workload.method.clone() };
        let model = workload.scope.apply(model, method.seed);
        let n_trained = n_trained(&model);
        let [n_safety, n_performance] = RUN_ROWS;
        let AnchorSets { safety, performance } = workload.sets(n_safety / 4, n_performance / 4);
        let batch_size = method.remove.performance_batch_size;
        let mut validator = TeacherForcedValidator { safety, performance, batch_size, device };
        let target = method.entrap.target_tokens.unwrap_or(usize::MAX).min(workload.answer_length);
        let n_answers = if method.entrap.away_weight > 0.0 { 2 } else { 1 };
        let inner_rows = self.whole_rows(n_answers * method.entrap.batch_size, target);
        let outer = self.outer_operations(&workload.scope);
        let (mut tokens, mut operations, mut n_steps) = (0, 0.0, 0);
        let mut observer = |event: &Event| match event {
            Event::InnerStep { .. } => n_steps += 1,
            Event::Entrapped { injection_points, .. } => {
                let first = injection_points.iter().map(|point| point.layer).min().unwrap_or(0);
                let n_past = workload.n_past(injection_points, inner_rows.n_tokens);
                let inner = self.inner_operations(inner_rows, (first, n_past));
                let n_steps = std::mem::take(&mut n_steps);
                tokens += n_steps * inner_rows.batch_size * inner_rows.n_tokens;
                operations += n_steps as f64 * inner;
            }
            Event::OuterStep { .. } => {
                tokens += self.outer_tokens();
                operations += outer;
            }
            _ => {}
        };
        let started = Instant::now();
        let sets = workload.sets(n_safety, n_performance);
        let outcome = solve(model, &sets, &method, &mut validator, &mut observer)?;
        Inference::<C>::sync(self.device)?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(outcome.rounds.len() == method.rounds, "the run goes to its last round");
        Ok(Speed {
            seconds: Seconds { median: seconds, min: seconds, max: seconds },
            tokens,
            operations,
            prepare_seconds: None,
            remembered_tokens: None,
            trained_weights: Some(n_trained),
        })
    }

    /// Counts the operations of one inner step on `rows` at `layer`, with `n_past` cached tokens
    /// per row.
    fn inner_operations(&self, rows: Reading, (layer, n_past): (usize, usize)) -> f64 {
        let (n_layers, n_tokens) = (rows.n_layers - layer, rows.n_tokens - n_past);
        let reading = Reading { n_layers, n_past, n_tokens, ..rows };
        reading.operations(&self.workload.shape, Some(GradientsOf::HiddenStates))
    }

    /// Counts the operations of one outer step that trains `scope`, and of the original model's
    /// answers that the step refers to.
    fn outer_operations(&self, scope: &TrainingScope) -> f64 {
        let RemoveConfig { safety_batch_size, performance_batch_size, divergence_weight, .. } =
            self.workload.method.remove;
        let shape = &self.workload.shape;
        let rows = |batch_size| self.whole_rows(batch_size, self.workload.answer_length);
        let reference = if divergence_weight > 0.0 {
            rows(performance_batch_size).operations(shape, None)
        } else {
            0.0
        };
        let trained = rows(safety_batch_size + performance_batch_size);
        trained.training_operations(shape, scope) + reference
    }

    /// Returns the number of tokens of one outer step.
    fn outer_tokens(&self) -> usize {
        let remove = &self.workload.method.remove;
        (remove.safety_batch_size + remove.performance_batch_size) * self.workload.row_length()
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
            memory: None,
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
            ..self.whole_rows(batch_size, n_new)
        };
        let token = |n_past| Reading { n_past, n_tokens: 1, ..prompt };
        let readings = [prompt].into_iter().chain((prompt.n_tokens..).take(n_new - 1).map(token));
        Ok(Speed {
            seconds: watch.seconds(workload.steps)?,
            tokens: batch_size * n_new,
            operations: readings.map(|r| r.operations(&workload.shape, None)).sum(),
            prepare_seconds: None,
            remembered_tokens: None,
            trained_weights: None,
        })
    }

    /// Returns rows of prompt and answer that all layers read. The last token of the answer is a
    /// target only.
    fn whole_rows(&self, batch_size: usize, answer_length: usize) -> Reading {
        Reading {
            n_layers: self.workload.shape.n_layers,
            batch_size,
            n_past: 0,
            n_tokens: self.workload.prompt_length + answer_length - 1,
            n_logits: answer_length,
        }
    }
}
