//! What the tests across the crates share: golden files, weights by name, comparisons. The tests
//! themselves live in `tests/tests`.

pub mod agreement;
pub mod golden;
pub mod weights;
