//! Scorers: pure functions of a response, or of a response and a reference.

mod degenerate;
mod exact;
mod refusal_keyword;

pub use degenerate::{Degenerate, degenerate, is_cut};
pub use exact::is_exact;
pub use refusal_keyword::RefusalKeywords;
