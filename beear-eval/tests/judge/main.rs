//! Judging over real HTTP with servers that fail in every way: all failures are reported, and no
//! request is repeated needlessly.
#![cfg(feature = "http")]

mod calls;
mod fixture;
mod key;
mod runs;
mod secure;
mod server;
