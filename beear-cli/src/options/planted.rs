//! Options for attack settings that are planted and examined, instead of a model of the user's.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_attacks::AttackSpec;
use clap::Args;

use crate::backend::ComputeBackend;
use crate::command::Device;
use crate::command::plant::Plan;
use crate::display::console::Console;
use crate::lab::planted_model::PlantedModel;
use crate::recipe::setting_file;

/// The planted models of a lab diagnostic.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlantedArgs {
    /// Name or file of an attack setting, instead of a model folder, repeated for several; see
    /// `plant`.
    #[arg(
        long = "setting",
        value_name = "NAME|FILE.toml",
        conflicts_with_all = ["model", "prompts", "TriggerArgs"]
    )]
    settings: Vec<String>,
    /// Seed of the planted model and of the analysis.
    #[arg(long, default_value_t = 0, requires = "settings")]
    pub(crate) seed: u64,
    /// Folder of a `reproduce` run of the same settings and seed, whose planted models are used;
    /// models that it lacks are planted there. By default all are planted in OUT.
    #[arg(long, value_name = "DIR", requires = "settings")]
    planted: Option<PathBuf>,
    /// Plant with a thirtieth of the training and few prompts: this only shows that the tool runs.
    #[arg(long, requires = "settings")]
    pub(crate) quick: bool,
}

impl PlantedArgs {
    /// Returns the settings.
    ///
    /// # Errors
    ///
    /// If a name is unknown or a file cannot be read.
    pub(crate) fn settings(&self) -> Result<Vec<AttackSpec>> {
        self.settings.iter().map(|name| setting_file::named_or_read(name)).collect()
    }

    /// Returns the model of a setting, planted now or earlier.
    ///
    /// # Errors
    ///
    /// As [`PlantedModel::prepare`].
    pub(crate) fn trial<'a, C: ComputeBackend>(
        &self,
        setting: AttackSpec,
        out: &Path,
        (device, console): (&'a Device<C>, Console),
    ) -> Result<PlantedModel<'a, C>> {
        let plan = Plan::new(setting, self.seed);
        let plan = if self.quick { plan.quick() } else { plan };
        PlantedModel::prepare(plan, self.planted.as_deref().unwrap_or(out), (device, console))
    }
}
