//! The chunks of one blob that are known, by number.

use crate::{Chunk, ChunkIndex};

/// The chunks of one blob that are known, ascending by number. Those that nobody told of take no memory: a blob may
/// have many more than an image uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunks(Vec<(ChunkIndex, Chunk)>);

impl Chunks {
    /// Number of known chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a chunk stands among the known ones.
    #[must_use]
    pub fn position(&self, chunk: ChunkIndex) -> Option<usize> {
        // Of most blobs all are known.
        let own_place = usize::try_from(chunk.0).ok()?;
        if self.0.get(own_place).is_some_and(|(number, _)| *number == chunk) {
            return Some(own_place);
        }
        self.0.binary_search_by_key(&chunk, |(number, _)| *number).ok()
    }

    /// A chunk by number.
    #[must_use]
    pub fn get(&self, chunk: ChunkIndex) -> Option<&Chunk> {
        Some(&self.0[self.position(chunk)?].1)
    }

    /// Number and chunk, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (ChunkIndex, &Chunk)> {
        self.0.iter().map(|(number, chunk)| (*number, chunk))
    }

    /// Adds what `other` knows besides.
    pub fn add(&mut self, other: &Self) {
        let missing = other.0.iter().filter(|(number, _)| self.position(*number).is_none());
        let missing: Vec<_> = missing.copied().collect();
        self.0.extend(missing);
        self.0.sort_unstable_by_key(|(number, _)| *number);
    }

    /// Forgets the chunks at the places (as [`Self::position`] gives them) for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut places = 0..;
        self.0.retain(|_| places.next().is_some_and(&mut keep));
    }
}

/// In any order; of several with one number the last counts.
impl FromIterator<(ChunkIndex, Chunk)> for Chunks {
    fn from_iter<I: IntoIterator<Item = (ChunkIndex, Chunk)>>(chunks: I) -> Self {
        let mut chunks: Vec<_> = chunks.into_iter().collect();
        chunks.reverse();
        chunks.sort_by_key(|(number, _)| *number);
        chunks.dedup_by_key(|(number, _)| *number);
        Self(chunks)
    }
}

/// Numbered from 0 on.
impl FromIterator<Chunk> for Chunks {
    fn from_iter<I: IntoIterator<Item = Chunk>>(chunks: I) -> Self {
        Self((0..).map(ChunkIndex).zip(chunks).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn chunk(size: u32) -> Chunk {
        Chunk {
            digest: Digest([0; 32]),
            compressed_offset: 0,
            compressed_size: size,
            uncompressed_offset: 0,
            uncompressed_size: size,
            is_compressed: false,
            crc32c: None,
        }
    }

    fn known(numbers: &[u32]) -> Chunks {
        numbers.iter().map(|number| (ChunkIndex(*number), chunk(*number))).collect()
    }

    #[test]
    fn a_chunk_is_found_by_its_number_whether_or_not_those_before_are_known() {
        for numbers in [&[0, 1, 2, 3][..], &[3, 0], &[2, 9, 3]] {
            let chunks = known(numbers);
            for number in 0..12 {
                let found = chunks.get(ChunkIndex(number)).map(|chunk| chunk.compressed_size);
                assert_eq!(found, numbers.contains(&number).then_some(number), "{number} of {numbers:?}");
            }
        }
    }

    #[test]
    fn of_two_chunks_with_one_number_the_last_counts() {
        let twice = [(ChunkIndex(1), chunk(5)), (ChunkIndex(0), chunk(6)), (ChunkIndex(1), chunk(7))];
        let chunks: Chunks = twice.into_iter().collect();
        assert_eq!((chunks.len(), chunks.get(ChunkIndex(1)).unwrap().compressed_size), (2, 7));
    }

    #[test]
    fn what_another_knows_is_added_and_what_is_known_stays() {
        let mut chunks = known(&[1, 4]);
        let other: Chunks = [(ChunkIndex(4), chunk(99)), (ChunkIndex(0), chunk(0))].into_iter().collect();
        chunks.add(&other);
        assert_eq!(chunks, known(&[0, 1, 4]));
        chunks.retain(|place| place != 1);
        assert_eq!(chunks, known(&[0, 4]));
    }
}
