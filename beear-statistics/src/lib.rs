//! Rates, paired changes of rates and paired changes of means, each with its 95 % interval.

pub mod interval;
pub mod mean;
pub mod paired;

pub use interval::Rate;
pub use mean::MeanChange;
pub use paired::Change;
