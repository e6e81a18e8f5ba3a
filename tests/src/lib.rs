//! What the tests across the crates share: golden files, weights by name, shapes of
//! models, comparisons. The tests
//! themselves live in `tests/tests`.

pub mod agreement;
pub mod golden;
pub mod shape;
pub mod weights;
