//! Turns OCI layers into RAFS v6: one blob a layer, one bootstrap an image.
//!
//! - [`source`] gives the entries of a layer, [`layer`] makes their tree, [`pipeline`] stores their content.
//! - [`create`] builds one layer, [`overlay`] merges layers, [`convert`] does whole images.

mod chunk_dict;
pub mod convert;
pub mod create;
mod error;
mod hashing;
pub mod layer;
pub mod overlay;
pub mod pipeline;
mod prefetch_list;
pub mod source;
mod stream;
pub mod unpack;

pub use chunk_dict::ChunkDict;
pub use convert::{ConvertOptions, Platforms, Progress, Report, convert};
pub use error::BuildError;
pub use prefetch_list::PrefetchList;

/// A layer's uncompressed bytes, read on a thread of their own.
pub fn open_layer(stored: impl std::io::Read + Send + 'static) -> impl std::io::Read {
    stream::LayerStream::new(stored, |_| Ok(()))
}
pub use rafs::{Compressor, DigestAlgorithm};
