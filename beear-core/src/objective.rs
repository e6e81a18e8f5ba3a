//! The losses of the two levels, over answer positions only and reduced in f32 or wider.

pub mod answer;
pub mod entrapment;
pub(crate) mod hidden_norms;
pub mod removal;
pub mod unlikelihood;
