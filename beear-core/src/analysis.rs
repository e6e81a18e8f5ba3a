//! Instruments: hidden states and their drift, and scans of a model for a backdoor.

pub mod drift;
pub mod hidden_states;
pub mod principal_components;
pub mod scan;
