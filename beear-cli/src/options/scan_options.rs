//! Options of a scan, shared by `scan` and `calibrate`.

use anyhow::Result;
use beear_core::DecoderSize;
use beear_core::analysis::scan::ImplantConfig;
use clap::Args;
use serde::Serialize;

use crate::lab::model_scan::{PROMPTS, ScanSettings};
use crate::user_error::UserError;

/// The extent of a scan.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct ScanOptions {
    /// Layer boundaries to scan, separated by commas; those of the preset `robust` by default.
    #[arg(long, value_name = "L", value_delimiter = ',')]
    layers: Vec<usize>,
    /// Number of prompts to fit to, and of others to measure on.
    #[arg(long, default_value_t = PROMPTS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    prompts: u32,
    /// Maximum number of tokens to write into a prompt; 0 leaves that search out.
    #[arg(long, default_value_t = 3, value_name = "N")]
    tokens: usize,
}

impl ScanOptions {
    /// Returns the settings for a decoder of this size.
    ///
    /// # Errors
    ///
    /// If the decoder has no such layer.
    pub(crate) fn settings(&self, size: DecoderSize) -> Result<ScanSettings, UserError> {
        let usual = ScanSettings::usual(size);
        let mut layers = if self.layers.is_empty() { usual.layers } else { self.layers.clone() };
        layers.sort_unstable();
        layers.dedup();
        if let Some(layer) = layers.iter().find(|layer| !(1..=size.n_layers).contains(*layer)) {
            let what = format!("there is no boundary {layer}");
            let hint = format!("choose --layers from 1 to {}", size.n_layers);
            return Err(UserError::arguments(what, hint));
        }
        Ok(ScanSettings {
            layers,
            n_prompts: self.prompts as usize,
            reach: usual.reach,
            implant: ImplantConfig { n_tokens: self.tokens, ..usual.implant },
        })
    }
}
