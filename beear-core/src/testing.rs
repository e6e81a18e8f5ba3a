//! What implementors of the ports test themselves with: the split law and a toy decoder.

mod law;
mod toy;

pub use law::assert_split_law;
pub use toy::{ToyDecoder, ToyDecoderConfig};
