//! Evaluations: the files of every `eval` command, and comparisons of two models.

pub(crate) mod eval_comparison;
pub(crate) mod evaluation;
pub(crate) mod judging_counts;
pub(crate) mod measure;
pub(crate) mod mt_bench_files;
