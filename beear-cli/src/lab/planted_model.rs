//! A planted model of the synthetic world, with its defender's data and its evaluation prompts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_core::{AnchorSets, TeacherForcedValidator};
use beear_models::{CausalLm, Checkpoint};
use burn::module::AutodiffModule;

use crate::backend::ComputeBackend;
use crate::command::plant::{Plan, make};
use crate::command::{Device, Inference, Train};
use crate::display::console::Console;
use crate::evaluate::measure::{Examination, Findings};
use crate::lab::world_defender;
use crate::model::Model;
use crate::model::loaded::{Loaded, TextSide};
use crate::recipe::setting_file;
use crate::user_error::UserError;

/// One planted model, and the data that every defence of it gets.
pub(crate) struct PlantedModel<'a, C: ComputeBackend> {
    pub(crate) plan: Plan,
    pub(crate) model: CausalLm<Train<C>>,
    pub(crate) text: TextSide,
    pub(crate) examination: Examination,
    pub(crate) sets: AnchorSets,
    pub(crate) validator: TeacherForcedValidator<Inference<C>>,
    pub(crate) device: &'a Device<C>,
    pub(crate) console: Console,
}

impl<'a, C: ComputeBackend> PlantedModel<'a, C> {
    /// Plants the model in a subfolder of `dir`, or finds the one that was planted there earlier.
    pub(crate) fn prepare(
        plan: Plan,
        dir: &Path,
        (device, console): (&'a Device<C>, Console),
    ) -> Result<Self> {
        let dir = dir.join(&plan.setting.name).join(format!("seed-{}", plan.seed));
        let poisoned = planted::<C>(&dir, &plan, (device, console))?;
        let Loaded { model, text, .. } =
            Loaded::<Train<C>>::read(&Model::in_folder(&poisoned), None, device)?;
        let examination = plan.examination();
        let (sets, validator) = world_defender::build(&text, &examination, plan.seed, device)?;
        Ok(Self { plan, model, text, examination, sets, validator, device, console })
    }

    /// Runs the whole examination on `model`.
    pub(crate) fn examine(&self, model: &CausalLm<Train<C>>) -> Result<Findings> {
        self.examination.run(&model.valid(), &self.text, self.device)
    }
}

/// Returns the folder of the planted model in `dir`. Plants the model if it is not there yet.
fn planted<C: ComputeBackend>(
    dir: &Path,
    plan: &Plan,
    (device, console): (&Device<C>, Console),
) -> Result<PathBuf> {
    let (recipe, poisoned) = (dir.join("setting.toml"), dir.join("poisoned"));
    let text = setting_file::render(&plan.setting)?;
    if Checkpoint::open(&poisoned).is_ok() {
        let known = beear_input::read_to_string(&recipe).unwrap_or_default();
        if known == text {
            return Ok(poisoned);
        }
        let what = format!("`{}` holds another setting of this name", dir.display());
        return Err(UserError::arguments(what, "choose another --out").into());
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("clearing {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    std::fs::write(&recipe, text).with_context(|| format!("writing {}", recipe.display()))?;
    console.say(&format!("planting {}, seed {}", plan.setting.name, plan.seed));
    make::<C>(dir, plan, (device, console))
}
