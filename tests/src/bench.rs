//! Measurements: ratios of one run on one machine.

pub mod cold;
pub mod convert;
pub mod report;
pub mod warm;
