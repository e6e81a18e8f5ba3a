//! What implementors of the ports test themselves with: the laws of a decoder and a toy.

mod law;
mod toy;

pub use law::{assert_prefix_law, assert_split_law};
pub use toy::{ToyDecoder, ToyDecoderConfig};
