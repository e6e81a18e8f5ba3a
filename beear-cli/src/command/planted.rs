//! Attack settings to plant and look into, as options: in the place of a checkpoint.

use anyhow::Result;
use beear_attacks::Setting;
use clap::Args;

use super::plant::Plan;
use crate::setting_file;

/// What is planted for a lab diagnostic.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlantedArgs {
    /// An attack setting's name or file in the place of a checkpoint, repeated for several; see `plant`.
    #[arg(
        long = "setting",
        value_name = "NAME|FILE.toml",
        conflicts_with_all = ["model", "prompts", "TriggerArgs"]
    )]
    settings: Vec<String>,
    /// Seed of what is planted and found.
    #[arg(long, default_value_t = 0, requires = "settings")]
    pub(crate) seed: u64,
    /// Plant with a thirtieth of the training: it shows that the tool runs, no more.
    #[arg(long, requires = "settings")]
    pub(crate) quick: bool,
}

impl PlantedArgs {
    /// The settings.
    ///
    /// # Errors
    ///
    /// If a name is not known or a file cannot be read.
    pub(crate) fn settings(&self) -> Result<Vec<Setting>> {
        self.settings.iter().map(|name| setting_file::named_or_read(name)).collect()
    }

    /// How one of them is planted.
    pub(crate) fn plan(&self, setting: Setting) -> Plan {
        let plan = Plan::new(setting, self.seed);
        if self.quick { plan.quick() } else { plan }
    }
}
