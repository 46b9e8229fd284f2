//! Turns OCI layers into RAFS v6: one blob a layer, one bootstrap an image.
//!
//! - [`convert`] takes a whole image from a registry or OCI layout to another.
#![allow(clippy::todo, reason = "interfaces stand before their bodies")]
pub mod convert;

pub use convert::{ConvertOptions, Platforms, Progress, Report, convert};
