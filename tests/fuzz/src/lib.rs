//! What the fuzz targets do. The property tests of the format do the same, so that it is exercised without a fuzzer.
#![forbid(unsafe_code)]

pub mod explore;
