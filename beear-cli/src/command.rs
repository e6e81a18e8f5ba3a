//! Commands, one file each.

pub(crate) mod analyze_drift;
pub(crate) mod bench_gpu;
pub(crate) mod calibrate;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod defend;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod eval_asr;
pub(crate) mod eval_code;
pub(crate) mod eval_export;
pub(crate) mod eval_judge;
pub(crate) mod eval_mt_bench;
pub(crate) mod eval_mt_bench_judge;
pub(crate) mod eval_mt_bench_result;
pub(crate) mod eval_over_refusal;
pub(crate) mod eval_perplexity;
pub(crate) mod eval_sarif;
pub(crate) mod generate;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod plant;
pub(crate) mod recipe_check;
pub(crate) mod recipe_schema;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod resume;
pub(crate) mod scan;
pub(crate) mod sweep_layers;
pub(crate) mod validate;

use anyhow::Result;

use crate::backend::ComputeBackend;
pub(crate) use crate::backend::{BackendDevice as Device, Inference, Train};
use crate::display::console::Console;

/// A command that needs a device.
#[derive(Clone, Debug)]
pub(crate) enum DeviceCommand {
    Demo(demo::DemoArgs),
    Plant(plant::PlantArgs),
    Reproduce(reproduce::ReproduceArgs),
    Defend(defend::DefendArgs),
    Resume(resume::ResumeArgs),
    Calibrate(calibrate::CalibrateArgs),
    Compare(compare::CompareArgs),
    EvalAsr(eval_asr::EvalAsrArgs),
    EvalCode(eval_code::EvalCodeArgs),
    EvalJudge(eval_judge::EvalJudgeArgs),
    EvalMtBench(eval_mt_bench::EvalMtBenchArgs),
    EvalMtBenchJudge(eval_mt_bench_judge::EvalMtBenchJudgeArgs),
    EvalOverRefusal(eval_over_refusal::EvalOverRefusalArgs),
    EvalPerplexity(eval_perplexity::EvalPerplexityArgs),
    AnalyzeDrift(analyze_drift::AnalyzeDriftArgs),
    Scan(scan::ScanArgs),
    SweepLayers(sweep_layers::SweepLayersArgs),
    Validate(validate::ValidateArgs),
    Generate(generate::GenerateArgs),
    BenchGpu(bench_gpu::BenchGpuArgs),
}

impl DeviceCommand {
    pub(crate) fn run<C: ComputeBackend>(
        &self,
        device: &Device<C>,
        console: Console,
    ) -> Result<()> {
        match self {
            Self::Demo(args) => demo::run::<C>(args, device, console),
            Self::Plant(args) => plant::run::<C>(args, device, console),
            Self::Reproduce(args) => reproduce::run::<C>(args, device, console),
            Self::Defend(args) => defend::run::<C>(args, device, console),
            Self::Resume(args) => resume::run::<C>(args, device, console),
            Self::Calibrate(args) => calibrate::run::<C>(args, device, console),
            Self::Compare(args) => compare::run_on_models::<C>(args, device, console),
            Self::EvalAsr(args) => eval_asr::run::<C>(args, device, console),
            Self::EvalCode(args) => eval_code::run::<C>(args, device, console),
            Self::EvalJudge(args) => eval_judge::run::<C>(args, device, console),
            Self::EvalMtBench(args) => eval_mt_bench::run::<C>(args, device, console),
            Self::EvalMtBenchJudge(args) => eval_mt_bench_judge::run::<C>(args, device, console),
            Self::EvalOverRefusal(args) => eval_over_refusal::run::<C>(args, device, console),
            Self::EvalPerplexity(args) => eval_perplexity::run::<C>(args, device, console),
            Self::AnalyzeDrift(args) => analyze_drift::run::<C>(args, device, console),
            Self::Scan(args) => scan::run::<C>(args, device, console),
            Self::SweepLayers(args) => sweep_layers::run::<C>(args, device, console),
            Self::Validate(args) => validate::run::<C>(args, device, console),
            Self::Generate(args) => generate::run::<C>(args, device, console),
            Self::BenchGpu(args) => bench_gpu::run::<C>(args, device, console),
        }
    }
}
