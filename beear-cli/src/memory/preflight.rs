//! Checks before the first step, so that a run does not fail after the last one.

use anyhow::Result;
use beear_models::Checkpoint;

use crate::display::console::Console;
use crate::memory::bytes::show;
use crate::memory::plan::{MemoryPlan, weight_bytes};
use crate::memory::process::machine_memory;
use crate::run_folder::RunFolder;
use crate::run_folder::cannot_write::CannotWrite;

/// Checks that the disk has room for the cleaned model and for `n_checkpoints` checkpoints at a
/// time, beside an older run, which stays until the model is written.
///
/// A checkpoint holds each trained weight up to three times at `width` bytes: the current one, the
/// one at the start of the round and the one of the best round. In addition it holds two moments of
/// each weight at 4 bytes.
///
/// # Errors
///
/// If there is too little room.
pub(crate) fn space(
    folder: &RunFolder,
    checkpoint: &Checkpoint,
    (n_checkpoints, n_trained, width): (u64, usize, u64),
    console: Console,
) -> Result<()> {
    let model = weight_bytes(&checkpoint.dir, &checkpoint.config);
    let of_checkpoints = n_checkpoints.saturating_mul((3 * width + 8) * n_trained as u64);
    let needed = model.saturating_add(of_checkpoints);
    let path = folder.path("");
    let Ok(available) = fs4::available_space(&path) else { return Ok(()) };
    if available >= needed {
        return Ok(());
    }
    let older = folder.older_bytes();
    let [needed, available, shown] = [needed, available, older].map(show);
    let stays = match older {
        0 => String::new(),
        _ => format!("; the older run, {shown}, stays until the model is written"),
    };
    console.say(&format!("the run may write {needed}, {available} are free{stays}"));
    Err(CannotWrite::at(&path)(std::io::ErrorKind::StorageFull.into()).into())
}

/// Warns if the plan needs more memory than the machine has available.
pub(crate) fn memory(planned: Option<&MemoryPlan>, console: Console) {
    let Some((plan, [_, available])) = planned.zip(machine_memory()) else { return };
    if plan.peak > available {
        let [peak, available] = [plan.peak, available].map(show);
        console.say(&format!(
            "the plan needs {peak}, {available} are free: `beear plan` looks for what fits"
        ));
    }
}
