//! Which pieces there are.

use crate::{PieceCount, PieceIndex};

/// A set of pieces of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceBitmap {
    words: Box<[u64]>,
    pieces: u32,
    held: u32,
}

/// A bitmap that does not fit its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bitmap of {bytes} bytes does not fit a blob of {pieces} pieces, or has bits beyond them")]
pub struct BitmapError {
    /// Its length in bytes.
    pub bytes: usize,
    /// Pieces of the blob.
    pub pieces: u32,
}

impl PieceBitmap {
    /// None of so many pieces.
    #[must_use]
    pub fn empty(count: PieceCount) -> Self {
        let words = vec![0; count.get().div_ceil(u64::BITS) as usize].into();
        Self { words, pieces: count.get(), held: 0 }
    }

    /// All of so many pieces.
    #[must_use]
    pub fn full(count: PieceCount) -> Self {
        let mut full = Self::empty(count);
        count.pieces().for_each(|piece| _ = full.insert(piece));
        full
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`BitmapError`] for another length, or bits for pieces that the blob does not have.
    pub fn from_bytes(count: PieceCount, bytes: &[u8]) -> Result<Self, BitmapError> {
        let wrong = BitmapError { bytes: bytes.len(), pieces: count.get() };
        if bytes.len() != count.get().div_ceil(8) as usize {
            return Err(wrong);
        }
        let mut bitmap = Self::empty(count);
        for (word, chunk) in bitmap.words.iter_mut().zip(bytes.chunks(8)) {
            let mut wide = [0; 8];
            wide[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(wide);
        }
        let spare = (bitmap.words.len() * 64) as u64 - u64::from(count.get());
        if spare > 0
            && bitmap
                .words
                .last()
                .is_some_and(|last| last.leading_zeros() < u32::try_from(spare).unwrap_or(0))
        {
            return Err(wrong);
        }
        bitmap.held = bitmap.words.iter().map(|word| word.count_ones()).sum();
        Ok(bitmap)
    }

    /// One bit for each piece, the first in the lowest bit of the first byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.pieces.div_ceil(8) as usize);
        bytes
    }

    /// Whether a piece is there.
    #[must_use]
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.words.get(piece.slot() / 64).is_some_and(|word| word >> (piece.slot() % 64) & 1 == 1)
    }

    /// Adds a piece; says whether it is new.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        let Some(word) = self.words.get_mut(piece.slot() / 64) else { return false };
        let bit = 1 << (piece.slot() % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.held += u32::from(new);
        new
    }

    /// Takes a piece out; says whether it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let Some(word) = self.words.get_mut(piece.slot() / 64) else { return false };
        let bit = 1 << (piece.slot() % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        self.held -= u32::from(was);
        was
    }

    /// How many pieces are there.
    #[must_use]
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// Whether all pieces are there.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.held == self.pieces
    }

    /// The pieces that are there, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        set_bits(self.words.iter().copied())
    }

    /// The pieces that are here and not in `other`, in order.
    pub fn minus<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PieceIndex> + 'a {
        set_bits(self.words.iter().zip(&other.words).map(|(here, there)| here & !there))
    }

    /// The pieces that are here and in `other` but not in `except`, all of the same blob, in order.
    pub fn shared<'a>(&'a self, other: &'a Self, except: &'a Self) -> impl Iterator<Item = PieceIndex> + 'a {
        let words = self.words.iter().zip(&other.words).zip(&except.words);
        set_bits(words.map(|((here, there), not)| here & there & !not))
    }

    /// Adds all pieces of `other`, a bitmap of the same blob.
    pub fn merge(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.held = self.words.iter().map(|word| word.count_ones()).sum();
    }
}

fn set_bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = PieceIndex> {
    (0_u32..).step_by(64).zip(words).flat_map(|(first, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some(PieceIndex(first + bit))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(pieces: u32) -> PieceCount {
        PieceCount::new(pieces).unwrap()
    }

    proptest! {
        #[test]
        fn a_bitmap_is_the_set_that_was_put_in(pieces in 1_u32..300, steps in prop::collection::vec((0_u32..300, any::<bool>()), 0..200)) {
            let count = count(pieces);
            let mut model = std::collections::BTreeSet::new();
            let mut bitmap = PieceBitmap::empty(count);
            for (number, add) in steps {
                let Some(piece) = count.piece(number) else { continue };
                if add {
                    prop_assert_eq!(bitmap.insert(piece), model.insert(piece));
                } else {
                    prop_assert_eq!(bitmap.remove(piece), model.remove(&piece));
                }
            }
            prop_assert!(bitmap.iter().eq(model.iter().copied()));
            prop_assert_eq!(bitmap.held() as usize, model.len());
            let again = PieceBitmap::from_bytes(count, &bitmap.to_bytes()).unwrap();
            prop_assert_eq!(&again, &bitmap);
            prop_assert!(PieceBitmap::full(count).minus(&bitmap).all(|piece| !model.contains(&piece)));
        }

        #[test]
        fn foreign_bytes_are_a_bitmap_or_an_error(pieces in 0_u32..200, bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            if let Ok(bitmap) = PieceBitmap::from_bytes(count(pieces), &bytes) {
                prop_assert_eq!(bitmap.to_bytes(), bytes);
                prop_assert!(bitmap.iter().all(|piece| piece.get() < pieces));
            }
        }
    }
}
