//! The chunks of one blob: checked, sorted, small.

use std::{ops::Range, sync::Arc};

use rafs::{
    Blob, BlobId, BlobIndex, Bootstrap, Chunk, ChunkIndex, Compressor, Digest, DigestAlgorithm, FormatError,
    blob::feature,
};

use crate::units::Unit;

/// Largest chunk of the format in bytes, and most bytes that one may take in the blob file.
const MAX_CHUNK: u32 = 16 << 20;
/// Most chunks of a blob.
const MAX_CHUNKS: u32 = 1 << 24;
/// Chunks begin at multiples of this in the uncompressed image.
pub(crate) const BLOCK: u64 = rafs::BLOCK_SIZE;

/// Feature bits of blobs whose chunks cannot be read, or not be checked.
const UNSERVED: [(u32, &str); 3] = [
    (feature::ZRAN, "blob over a gzip layer (zran)"),
    (feature::ENCRYPTED, "encrypted blob"),
    (feature::TARFS, "tarfs image (its chunks have no digests)"),
];

/// One chunk, as much as is needed to fetch and check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: Digest,
    pub(crate) compressed_offset: u64,
    /// 0 for one that shares a [`Unit`] with others.
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

    /// Whether it shares a unit with others, and only the blob tells which.
    pub(crate) fn is_member(&self) -> bool {
        self.compressed_size == 0
    }

    /// The unit that it is by itself, if it does not share one.
    pub(crate) fn own_unit(&self) -> Option<Unit> {
        let (offset, compressed_size, size) = (self.compressed_offset, self.compressed_size, self.size);
        let unit = Unit { offset, compressed_size, size, is_compressed: self.is_compressed() };
        (!self.is_member()).then_some(unit)
    }

    /// Whether the numbers of one record are possible.
    pub(crate) fn is_sound(&self) -> bool {
        let sizes = 1..=MAX_CHUNK;
        let stored = match self.own_unit() {
            Some(unit) => {
                sizes.contains(&unit.compressed_size)
                    && (unit.is_compressed || unit.compressed_size == unit.size)
                    && unit.offset <= u64::MAX >> 1
            }
            None => self.compressed_offset == 0 && !self.is_compressed(),
        };
        stored && sizes.contains(&self.size) && self.digest.0 != [0; 32]
    }

    /// Whether `next` may follow in a table.
    pub(crate) fn precedes(&self, next: &Self) -> bool {
        self.number() < next.number() && self.padded_end() <= next.offset()
    }

    fn new(number: ChunkIndex, chunk: &Chunk) -> Result<Self, FormatError> {
        let wrong =
            |what, found, expected| FormatError::Field { what, offset: number.0.into(), found, expected };
        let block = chunk.uncompressed_offset / BLOCK;
        if number.0 >= MAX_CHUNKS {
            return Err(wrong("chunk number", number.0.into(), "must be below 2^24"));
        }
        // What some builders say of the place and form of a unit's member means nothing.
        let is_member = chunk.compressed_size == 0;
        let is_compressed = chunk.is_compressed && !is_member;
        let entry = Self {
            digest: chunk.digest,
            compressed_offset: if is_member { 0 } else { chunk.compressed_offset },
            compressed_size: chunk.compressed_size,
            size: chunk.uncompressed_size,
            block: u32::try_from(block).map_err(|_| wrong("block of chunk", block, "must be below 2^32"))?,
            tagged_number: number.0 | if is_compressed { Self::COMPRESSED } else { 0 },
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
    /// The chunks that stand in `blob` itself.
    pub(crate) fn new(blob: &Blob) -> Result<Self, FormatError> {
        let entries = blob.chunks.iter().map(|(number, chunk)| Entry::new(number, chunk));
        Self::of(blob, entries.collect::<Result<_, _>>()?)
    }

    /// The chunks of every blob of an image, in the order of its blob table.
    pub(crate) fn all<B: AsRef<[u8]>>(bootstrap: &Bootstrap<B>) -> Result<Vec<Self>, FormatError> {
        let blobs = bootstrap.blobs();
        // Before their chunks are looked at, which may be none.
        blobs.iter().try_for_each(check_served)?;
        let mut entries = vec![Vec::new(); blobs.len()];
        for record in bootstrap.chunk_records() {
            let (BlobIndex(blob), number, chunk) = record?;
            entries[usize::from(blob)].push(Entry::new(number, &chunk)?);
        }
        blobs.iter().zip(entries).map(|(blob, entries)| Self::of(blob, sorted(entries))).collect()
    }

    /// `entries` ascend by number.
    fn of(blob: &Blob, entries: Vec<Entry>) -> Result<Self, FormatError> {
        check_served(blob)?;
        if entries.is_empty() {
            return Err(FormatError::Unsupported { what: "blob without any chunk record", bits: 0 });
        }
        let is_batch = blob.features & feature::BATCH != 0;
        if let Some(member) = entries.iter().find(|entry| entry.is_member() && !is_batch) {
            return Err(FormatError::Field {
                what: "stored size of chunk",
                offset: member.number().into(),
                found: 0,
                expected: "must not be 0",
            });
        }
        if let Some(pair) = entries.windows(2).find(|pair| !pair[0].precedes(&pair[1])) {
            return Err(FormatError::Field {
                what: "offset of chunk",
                offset: u64::from(pair[1].number()),
                found: pair[1].offset(),
                expected: "must be behind the chunk before it",
            });
        }
        let count = entries.last().map_or(0, |last| last.number() + 1).max(blob.chunk_count);
        if count > MAX_CHUNKS {
            let (found, limit) = (count.into(), MAX_CHUNKS.into());
            return Err(FormatError::TooLarge { what: "chunks of a blob", found, limit });
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

    /// How the bytes of `unit` are stored.
    pub(crate) fn compressor_of(&self, unit: &Unit) -> Compressor {
        if unit.is_compressed { self.compressor } else { Compressor::None }
    }
}

fn check_served(blob: &Blob) -> Result<(), FormatError> {
    if let Some((_, what)) = UNSERVED.into_iter().find(|(bit, _)| blob.features & bit != 0) {
        return Err(FormatError::Unsupported { what, bits: blob.features.into() });
    }
    if blob.compressor == Compressor::Gzip {
        return Err(FormatError::Unsupported { what: "gzip chunks", bits: 0 });
    }
    if blob.id == BlobId::unknown() {
        return Err(FormatError::Unsupported { what: "layer that does not name its blob", bits: 0 });
    }
    Ok(())
}

/// By number; of several with one number the last counts.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.reverse();
    entries.sort_by_key(Entry::number);
    entries.dedup_by_key(|entry| entry.number());
    entries
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
        blob.chunks.retain(|place| place != 1);
        let table = ChunkTable::new(&blob).unwrap();
        assert_eq!(table.covering(&(0..4096)), Some(0..1));
        assert_eq!(table.covering(&(0..8192)), None);
        assert_eq!(table.covering(&(8192..12288)), Some(1..2));
        assert_eq!(table.touching(&(0..12288)), 0..2);
    }

    /// The table of a blob whose first chunk is changed.
    fn changed(sizes: &[u32], change: impl Fn(&mut Chunk)) -> Result<ChunkTable, FormatError> {
        let mut blob = TestBlob::new(1, sizes).blob;
        let mut chunks: Vec<_> = blob.chunks.iter().map(|(_, chunk)| *chunk).collect();
        change(&mut chunks[0]);
        blob.chunks = chunks.into_iter().collect();
        ChunkTable::new(&blob)
    }

    #[test]
    fn chunks_that_overlap_are_refused() {
        assert!(changed(&[4096, 4096], |_| ()).is_ok());
        assert!(changed(&[4096, 4096], |chunk| chunk.uncompressed_size = 4097).is_err());
    }

    #[test]
    fn a_chunk_without_digest_or_bytes_is_refused() {
        assert!(changed(&[4096], |chunk| chunk.digest = Digest([0; 32])).is_err());
        assert!(changed(&[4096], |chunk| chunk.compressed_size = 0).is_err());
    }

    #[test]
    fn blobs_whose_chunks_cannot_be_read_or_checked_are_refused_by_name() {
        for (bit, name) in UNSERVED {
            let mut blob = TestBlob::new(1, &[4096]).blob;
            blob.features |= bit;
            let error = ChunkTable::new(&blob).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is not supported")), "{error}");
        }
        let mut unknown = TestBlob::new(1, &[4096]).blob;
        unknown.chunks.retain(|_| false);
        assert!(ChunkTable::new(&unknown).unwrap_err().to_string().contains("without any chunk record"));
        let nameless = Blob { id: BlobId::unknown(), ..TestBlob::new(1, &[4096]).blob };
        assert!(ChunkTable::new(&nameless).unwrap_err().to_string().contains("does not name its blob"));
    }
}
