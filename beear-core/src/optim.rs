//! Optimisers: Adam on `δ`, `AdamW` on the weights, and their state.

pub(crate) mod adamw;
pub(crate) mod eight_bit;
pub(crate) mod projected_adam;
pub(crate) mod rounding;
pub(crate) mod saved_weights;
pub(crate) mod weight_step;

pub use eight_bit::MOMENT_BLOCK;
pub use rounding::{HalfPrecision, round_by_chance};
pub use weight_step::clip_norm;
