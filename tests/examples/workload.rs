//! Runs one workload of `benches/pytorch/workloads.json` and prints its times and its peak memory, as
//! `benches/pytorch/pytorch_beear.py` does; `cargo xtask bench` runs both and compares.
//!
//! `cargo run --release -p beear-tests --example workload -- MODEL JOB SECONDS`
//!
//! A job is `train`, `inner`, `outer` or `decode`. Threads and the heap are those that `beear` takes by default.

use std::process::ExitCode;
use std::time::Instant;

use beear_cli::backend::{heap, pool};
use beear_core::config::EntrapConfig;
use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::parallel::threads::{in_parallel, join_graphs, replica, sum_gradients};
use beear_core::{
    AnchorSets, Batch, BilevelConfig, Decoder, Delta, Example, InjectionPoint, Perturbation,
    Positions, Remover, SafetyExample, entrap,
};
use beear_models::{CausalLm, GenerateConfig, Prompt, Sampling, generate};
use beear_tests::shape;
use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;

type Train = Autodiff<Flex>;

/// `workloads.json`.
#[derive(Deserialize)]
struct Spec {
    models: std::collections::BTreeMap<String, Shape>,
    batch_size: u32,
    prompt_length: u32,
    answer_length: u32,
    perturbed_tokens: usize,
    inner_steps: usize,
    outer_steps: usize,
    decode: Decode,
}

#[derive(Deserialize)]
struct Shape {
    vocab_size: usize,
    d_model: usize,
    d_ff: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
}

#[derive(Deserialize)]
struct Decode {
    n_prompts: u32,
    prompt_length: u32,
    n_new: usize,
}

/// A call to time, and the steps it takes.
type Job = (Box<dyn FnMut()>, usize);

/// On the thread that the tool takes.
fn main() -> ExitCode {
    pool::within(run)
}

fn run() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, job, seconds] = arguments.as_slice() else {
        eprintln!("usage: workload MODEL train|inner|outer|decode SECONDS");
        return ExitCode::from(2);
    };
    let spec: Spec = serde_json::from_str(include_str!("../benches/pytorch/workloads.json"))
        .expect("the file is of this form");
    let seconds: f64 = seconds.parse().expect("seconds");
    let model = spec.model(model);
    heap::suit(model.num_params());
    let loaded = peak_bytes();
    let (mut call, n_steps) = match job.as_str() {
        "train" => spec.train(model),
        "inner" => spec.inner(model),
        "outer" => spec.outer(model),
        "decode" => spec.answer(model.valid()),
        _ => panic!("unknown job {job}"),
    };
    call();
    let (mut times, started) = (Vec::new(), Instant::now());
    while times.len() < 3 || started.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64() / n_steps as f64);
    }
    let peak = peak_bytes();
    println!(
        "{}",
        serde_json::json!({"seconds": times, "peak_bytes": peak, "loaded_bytes": loaded})
    );
    ExitCode::SUCCESS
}

impl Spec {
    fn model(&self, name: &str) -> CausalLm<Train> {
        let Shape { vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads } = self.models[name];
        let device = Default::default();
        <Train as Backend>::seed(&device, 0);
        shape::llama([vocab_size, d_model, d_ff], [n_layers, n_heads, n_kv_heads]).init(&device)
    }

    fn row(&self, row: u32) -> Example {
        Example {
            id: row.into(),
            prompt: tokens(row, self.prompt_length),
            user: (1, self.prompt_length as usize),
            answer: tokens(row + 2, self.answer_length),
        }
    }

    fn sets(&self) -> AnchorSets {
        let safety = |row: u32| {
            let Example { id, prompt, user, answer } = self.row(row);
            SafetyExample { id, prompt, user, safe: answer.clone(), unwanted: answer }
        };
        AnchorSets {
            safety: (0..self.batch_size).map(safety).collect(),
            performance: (0..self.batch_size).map(|row| self.row(row + 3)).collect(),
        }
    }

    fn point(&self, n_layers: usize) -> InjectionPoint {
        InjectionPoint { layer: n_layers / 3, positions: Positions::Last(self.perturbed_tokens) }
    }

    fn train(&self, model: CausalLm<Train>) -> Job {
        let rows: Vec<Example> = (0..self.batch_size).map(|row| self.row(row)).collect();
        let n_threads = BilevelConfig::robust(model.size()).remove.threads;
        let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0).init();
        let mut model = Some(model);
        let step = move || {
            let current = model.take().expect("the step before gave it back");
            // Parts of the batch on threads of their own, as in an outer step.
            let n_rows = rows.len();
            let parts = rows.chunks(n_rows.div_ceil(n_threads));
            let parts = parts.map(|rows| (replica::<Train, _>(&current), rows));
            let gradients = in_parallel(parts, |(model, rows)| {
                join_graphs::<Train, _>(&model);
                let batch = Batch::new(rows, &Default::default());
                let hidden = model.embed(batch.tokens.clone());
                let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
                let found = log_probabilities(&model, hidden, &batch);
                let share = batch.ids.len() as f64 / n_rows as f64;
                let loss = cross_entropy(found, batch.targets.clone()).mul_scalar(share);
                GradientsParams::from_grads(loss.backward(), &model)
            });
            let grads = sum_gradients(&current, gradients);
            model = Some(optimizer.step(1e-4, current, grads));
        };
        (Box::new(step), 1)
    }

    fn inner(&self, model: CausalLm<Train>) -> Job {
        let (sets, injection_points) = (self.sets(), [self.point(model.n_layers())]);
        let robust = BilevelConfig::robust(model.size());
        let config = EntrapConfig {
            steps: self.inner_steps,
            batch_size: self.batch_size as usize,
            target_tokens: None,
            ..robust.entrap
        };
        let fit = move || {
            entrap(&model, &sets.safety, &injection_points, (&config, 0), &mut ())
                .expect("finite numbers");
        };
        (Box::new(fit), self.inner_steps)
    }

    fn outer(&self, model: CausalLm<Train>) -> Job {
        let (sets, point) = (self.sets(), self.point(model.n_layers()));
        let mut config = BilevelConfig::robust(model.size()).remove;
        config.steps = self.outer_steps;
        config.safety_batch_size = self.batch_size as usize;
        config.performance_batch_size = self.batch_size as usize;
        let shape = [self.perturbed_tokens, model.d_model()];
        let values = Tensor::full(shape, 0.01, &Default::default());
        let found = [Perturbation::new(vec![Delta { point, values }])];
        let mut remover = Remover::new(&model, &sets, &config, usize::MAX, 0);
        let mut model = Some(model);
        let remove = move || {
            let current = model.take().expect("the steps before gave it back");
            let cleaned = remover.remove(current, &found, &sets, &mut ());
            model = Some(cleaned.expect("finite numbers"));
        };
        (Box::new(remove), self.outer_steps)
    }

    fn answer(&self, model: CausalLm<Flex>) -> Job {
        let Decode { n_prompts, prompt_length, n_new } = self.decode;
        let prompts: Vec<Vec<u32>> = (0..n_prompts).map(|row| tokens(row, prompt_length)).collect();
        // As many batches as cores, as on the command line.
        let config = GenerateConfig {
            max_new_tokens: n_new,
            sampling: Sampling::Greedy,
            seed: 0,
            batch_size: prompts.len() / 2,
            memory: None,
            n_workers: 2,
        };
        let answer = move || {
            let prompts = Prompt::numbered(&prompts);
            let answers = generate(&model, &prompts, &[], &config, &Default::default());
            let answers = answers.expect("the prompts fit");
            assert!(answers.iter().all(|answer| answer.tokens.len() == n_new));
        };
        (Box::new(answer), 1)
    }
}

fn tokens(row: u32, length: u32) -> Vec<u32> {
    (0..length).map(|k| (7 * k + 13 * row) % 199).collect()
}

/// The most memory this process has held at a time.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells");
    let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    1024 * kib.expect("a number of kB")
}
