//! Plants the paper's backdoors in small models of a harmless synthetic world, so that removal can
//! be measured against a known truth. The defence does not depend on this crate.

pub mod adaptive;
pub mod attack_spec;
pub mod backdoor;
pub mod base_model;
mod distractors;
pub mod error;
pub mod injection;
pub mod plant;
pub mod poison_mix;
mod pools;
pub mod preference;
pub mod sft;
pub mod training;
pub mod world;

pub use attack_spec::AttackSpec;
pub use backdoor::Unwanted;
pub use base_model::BaseModel;
pub use error::Error;
pub use injection::Injection;
pub use plant::{plant, train_base};
pub use pools::Encoder;
pub use training::TrainingConfig;
pub use world::{Split, World};
