//! Analysis of a model: hidden states and their drift, and scans for a backdoor.

pub mod drift;
pub mod hidden_states;
pub mod principal_components;
pub mod scan;
