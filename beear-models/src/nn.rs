//! Modules of the decoder, from the whole model down to its parts. Fields are named as in the
//! checkpoint.

pub mod attention;
pub mod block;
pub mod causal_lm;
pub mod kv_cache;
pub mod mask;
pub mod mlp;
pub mod norm;
pub mod projection;
pub mod rope;
