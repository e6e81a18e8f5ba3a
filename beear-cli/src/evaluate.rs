//! Evaluations: what every `eval` command writes, and comparisons of two.

pub(crate) mod eval_comparison;
pub(crate) mod evaluation;
pub(crate) mod judging_counts;
pub(crate) mod measure;
pub(crate) mod mt_bench_files;
