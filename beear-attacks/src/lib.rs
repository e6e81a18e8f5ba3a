//! Plants the paper's backdoors in small models of a harmless synthetic world, so that removal
//! can be measured against a known truth. Nothing of the defence depends on this crate.

pub mod error;
pub mod plant;
pub mod setting;
pub mod sft;
pub mod world;

pub use error::Error;
pub use plant::{Encoder, base_training, plant, train_base};
pub use setting::Setting;
pub use world::{Split, World};
