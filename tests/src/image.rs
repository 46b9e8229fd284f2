//! Images to try: OCI layout directories, made of Debian packages or generated.

pub mod debian;
pub mod generated;
pub mod layer;
pub mod layout;
pub mod odd;
pub mod raw_tar;

pub use layout::{Layer, Layout};
