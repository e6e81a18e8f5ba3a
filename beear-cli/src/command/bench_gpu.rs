//! `beear bench gpu`: speed of each kind of step on a device, on random weights of a given shape.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use beear_core::{BilevelConfig, Defence};
use beear_models::DecoderConfig;
use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Device, Inference, Train};
use crate::backend::device_memory::DeviceMemory;
use crate::backend::heap;
use crate::backend::{ComputeBackend, Unavailable};
use crate::display::console::Console;
use crate::lab::bench_jobs::{Bench, Job, Speed};
use crate::lab::bench_workload::{Described, Workload};
use crate::lab::operations::FORMULA;
use crate::lab::stopwatch::Seconds;
use crate::memory::process::peak_memory_mib;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::recipe::Recipe;
use crate::user_error::UserError;

/// Measures speed and memory on random weights; no model folder is needed.
///
/// Weights of the shape of a `config.json` are drawn on the device. After a warm-up, each kind of
/// step is repeated, and timed when the device has finished it: median, minimum and maximum. Its
/// operations per second are compared with those of one large matrix product on the same device.
/// The command works on every backend.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchGpuArgs {
    /// `config.json` of a Hugging Face model, a folder that contains one, or org/name[@revision] of
    /// the hub.
    #[arg(long, value_name = "PATH|NAME")]
    config: PathBuf,
    /// TOML recipe of BEEAR. It sets the batch sizes, the first injection point, the optimiser, the
    /// trained layers and the shape of adapters.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Override of a recipe's setting, such as `method.remove.divergence_weight=0`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Float type of the weights and of the matrix product.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    dtype: Precision,
    /// Rows of every batch, instead of the recipe's batch sizes.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Tokens in every prompt.
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt_length: usize,
    /// Tokens in every answer.
    #[arg(long, value_name = "N", default_value_t = 64)]
    answer_length: usize,
    /// Number of measured steps of each kind.
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: usize,
    /// Rows and columns of the matrix product.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    matmul_size: usize,
    /// Kinds of step to measure besides the matrix product; all of them by default.
    #[arg(long = "job", value_enum, value_name = "JOB")]
    jobs: Vec<Job>,
}

/// A float type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Precision {
    F32,
    Bf16,
}

impl Precision {
    fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

/// The printed report.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    backend: &'static str,
    dtype: Precision,
    workload: Described<'a>,
    matmul: MatrixProduct,
    jobs: Vec<Measured>,
    counted: &'static str,
}

#[derive(Clone, Copy, Serialize)]
struct MatrixProduct {
    seconds: Seconds,
    tflops: f64,
}

#[derive(Serialize)]
struct Measured {
    job: Job,
    #[serde(flatten)]
    speed: Speed,
    tokens_per_second: f64,
    tflops: f64,
    /// Operations per second, as a share of those of the matrix product.
    share_of_matmul: f64,
    /// Peak memory of the process so far.
    host_peak_mib: Option<u64>,
    /// Device memory in use after the job, less the device memory in use before the command.
    device_mib: Option<u64>,
}

impl Measured {
    fn of(job: Job, speed: Speed, ceiling: f64, memory: &DeviceMemory) -> Self {
        let tflops = speed.operations / speed.seconds.median / 1e12;
        Self {
            job,
            tokens_per_second: speed.tokens as f64 / speed.seconds.median,
            tflops,
            share_of_matmul: tflops / ceiling,
            host_peak_mib: peak_memory_mib(),
            device_mib: memory.added_mib(),
            speed,
        }
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &BenchGpuArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let memory = DeviceMemory::before();
    let workload = args.workload(console)?;
    let dtype = args.dtype.dtype();
    let computes = <Inference<C> as Backend>::supports_dtype(device, dtype.into());
    let reason = format!("it does not compute in {dtype:?}");
    Unavailable::unless(computes, C::NAME, &reason, "choose another --dtype or --backend")?;

    let bench = Bench::<C> { workload: &workload, device };
    <Train<C> as Backend>::seed(device, 0);
    console.say("measuring: matrix product");
    let seconds = bench.matmul(dtype)?;
    let tflops = 2.0 * (workload.matmul_size as f64).powi(3) / seconds.median / 1e12;
    let matmul = MatrixProduct { seconds, tflops };
    console.say(&format!("drawing {} weights", workload.shape.n_weights()));
    heap::suit(workload.shape.n_weights());
    let mut model = Some(workload.shape.init_as(dtype, device));
    let mut jobs = Vec::new();
    let asked = args.jobs();
    for &job in &asked {
        console.say(&format!("measuring: {job:?}"));
        // The last job takes the model: an outer step changes weights in place if no other handle
        // holds them.
        let current = if asked.last() == Some(&job) { model.take() } else { model.clone() };
        let Some(current) = current else { continue };
        let speed = bench.run(job, current)?;
        jobs.push(Measured::of(job, speed, matmul.tflops, &memory));
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        backend: C::NAME,
        dtype: args.dtype,
        workload: workload.described(),
        matmul,
        jobs,
        counted: FORMULA,
    };
    console.result(&report.text(), &report)
}

impl BenchGpuArgs {
    /// Returns the chosen kinds of step without repetition, or all kinds if none is chosen. Kinds
    /// that change the weights come last.
    fn jobs(&self) -> Vec<Job> {
        let is_asked =
            |job: &Job| self.jobs.contains(job) || self.jobs.is_empty() && *job != Job::Run;
        Job::value_variants().iter().copied().filter(is_asked).collect()
    }

    fn workload(&self, console: Console) -> Result<Workload> {
        let shape = Model::find(&self.config, Needed::Config, console)?.config()?;
        let recipe = Recipe::read(self.recipe.as_deref(), None, &self.assignments)?;
        let workload = Workload {
            method: self.method(&recipe, &shape)?,
            scope: recipe.scope(shape.n_layers)?,
            prompt_length: self.prompt_length,
            answer_length: self.answer_length,
            steps: self.steps,
            matmul_size: self.matmul_size,
            shape,
        };
        let sizes =
            [self.prompt_length, self.answer_length, self.steps, self.matmul_size].into_iter();
        if sizes.chain(self.batch).any(|size| size == 0) {
            return Err(UserError::arguments("a size is 0", "all of them are 1 or more").into());
        }
        let longest = workload.prompt_length.saturating_add(workload.answer_length);
        if longest > workload.shape.max_seq_length {
            let what = format!(
                "prompt and answer have {longest} tokens, the model reads {}",
                workload.shape.max_seq_length
            );
            let hint = "lower --prompt-length or --answer-length";
            return Err(UserError::arguments(what, hint).into());
        }
        Ok(workload)
    }

    fn method(&self, recipe: &Recipe, shape: &DecoderConfig) -> Result<BilevelConfig> {
        let Defence::Beear(mut config) = recipe.method(shape.size())? else {
            let hint = "leave out `method.name`";
            return Err(UserError::arguments("the recipe is not for BEEAR", hint).into());
        };
        config.validate(shape.n_layers)?;
        if let Some(n) = self.batch {
            config.entrap.batch_size = n;
            (config.remove.safety_batch_size, config.remove.performance_batch_size) = (n, n);
        }
        Ok(config)
    }
}

impl Report<'_> {
    fn text(&self) -> String {
        let dtype = self.dtype;
        let MatrixProduct { seconds, tflops } = self.matmul;
        let mut text = format!(
            "{dtype:?} on {}: a matrix product has {tflops:.4} TFLOP/s ({})\n\n\
             | step | ms: median (least–most) | tokens/s | TFLOP/s | of the product | host, MiB | device, MiB |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            self.backend,
            milliseconds(seconds),
        );
        for measured in &self.jobs {
            let Measured { job, speed, tokens_per_second, tflops, share_of_matmul, .. } = measured;
            let mib = |mib: Option<u64>| mib.map_or("unknown".to_owned(), |mib| mib.to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {job:?} | {} | {tokens_per_second:.0} | {tflops:.4} | {:.1} % | {} | {} |",
                milliseconds(speed.seconds),
                100.0 * share_of_matmul,
                mib(measured.host_peak_mib),
                mib(measured.device_mib),
            );
        }
        let _ = write!(
            text,
            "\nOperations counted: {}. Memory: the most of the process so far, and what `nvidia-smi` shows \
             more than before the command.\n",
            self.counted
        );
        text
    }
}

fn milliseconds(Seconds { median, min, max }: Seconds) -> String {
    format!("{:.3} ({:.3}–{:.3})", 1e3 * median, 1e3 * min, 1e3 * max)
}
