//! Text in, rates with intervals out. Nothing here knows a tensor or a model.

pub mod dataset;
pub mod interval;
pub mod judge;
pub mod language_model;
pub mod overlap;
pub mod paired;
pub mod scorer;
pub mod table;
pub mod text_hash;
pub mod trigger;

pub use interval::Rate;
pub use language_model::{
    Completion, Conversation, Decoding, Finish, LanguageModel, LogLikelihood, Message, Role,
};
pub use paired::Change;
pub use scorer::RefusalKeywords;
pub use table::RateTable;
pub use text_hash::text_hash;
pub use trigger::Trigger;
