//! Measurements: ratios of one run on one machine.

pub mod cold;
pub mod convert;
mod first_touch;
mod placement;
pub mod report;
pub mod warm;
