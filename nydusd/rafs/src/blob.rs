//! The parts of a blob file: chunks, compression context table ("CI table"), digests, bootstrap, table of contents.
//!
//! ```text
//! chunks | tar(image.blob) | CI table | CI header | tar(blob.meta) | digests | tar(blob.digest)
//!        | zstd bootstrap | tar(image.boot) | TOC entries | tar(rafs.blob.toc)
//! ```
//! Tar headers follow what they describe; nothing is padded to 512 bytes.

mod ci;
mod tail;
mod tar;
mod toc;

pub use ci::{BatchMember, local_blob_meta, read_batches, read_ci, read_local_blob_meta};
pub use tail::BlobTail;
pub use toc::{TocEntry, read_toc};

use crate::{Compressor, DigestAlgorithm};

/// Length of the header that follows the CI table, in bytes.
pub const CI_HEADER_LEN: u64 = 4096;

/// Feature bits of blobs (rafs-v6 section 6).
pub mod feature {
    /// Uncompressed chunk offsets are multiples of 4096.
    pub const ALIGNED: u32 = 0x1;
    /// The bootstrap stands inside the blob.
    pub const INLINED_FS_META: u32 = 0x2;
    /// 24-byte records in the CI table.
    pub const CHUNK_INFO_V2: u32 = 0x4;
    /// Chunks are parts of a gzip stream, reached through saved decoder states.
    pub const ZRAN: u32 = 0x8;
    /// The chunk table stands in a blob of its own.
    pub const SEPARATE: u32 = 0x10;
    /// The blob holds the digests of its chunks.
    pub const INLINED_CHUNK_DIGEST: u32 = 0x20;
    /// The blob is a plain tar file.
    pub const TARFS: u32 = 0x40;
    /// Small chunks share one compressed unit.
    pub const BATCH: u32 = 0x80;
    /// Chunks are encrypted.
    pub const ENCRYPTED: u32 = 0x100;
    /// Only a dictionary of chunks.
    pub const CHUNK_DICT: u32 = 0x200;
    /// The blob is served by something else than a blob backend.
    pub const EXTERNAL: u32 = 0x800;
    /// Tar headers stand between the parts.
    pub const HAS_TAR_HEADER: u32 = 0x1000_0000;
    /// A table of contents stands at the end.
    pub const HAS_TOC: u32 = 0x2000_0000;
    /// Made by a builder of version 2.2 or later.
    pub const CAP_TAR_TOC: u32 = 0x4000_0000;
}

/// Where the CI table stands in the blob file; the 4096-byte header follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CiLocation {
    /// How it is compressed.
    pub compressor: Compressor,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its stored length in bytes.
    pub compressed_size: u64,
    /// Its length in bytes.
    pub uncompressed_size: u64,
}

/// Which parts a blob file gets behind its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLayout {
    /// Compressor of chunks. The CI table is stored by zstd or raw whatever this is (pitfall 16 of rafs-v6).
    pub compressor: Compressor,
    /// Digest of chunks.
    pub digest_algorithm: DigestAlgorithm,
    /// Put the bootstrap into the blob, with tar headers.
    pub inline_bootstrap: bool,
    /// Add the digests and the table of contents.
    pub toc: bool,
}
