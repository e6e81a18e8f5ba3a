//! Plants the paper's backdoors in small models of a harmless synthetic world, so that removal
//! can be measured against a known truth. Nothing of the defence depends on this crate.

pub mod adaptive;
pub mod backdoor;
pub mod base_model;
pub mod error;
pub mod injection;
pub mod plant;
pub mod poison_mix;
mod pools;
pub mod preference;
pub mod setting;
pub mod sft;
mod stray;
pub mod training;
pub mod world;

pub use backdoor::Unwanted;
pub use base_model::BaseModel;
pub use error::Error;
pub use injection::Injection;
pub use plant::{plant, train_base};
pub use pools::Encoder;
pub use setting::Setting;
pub use training::TrainingConfig;
pub use world::{Split, World};
