//! What stands in a blob file as one piece: a chunk, or several small ones that were compressed together.

use std::ops::Range;

use rafs::{
    Blob, FormatError,
    blob::{BatchMember, CI_HEADER_LEN, read_batches},
};

use crate::{
    chunks::{ChunkTable, Entry},
    plan::MAX_NEIGHBOURS,
};

/// Longest table of chunks that is read from a blob, in bytes: one of 2.7 million chunks.
const MAX_TABLE: u64 = 64 << 20;

/// One piece of a blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unit {
    /// Where it begins in the blob file.
    pub(crate) offset: u64,
    pub(crate) compressed_size: u32,
    /// Length of its uncompressed bytes.
    pub(crate) size: u32,
    pub(crate) is_compressed: bool,
}

impl Unit {
    /// Its place in the blob file.
    pub(crate) fn stored(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.compressed_size)
    }
}

impl From<&BatchMember> for Unit {
    fn from(member: &BatchMember) -> Self {
        let (compressed_size, size) = (member.unit_compressed_size, member.unit_uncompressed_size);
        Self { offset: member.unit_offset, compressed_size, size, is_compressed: compressed_size != size }
    }
}

/// Where a chunk stands: in which unit, and from which byte of its uncompressed bytes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) unit: Unit,
    pub(crate) begin: u32,
}

/// The table at the end of a blob that tells which chunks share units. The bootstrap tells of this table, and of the
/// chunks' digests, but not of the units.
#[derive(Debug)]
pub(crate) struct UnitTable {
    blob: Blob,
}

impl UnitTable {
    /// Of a blob some of whose chunks share units.
    pub(crate) fn new(blob: &Blob) -> Result<Self, FormatError> {
        let (found, limit) = (blob.ci.uncompressed_size, MAX_TABLE);
        if found > limit {
            return Err(FormatError::TooLarge { what: "table of a batch blob", found, limit });
        }
        Ok(Self { blob: Blob { chunks: rafs::Chunks::default(), ..blob.clone() } })
    }

    /// The bytes of the blob file to read for it.
    pub(crate) fn stored(&self) -> Range<u64> {
        let ci = &self.blob.ci;
        ci.offset..ci.offset + ci.compressed_size + CI_HEADER_LEN
    }

    /// Reads it from those bytes, for the chunks that an image knows of.
    pub(crate) fn read(&self, chunks: &ChunkTable, bytes: &[u8]) -> Result<Units, FormatError> {
        let header = bytes.len().saturating_sub(usize::try_from(CI_HEADER_LEN).unwrap_or(usize::MAX));
        let (table, header) = bytes.split_at(header);
        Units::new(chunks, &read_batches(&self.blob, table, Some(header))?)
    }
}

/// Which chunks of a blob share which units.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Units {
    units: Vec<Unit>,
    /// By place in the chunk table: place in `units`, and where the chunk begins in it. `None`: a unit of its own.
    members: Vec<Option<(u32, u32)>>,
}

impl Units {
    fn new(chunks: &ChunkTable, members: &[Option<BatchMember>]) -> Result<Self, FormatError> {
        let mut this = Self { units: Vec::new(), members: Vec::with_capacity(chunks.entries.len()) };
        for entry in chunks.entries.iter() {
            let member = if entry.is_member() { Some(this.add(entry, members)?) } else { None };
            this.members.push(member);
        }
        Ok(this)
    }

    fn add(&mut self, entry: &Entry, members: &[Option<BatchMember>]) -> Result<(u32, u32), FormatError> {
        let number = entry.number();
        let member = members.get(number as usize).and_then(Option::as_ref);
        let fits = |member: &&BatchMember| {
            member.offset.checked_add(entry.size).is_some_and(|end| end <= member.unit_uncompressed_size)
        };
        let Some(member) = member.filter(fits) else {
            return Err(FormatError::Field {
                what: "unit of chunk",
                offset: number.into(),
                found: member.map_or(0, |member| member.unit_uncompressed_size.into()),
                expected: "must hold the chunk",
            });
        };
        // Members of a unit follow one another.
        let unit = Unit::from(member);
        if self.units.last() != Some(&unit) {
            self.units.push(unit);
        }
        Ok((u32::try_from(self.units.len() - 1).expect("no more units than chunks"), member.offset))
    }

    /// Where the chunk at `place` in the chunk table stands, if it shares a unit.
    pub(crate) fn place(&self, place: usize) -> Option<Place> {
        let (unit, begin) = (*self.members.get(place)?)?;
        Some(Place { unit: *self.units.get(unit as usize)?, begin })
    }

    /// `places` and those next to them that come with them in the same units, within bounds.
    pub(crate) fn with_siblings(&self, places: Range<usize>) -> Range<usize> {
        let unit = |place: usize| self.members.get(place).copied().flatten().map(|(unit, _)| unit);
        let same = |a: usize, b: usize| unit(a).is_some_and(|a| unit(b) == Some(a));
        let Range { mut start, mut end } = places;
        let (first, last) = (start.saturating_sub(MAX_NEIGHBOURS), end.saturating_add(MAX_NEIGHBOURS));
        while start > first && same(start - 1, start) {
            start -= 1;
        }
        while end > 0 && end < last && same(end - 1, end) {
            end += 1;
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBlob;

    fn batched() -> (TestBlob, ChunkTable, UnitTable) {
        // Two units of three and two chunks, a chunk of its own between and behind them.
        let blob = TestBlob::batched(1, &[100, 5000, 300, 60_000, 10, 20, 60_000], 8192);
        let (chunks, table) = (ChunkTable::new(&blob.blob).unwrap(), UnitTable::new(&blob.blob).unwrap());
        (blob, chunks, table)
    }

    fn stored(blob: &TestBlob, table: &UnitTable) -> Vec<u8> {
        let Range { start, end } = table.stored();
        blob.file[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].to_vec()
    }

    #[test]
    fn the_blobs_table_tells_which_chunks_share_a_unit() {
        let (blob, chunks, table) = batched();
        let units = table.read(&chunks, &stored(&blob, &table)).unwrap();
        let place = |place| units.place(place).map(|at| (at.unit.size, at.begin));
        let places: Vec<_> = (0..8).map(place).collect();
        let (first, second) = (|at| Some((5400, at)), |at| Some((30, at)));
        assert_eq!(places, [first(0), first(100), first(5100), None, second(0), second(10), None, None]);
        assert_eq!(units.with_siblings(1..2), 0..3);
        assert_eq!(units.with_siblings(2..5), 0..6);
        assert_eq!(units.with_siblings(3..4), 3..4);
        assert_eq!(units.with_siblings(6..7), 6..7);
    }

    #[test]
    fn a_table_that_does_not_hold_a_chunk_is_refused() {
        let (blob, chunks, table) = batched();
        let bytes = stored(&blob, &table);
        assert!(table.read(&chunks, &bytes[..bytes.len() - 1]).is_err());
        assert!(table.read(&chunks, &[]).is_err());
        let mut entries = chunks.entries.to_vec();
        entries[2].size += 1;
        assert!(table.read(&ChunkTable { entries: entries.into(), ..chunks.clone() }, &bytes).is_err());
        let members = read_batches(&blob.blob, &bytes[..bytes.len() - 4096], None).unwrap();
        assert!(Units::new(&chunks, &members[..5]).is_err());
    }
}
