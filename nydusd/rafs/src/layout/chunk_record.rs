//! Records of the bootstrap's chunk table, 80 bytes each.

use super::{check, le32, le64, put};
use crate::{BlobIndex, Chunk, ChunkIndex, Digest, FormatError};

pub(crate) const LEN: usize = 80;

const COMPRESSED: u32 = 1;
const HOLE: u32 = 2;
const ENCRYPTED: u32 = 4;
const BATCH: u32 = 8;
const HAS_CRC32: u32 = 16;
const MAX_COMPRESSED_SIZE: u64 = 1 << 40;

/// A chunk, where it belongs, and where it stands in (the last written) one of its files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRecord {
    pub(crate) blob: u32,
    pub(crate) index: ChunkIndex,
    pub(crate) chunk: Chunk,
    pub(crate) file_offset: u64,
}

impl ChunkRecord {
    /// Reads the record at `offset`; whether it fits its blob is for the caller to check.
    pub(crate) fn parse(record: &[u8; LEN], offset: u64) -> Result<Self, FormatError> {
        let flags = le32(record, 36);
        if flags & (HOLE | ENCRYPTED) != 0 {
            return Err(FormatError::Unsupported { what: "hole or encrypted chunk", bits: flags.into() });
        }
        let known = flags & !(COMPRESSED | BATCH | HAS_CRC32) == 0;
        check(known, "chunk flags", offset, flags.into(), "must be known")?;
        let chunk = Chunk {
            digest: Digest(*record.first_chunk().expect("80 bytes begin with 32")),
            compressed_size: le32(record, 40),
            uncompressed_size: le32(record, 44),
            compressed_offset: le64(record, 48),
            uncompressed_offset: le64(record, 56),
            is_compressed: flags & COMPRESSED != 0,
            crc32c: (flags & HAS_CRC32 != 0).then(|| le32(record, 76)),
        };
        let end = chunk.compressed_offset.saturating_add(chunk.compressed_size.into());
        check(end <= MAX_COMPRESSED_SIZE, "chunk's compressed end", offset, end, "must be at most 2^40")?;
        check(chunk.uncompressed_size > 0, "chunk length", offset, 0, "must not be 0")?;
        Ok(Self {
            blob: le32(record, 32),
            index: ChunkIndex(le32(record, 72)),
            chunk,
            file_offset: le64(record, 64),
        })
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let chunk = &self.chunk;
        let compressed = if chunk.is_compressed { COMPRESSED } else { 0 };
        let crc = if chunk.crc32c.is_some() { HAS_CRC32 } else { 0 };
        let mut to = [0; LEN];
        put(&mut to, 0, &chunk.digest.0);
        put(&mut to, 32, &self.blob.to_le_bytes());
        put(&mut to, 36, &(compressed | crc).to_le_bytes());
        put(&mut to, 40, &chunk.compressed_size.to_le_bytes());
        put(&mut to, 44, &chunk.uncompressed_size.to_le_bytes());
        put(&mut to, 48, &chunk.compressed_offset.to_le_bytes());
        put(&mut to, 56, &chunk.uncompressed_offset.to_le_bytes());
        put(&mut to, 64, &self.file_offset.to_le_bytes());
        put(&mut to, 72, &self.index.0.to_le_bytes());
        put(&mut to, 76, &chunk.crc32c.unwrap_or(0).to_le_bytes());
        to
    }

    /// The blob as an index, where it is one.
    pub(crate) fn blob_index(&self) -> Option<BlobIndex> {
        u8::try_from(self.blob).ok().map(BlobIndex)
    }
}
