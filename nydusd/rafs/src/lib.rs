//! RAFS v6, the on-disk format of Nydus images: reader and writer.
//!
//! No I/O, no async, no `unsafe`: everything works on byte slices that the caller brings, and every byte is hostile
//! until checked. A *bootstrap* is an EROFS image without file data; the data stands in *blobs* as compressed chunks.
//!
//! ```text
//! 0        1024       1152            1408           A            A+256n      M            M+4096
//! | zeros  | EROFS SB | RAFS ext. SB  | n slots 128 | blob table | prefetch | hole        | root inode, inodes,
//!                                                                              dirents ... | chunk table (80 * c)
//! ```
//!
//! - [`Bootstrap`] reads one, [`BootstrapWriter`] makes one from a [`Tree`].
//! - [`blob`] reads and writes the parts of a blob file behind its chunks.
#![forbid(unsafe_code)]

pub mod blob;
pub mod bootstrap;
mod chunks;
mod compress;
mod digest;
mod error;
mod id;
mod layout;
mod tree;
mod writer;

pub use bootstrap::{Attributes, Bootstrap, DirEntry, Extent, Summary};
pub use chunks::Chunks;
pub use compress::{Compressor, Decoder, Encoder};
pub use digest::{Digest, DigestAlgorithm};
pub use error::FormatError;
pub use id::{BlobId, BlobIndex, ChunkIndex, Nid};
pub use tree::{Blob, Chunk, ChunkRef, FileType, Inode, InodeId, Kind, Meta, Tree};
pub use writer::{BootstrapWriter, WrittenBootstrap};

/// Size of a metadata block in bytes, except in TARFS images.
pub const BLOCK_SIZE: u64 = 4096;
/// Default size of a chunk in bytes, the one of the original tools.
pub const DEFAULT_CHUNK_SIZE: u32 = 1 << 20;
/// Most blobs that one bootstrap can name: the blob index is a byte whose value 0 is taken.
pub const MAX_BLOBS: usize = 254;
