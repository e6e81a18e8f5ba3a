//! The laboratory: planted models, instruments and benchmarks.

pub(crate) mod bench_jobs;
pub(crate) mod bench_workload;
pub(crate) mod drift_analysis;
pub(crate) mod layer_sweep;
pub(crate) mod model_scan;
pub(crate) mod operations;
pub(crate) mod planted_model;
pub(crate) mod reproduction;
pub(crate) mod scan_calibration;
pub(crate) mod scan_report;
pub(crate) mod scan_score;
pub(crate) mod stopwatch;
pub(crate) mod world_defender;
