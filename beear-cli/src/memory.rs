//! Memory: what a command needs, what there is, and what to change where it does not fit.

pub(crate) mod anchor_memory;
pub(crate) mod bytes;
pub(crate) mod cgroup;
pub(crate) mod fit;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod process;
pub(crate) mod room;
