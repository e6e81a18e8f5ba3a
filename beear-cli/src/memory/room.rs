//! Memory that batches may take: the value of an option, or a share of the free memory.

use anyhow::Result;
use beear_models::DecoderConfig;
use clap::Args;

use crate::backend::{ComputeBackend, width};
use crate::command::Device;
use crate::display::console::Console;
use crate::memory::bytes::{self, show};
use crate::memory::plan::PROGRAM;
use crate::user_error::UserError;

/// Divisor of the free memory that batches take by default. Other programs need some too, and
/// allocators keep a part.
const SHARE: u64 = 2;

/// Divisor of the room: allocators keep this part of freed memory (docs/performance-memory.md).
pub(crate) const KEPT_BY_ALLOCATOR: u64 = 8;

/// Memory limit of a command.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct MemoryArgs {
    /// Memory that the command may take, such as 8GiB; by default its batches take half of what is
    /// free. Where less is needed batches are as large as without a limit.
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
}

impl MemoryArgs {
    /// Returns the memory that batches may take beside a loaded model.
    ///
    /// # Errors
    ///
    /// If the weights alone take all of the limit.
    pub(crate) fn room<C: ComputeBackend>(
        self,
        config: &DecoderConfig,
        device: &Device<C>,
    ) -> Result<Room, UserError> {
        self.room_beside::<C>(standing(config, 1, width::<C>()), device)
    }

    /// Returns the memory that batches may take beside `standing` bytes.
    ///
    /// # Errors
    ///
    /// If `standing` is all of the limit.
    pub(crate) fn room_beside<C: ComputeBackend>(
        self,
        standing: u64,
        device: &Device<C>,
    ) -> Result<Room, UserError> {
        let Some(memory) = self.memory else { return Ok(Room::default_of::<C>(device)) };
        match memory.checked_sub(standing) {
            Some(room) if room > 0 => {
                let bytes = Some(room - room / KEPT_BY_ALLOCATOR);
                Ok(Room { bytes, is_limit: true })
            }
            _ => {
                let [standing, memory] = [standing, memory].map(show);
                let what = format!("the model takes {standing}, --memory is {memory}");
                Err(UserError::arguments(what, "raise --memory"))
            }
        }
    }
}

/// Returns the bytes of the program and of the weights of `n_models` models, at `width` bytes a
/// number.
pub(crate) fn standing(config: &DecoderConfig, n_models: usize, width: u64) -> u64 {
    let n_weights = (config.n_weights() as u64).saturating_mul(n_models as u64);
    n_weights.saturating_mul(width).saturating_add(PROGRAM)
}

/// Memory limit of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that all simultaneous batches may take together. `None` means unbounded, because the
    /// free memory is unknown.
    pub(crate) bytes: Option<u64>,
    /// True if the user has set the limit, so that exceeding it is an error.
    is_limit: bool,
}

impl Room {
    /// Returns the default share of the free memory of a device.
    pub(crate) fn default_of<C: ComputeBackend>(device: &Device<C>) -> Self {
        Self { bytes: C::free_memory(device).map(|free| free / SHARE), is_limit: false }
    }

    /// Returns the memory that a plan leaves.
    pub(crate) fn planned(bytes: u64) -> Self {
        Self { bytes: Some(bytes), is_limit: false }
    }

    /// Warns if the longest row alone needs more than there is.
    ///
    /// # Errors
    ///
    /// If the user has set a limit.
    pub(crate) fn check_row(self, needed: u64, console: Console) -> Result<(), UserError> {
        let Some(bytes) = self.bytes.filter(|bytes| needed > *bytes) else { return Ok(()) };
        let [needed, room] = [needed, bytes].map(show);
        let what =
            format!("the longest row alone needs {needed} beside the model, there are {room}");
        if self.is_limit {
            return Err(UserError::arguments(
                what,
                "raise --memory, or leave out the longest rows",
            ));
        }
        console.say(&what);
        Ok(())
    }
}
