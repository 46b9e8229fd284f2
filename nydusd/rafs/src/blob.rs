//! The parts of a blob file: chunks, compression context table ("CI table"), digests, bootstrap, table of contents.
//!
//! ```text
//! chunks | tar(image.blob) | CI table | CI header | tar(blob.meta) | digests | tar(blob.digest)
//!        | zstd bootstrap | tar(image.boot) | TOC entries | tar(rafs.blob.toc)
//! ```
//! Tar headers follow what they describe; nothing is padded to 512 bytes.

use crate::{Blob, Chunk, Compressor, DigestAlgorithm, FormatError};

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

/// Everything of a blob file that follows its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobTail {
    /// The bytes that follow the chunks, up to where an inlined bootstrap begins. Empty for a blob without chunks.
    pub bytes: Vec<u8>,
    /// What a bootstrap is to say of this blob. The id is [`crate::BlobId::unknown`] and `compressed_size` ends with
    /// `bytes`; without inlined bootstrap the caller sets the id to the file's SHA-256.
    pub blob: Blob,
}

impl BlobTail {
    /// Makes the tail for chunks written one after another from the file's beginning.
    ///
    /// `data_sha256` is the SHA-256 of the chunk area followed by its own tar header ([`image_blob_header`]).
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] for more chunks or bytes than the format allows.
    pub fn new(layout: BlobLayout, chunks: &[Chunk], chunk_size: u32) -> Result<Self, FormatError> {
        let _ = (layout, chunks, chunk_size);
        todo!()
    }

    /// The end of the blob file, to be written behind [`Self::bytes`]: the inlined bootstrap (if the layout has one),
    /// compressed by zstd when there is a table of contents, its tar header, and the table of contents.
    /// `data_sha256` is the SHA-256 of the chunk area.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] where the table of contents would not fit.
    pub fn finish(&self, bootstrap: Option<&[u8]>, data_sha256: [u8; 32]) -> Result<Vec<u8>, FormatError> {
        let _ = (bootstrap, data_sha256);
        todo!()
    }
}

/// One part of a blob file, as its table of contents tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// `image.blob`, `blob.meta`, `blob.meta.header`, `blob.digest` or `image.boot`.
    pub name: String,
    /// How it is stored.
    pub compressor: Compressor,
    /// SHA-256 of its uncompressed bytes.
    pub uncompressed_digest: [u8; 32],
    /// Where it begins in the blob file, in bytes.
    pub compressed_offset: u64,
    /// Its stored length in bytes.
    pub compressed_size: u64,
    /// Its length in bytes.
    pub uncompressed_size: u64,
}

/// Reads the table of contents from `tail`, the last bytes (4096 are enough) of a blob file of `file_size` bytes.
/// `None` where the file has none.
///
/// # Errors
/// [`FormatError`] for a table that is broken or points outside the file.
pub fn read_toc(tail: &[u8], file_size: u64) -> Result<Option<Vec<TocEntry>>, FormatError> {
    let _ = (tail, file_size);
    todo!()
}

/// Decodes a stored CI table (with `header`, the 4096 bytes behind it, where the caller has them) into chunks. Digests
/// are zero: they stand in the bootstrap and in `blob.digest`.
///
/// # Errors
/// [`FormatError`] for bytes that do not decode, or records out of bounds or order.
pub fn read_ci(blob: &Blob, table: &[u8], header: Option<&[u8]>) -> Result<Vec<Chunk>, FormatError> {
    let _ = (blob, table, header);
    todo!()
}

/// The local form of a CI table, shipped as `image/<blob id>.blob.meta` in bootstrap layers: the plain table, zeros up
/// to a multiple of 4096, then the header.
///
/// # Errors
/// [`FormatError`] for bytes that do not decode.
pub fn local_blob_meta(blob: &Blob, table: &[u8], header: &[u8]) -> Result<Vec<u8>, FormatError> {
    let _ = (blob, table, header);
    todo!()
}
