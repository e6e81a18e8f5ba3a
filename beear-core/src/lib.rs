//! BEEAR's bi-level optimisation, generic over Burn backends.

pub mod decoder;
pub mod example;

pub use decoder::Decoder;
pub use example::{AnchorSets, Example, SafetyExample};
