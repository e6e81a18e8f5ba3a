//! Judging over real HTTP, by servers that fail in every way: all is reported, nothing is asked twice.
#![cfg(feature = "http")]

mod calls;
mod fixture;
mod key;
mod runs;
mod secure;
mod server;
