//! Memory: the demand of a command, the supply of the machine, and the changes that make a command
//! fit.

pub(crate) mod anchor_memory;
pub(crate) mod bytes;
pub(crate) mod cgroup;
pub(crate) mod fit;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod process;
pub(crate) mod room;
