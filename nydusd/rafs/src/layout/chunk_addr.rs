//! Chunk indexes: 8 bytes in a file's inode for each of its chunks.

use super::{check, le16, le32};
use crate::{BlobIndex, ChunkIndex, FormatError};

pub(crate) const LEN: usize = 8;
/// Set in `i_u` of every chunk-based file: indexes have 8 bytes.
pub(crate) const FORMAT_INDEXES: u32 = 0x20;

/// Where a chunk stands: by number for user space, by block for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkAddr {
    pub(crate) blob: BlobIndex,
    pub(crate) chunk: ChunkIndex,
    /// Block of the blob's uncompressed image.
    pub(crate) block: u32,
}

impl ChunkAddr {
    /// Reads one, which stands at `offset`.
    #[inline]
    pub(crate) fn parse(record: &[u8], offset: u64) -> Result<Self, FormatError> {
        let [device, number_high] = le16(record, 2).to_le_bytes();
        check(device != 0, "chunk's blob", offset, 0, "must not be a hole")?;
        let chunk = u32::from(number_high) << 16 | u32::from(le16(record, 0));
        Ok(Self { blob: BlobIndex(device - 1), chunk: ChunkIndex(chunk), block: le32(record, 4) })
    }

    /// Its bytes. The blob is below 255 and the chunk below 2^24.
    pub(crate) fn encode(self) -> [u8; LEN] {
        let [n0, n1, n2, _] = self.chunk.0.to_le_bytes();
        let [b0, b1, b2, b3] = self.block.to_le_bytes();
        [n0, n1, self.blob.0 + 1, n2, b0, b1, b2, b3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        let addr = ChunkAddr { blob: BlobIndex(253), chunk: ChunkIndex(0xAB_CDEF), block: 0x1234_5678 };
        assert_eq!(ChunkAddr::parse(&addr.encode(), 0), Ok(addr));
    }

    #[test]
    fn a_hole_is_refused() {
        assert!(ChunkAddr::parse(&[0; LEN], 0).is_err());
    }
}
