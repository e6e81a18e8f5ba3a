//! Tests for implementors of the traits: the laws of a decoder, and a toy decoder.

mod law;
mod toy;

pub use law::{assert_prefix_law, assert_split_law};
pub use toy::{ToyDecoder, ToyDecoderConfig};
