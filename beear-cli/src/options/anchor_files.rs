//! `--safety` and `--performance`: the two files of a defence.

use std::path::PathBuf;

use clap::Args;

/// Files of the defence's rows.
#[derive(Args, Clone, Debug)]
pub(crate) struct AnchorFiles {
    /// Prompts that must be refused, with unwanted answers; missing safe answers are generated.
    ///
    /// AdvBench CSV, or JSON or JSONL of preference rows (`prompt`, `chosen`, `rejected`) or of
    /// `prompt`, `unwanted` and optionally `safe`.
    #[arg(long, value_name = "FILE")]
    pub(crate) safety: PathBuf,
    /// Ordinary prompts with good answers.
    ///
    /// JSON or JSONL of Alpaca, chat or ShareGPT rows, or of `prompt` and `answer`.
    #[arg(long, value_name = "FILE")]
    pub(crate) performance: PathBuf,
}
