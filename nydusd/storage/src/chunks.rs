//! The chunks of one blob: checked, sorted, small.

use std::{ops::Range, sync::Arc};

use rafs::{Blob, Chunk, ChunkIndex, Compressor, Digest, DigestAlgorithm, FormatError, blob::feature};

/// Largest chunk of the format in bytes, and most bytes that one may take in the blob file.
const MAX_CHUNK: u32 = 16 << 20;
/// Chunks begin at multiples of this in the uncompressed image.
pub(crate) const BLOCK: u64 = rafs::BLOCK_SIZE;

/// Feature bits that need more than one chunk or a key to decode a chunk.
const UNSERVED: [(u32, &str); 3] =
    [(0x8, "zran blob"), (feature::BATCH, "batch blob"), (0x100, "encrypted blob")];

/// One chunk, as much as is needed to fetch and check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: Digest,
    pub(crate) compressed_offset: u64,
    pub(crate) compressed_size: u32,
    pub(crate) size: u32,
    pub(crate) block: u32,
    /// The number, with [`Self::COMPRESSED`].
    pub(crate) tagged_number: u32,
}

const _: () = assert!(size_of::<Entry>() == 56, "a chunk's share of the daemon's memory");

impl Entry {
    pub(crate) const COMPRESSED: u32 = 1 << 31;

    pub(crate) fn number(&self) -> u32 {
        self.tagged_number & !Self::COMPRESSED
    }

    pub(crate) fn index(&self) -> ChunkIndex {
        ChunkIndex(self.number())
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.tagged_number & Self::COMPRESSED != 0
    }

    /// Where it begins in the uncompressed image.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.block) * BLOCK
    }

    /// Where its bytes end in the uncompressed image.
    pub(crate) fn end(&self) -> u64 {
        self.offset() + u64::from(self.size)
    }

    /// Where its last block ends; the bytes between are zeros.
    pub(crate) fn padded_end(&self) -> u64 {
        self.end().next_multiple_of(BLOCK)
    }

    /// Its place in the blob file.
    pub(crate) fn stored(&self) -> Range<u64> {
        self.compressed_offset..self.compressed_offset + u64::from(self.compressed_size)
    }

    /// Whether the numbers of one record are possible.
    pub(crate) fn is_sound(&self) -> bool {
        let sizes = 1..=MAX_CHUNK;
        sizes.contains(&self.size)
            && sizes.contains(&self.compressed_size)
            && (self.is_compressed() || self.compressed_size == self.size)
            && self.compressed_offset <= u64::MAX >> 1
            && self.digest.0 != [0; 32]
    }

    /// Whether `next` may follow in a table.
    pub(crate) fn precedes(&self, next: &Self) -> bool {
        self.number() < next.number() && self.padded_end() <= next.offset()
    }

    fn new(number: usize, chunk: &Chunk) -> Result<Self, FormatError> {
        let wrong =
            |what, found, expected| FormatError::Field { what, offset: number as u64, found, expected };
        let block = chunk.uncompressed_offset / BLOCK;
        let entry = Self {
            digest: chunk.digest,
            compressed_offset: chunk.compressed_offset,
            compressed_size: chunk.compressed_size,
            size: chunk.uncompressed_size,
            block: u32::try_from(block).map_err(|_| wrong("block of chunk", block, "must be below 2^32"))?,
            tagged_number: u32::try_from(number)
                .ok()
                .filter(|n| n & Self::COMPRESSED == 0)
                .ok_or_else(|| wrong("chunk number", number as u64, "must be below 2^24"))?
                | if chunk.is_compressed { Self::COMPRESSED } else { 0 },
        };
        if !chunk.uncompressed_offset.is_multiple_of(BLOCK) {
            return Err(wrong("offset of chunk", chunk.uncompressed_offset, "must be a multiple of 4096"));
        }
        if !entry.is_sound() {
            let expected = "must have a digest, and sizes of 1 byte to 16 MiB";
            return Err(wrong("stored size of chunk", u64::from(chunk.compressed_size), expected));
        }
        Ok(entry)
    }
}

/// The chunks of one blob that an image knows of, in the order of their numbers, which is that of their offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkTable {
    pub(crate) entries: Arc<[Entry]>,
    /// Number of chunks in the blob, known or not.
    pub(crate) count: u32,
    pub(crate) algorithm: DigestAlgorithm,
    pub(crate) compressor: Compressor,
}

impl ChunkTable {
    pub(crate) fn new(blob: &Blob) -> Result<Self, FormatError> {
        for (bit, what) in UNSERVED {
            if blob.features & bit != 0 {
                return Err(FormatError::Unsupported { what, bits: u64::from(blob.features) });
            }
        }
        if blob.compressor == Compressor::Gzip {
            return Err(FormatError::Unsupported { what: "gzip chunks", bits: 0 });
        }
        let known =
            blob.chunks.iter().enumerate().filter_map(|(number, chunk)| Some((number, chunk.as_ref()?)));
        let entries =
            known.map(|(number, chunk)| Entry::new(number, chunk)).collect::<Result<Vec<_>, _>>()?;
        if let Some(pair) = entries.windows(2).find(|pair| !pair[0].precedes(&pair[1])) {
            return Err(FormatError::Field {
                what: "offset of chunk",
                offset: u64::from(pair[1].number()),
                found: pair[1].offset(),
                expected: "must be behind the chunk before it",
            });
        }
        let count = entries.last().map_or(0, |last| last.number() + 1).max(blob.chunk_count);
        if count > 1 << 24 {
            let found = u64::from(count);
            return Err(FormatError::TooLarge { what: "chunks of a blob", found, limit: 1 << 24 });
        }
        Ok(Self {
            entries: entries.into(),
            count,
            algorithm: blob.digest_algorithm,
            compressor: blob.compressor,
        })
    }

    /// Places in the table of the chunks that hold every byte of `range`; `None` where one is in no known chunk.
    pub(crate) fn covering(&self, range: &Range<u64>) -> Option<Range<usize>> {
        let first = self.entries.partition_point(|e| e.padded_end() <= range.start);
        let mut at = range.start;
        let mut next = first;
        while at < range.end {
            let entry = self.entries.get(next)?;
            if entry.offset() > at {
                return None;
            }
            at = entry.padded_end();
            next += 1;
        }
        Some(first..next)
    }

    /// Places in the table of all chunks that hold some byte of `range`.
    pub(crate) fn touching(&self, range: &Range<u64>) -> Range<usize> {
        let first = self.entries.partition_point(|e| e.end() <= range.start);
        let end = self.entries.partition_point(|e| e.offset() < range.end);
        first..end.max(first)
    }

    /// How the bytes of `entry` are stored.
    pub(crate) fn compressor_of(&self, entry: &Entry) -> Compressor {
        if entry.is_compressed() { self.compressor } else { Compressor::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBlob;

    fn table() -> ChunkTable {
        ChunkTable::new(&TestBlob::new(1, &[4096, 100, 10_000]).blob).unwrap()
    }

    #[test]
    fn a_range_is_covered_by_its_chunks_and_their_padding() {
        let table = table();
        assert_eq!(table.covering(&(0..4096)), Some(0..1));
        assert_eq!(table.covering(&(4095..4097)), Some(0..2));
        assert_eq!(table.covering(&(4200..8192)), Some(1..2), "zeros behind a short chunk");
        assert_eq!(table.covering(&(0..8192 + 12288)), Some(0..3));
        assert_eq!(table.covering(&(0..8192 + 12289)), None);
        assert_eq!(table.covering(&(1 << 40..1 << 41)), None);
    }

    #[test]
    fn a_range_over_an_unknown_chunk_is_not_covered() {
        let mut blob = TestBlob::new(1, &[4096, 4096, 4096]).blob;
        blob.chunks[1] = None;
        let table = ChunkTable::new(&blob).unwrap();
        assert_eq!(table.covering(&(0..4096)), Some(0..1));
        assert_eq!(table.covering(&(0..8192)), None);
        assert_eq!(table.covering(&(8192..12288)), Some(1..2));
        assert_eq!(table.touching(&(0..12288)), 0..2);
    }

    #[test]
    fn chunks_that_overlap_are_refused() {
        let mut blob = TestBlob::new(1, &[4096, 4096]).blob;
        blob.chunks[0].as_mut().unwrap().uncompressed_size = 4097;
        assert!(ChunkTable::new(&blob).is_err());
    }

    #[test]
    fn a_chunk_without_digest_is_refused() {
        let mut blob = TestBlob::new(1, &[4096]).blob;
        blob.chunks[0].as_mut().unwrap().digest = Digest([0; 32]);
        assert!(ChunkTable::new(&blob).is_err());
    }

    #[test]
    fn blobs_that_need_more_than_one_chunk_to_decode_are_refused() {
        for bits in [0x8, 0x80, 0x100] {
            let mut blob = TestBlob::new(1, &[4096]).blob;
            blob.features |= bits;
            assert!(matches!(ChunkTable::new(&blob), Err(FormatError::Unsupported { .. })), "{bits:#x}");
        }
    }
}
