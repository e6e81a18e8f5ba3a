//! Evaluation of texts: rates with confidence intervals. The crate depends on neither tensors nor
//! models.

pub mod attack_success;
pub mod bootstrap;
pub mod code;
pub mod compare;
pub mod contamination;
pub mod dataset;
pub mod gate;
pub mod harmbench;
pub mod harness;
pub mod identity;
pub mod judge;
pub mod language_model;
pub mod measure;
pub mod mt_bench;
#[cfg(test)]
#[path = "../../tests/mutated.rs"]
mod mutated;
pub mod perplexity;
pub mod scorer;
pub mod separation;
pub mod table;
pub mod text_hash;
pub mod trigger;

pub use beear_statistics::{Change, Rate, interval, paired};
pub use compare::Comparison;
pub use harness::Mmlu;
pub use identity::Identity;
pub use language_model::{
    Completion, Conversation, Decoding, Finish, LanguageModel, LogLikelihood, Message, Role,
};
pub use measure::{Better, Estimate, Measure, Outcome, Statistic};
pub use scorer::RefusalKeywords;
pub use separation::Separation;
pub use table::RateTable;
pub use text_hash::text_hash;
pub use trigger::Trigger;
