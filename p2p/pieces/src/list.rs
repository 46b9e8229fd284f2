//! The file `image/<blob>.pieces` of an image: what each piece of a blob must be.
//!
//! ```text
//! magic 8 "SHOALPCS" | version 4 | piece size 4 | length of the blob 8 | BLAKE3 of each piece, 32 each
//! ```
//!
//! Numbers are little-endian. Pieces are of the blob as it is stored, compressed, its tail included. The list has its
//! length from its header, and its name from its own BLAKE3.

use crate::{LayoutError, PieceIndex, PieceLayout};

const MAGIC: &[u8; 8] = b"SHOALPCS";
const VERSION: u32 = 1;
const HEADER: usize = 24;
const DIGEST: usize = 32;

/// What each piece of a blob must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceList {
    layout: PieceLayout,
    digests: Vec<[u8; DIGEST]>,
}

/// Bytes that are no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// They are something else.
    #[error("not a list of pieces")]
    Foreign,
    /// A list of another version.
    #[error("a list of pieces of version {0}; this one reads version {VERSION}")]
    Version(u32),
    /// They speak of a blob that cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// They are more or less than their header says.
    #[error("{found} bytes of a list of pieces, which has {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

impl PieceList {
    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`ListError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        let (header, digests) = bytes.split_first_chunk::<HEADER>().ok_or(ListError::Foreign)?;
        if !header.starts_with(MAGIC) {
            return Err(ListError::Foreign);
        }
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if number(8) != VERSION {
            return Err(ListError::Version(number(8)));
        }
        let len = u64::from(number(20)) << 32 | u64::from(number(16));
        let layout = PieceLayout::new(len, number(12))?;
        let expected = HEADER + layout.count().get() as usize * DIGEST;
        if bytes.len() != expected {
            return Err(ListError::Length { found: bytes.len(), expected });
        }
        let (digests, _) = digests.as_chunks();
        Ok(Self { layout, digests: digests.to_vec() })
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.digests.len() * DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.layout.piece_size().to_le_bytes());
        bytes.extend_from_slice(&self.layout.len().to_le_bytes());
        bytes.extend_from_slice(self.digests.as_flattened());
        bytes
    }

    /// The list's own name: BLAKE3 of the file.
    #[must_use]
    pub fn digest(&self) -> [u8; DIGEST] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// How the blob is cut.
    #[must_use]
    pub const fn layout(&self) -> &PieceLayout {
        &self.layout
    }

    /// Whether `bytes` are this piece.
    #[must_use]
    pub fn vouches_for(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        let digest = self.digests.get(piece.slot());
        bytes.len() == self.layout.piece_len(piece) as usize
            && digest.is_some_and(|digest| blake3::hash(bytes) == *digest)
    }
}

/// Makes the list of a blob while it is written, front to back.
#[derive(Debug)]
pub struct PieceLister {
    piece_size: u32,
    len: u64,
    digests: Vec<[u8; DIGEST]>,
    piece: blake3::Hasher,
}

impl Default for PieceLister {
    /// Pieces of the usual size, since the length is not known yet.
    fn default() -> Self {
        let piece_size = PieceLayout::DEFAULT_SIZE;
        Self { piece_size, len: 0, digests: Vec::new(), piece: blake3::Hasher::new() }
    }
}

impl PieceLister {
    /// Pieces of `piece_size` bytes.
    ///
    /// # Errors
    /// [`LayoutError`] for a size that pieces cannot have.
    pub fn with_size(piece_size: u32) -> Result<Self, LayoutError> {
        PieceLayout::new(0, piece_size)?;
        Ok(Self { piece_size, ..Self::default() })
    }

    /// The blob goes on with `bytes`.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let size = u64::from(self.piece_size);
        while !bytes.is_empty() {
            let missing = size - self.len % size;
            let part = usize::try_from(missing).map_or(bytes.len(), |missing| missing.min(bytes.len()));
            let (now, later) = bytes.split_at(part);
            self.piece.update(now);
            self.len += part as u64;
            if self.len.is_multiple_of(size) {
                self.end_piece();
            }
            bytes = later;
        }
    }

    fn end_piece(&mut self) {
        self.digests.push(*self.piece.finalize().as_bytes());
        self.piece.reset();
    }

    /// The blob ends here.
    ///
    /// # Errors
    /// [`LayoutError`] for a blob of more pieces than a list may have.
    pub fn finish(mut self) -> Result<PieceList, LayoutError> {
        if !self.len.is_multiple_of(u64::from(self.piece_size)) {
            self.end_piece();
        }
        let layout = PieceLayout::new(self.len, self.piece_size)?;
        Ok(PieceList { layout, digests: self.digests })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = PieceLayout::DEFAULT_SIZE as usize;

    fn list(bytes: &[u8]) -> PieceList {
        let mut lister = PieceLister::default();
        lister.update(bytes);
        lister.finish().unwrap()
    }

    #[test]
    fn a_list_vouches_for_the_pieces_of_its_blob_and_for_nothing_else() {
        for len in [0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE + 5] {
            let blob: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let list = list(&blob);
            assert_eq!(list.layout().len(), len as u64);
            for piece in list.layout().pieces() {
                let range = list.layout().range(piece);
                let part = &blob[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
                assert!(list.vouches_for(piece, part));
                let mut flipped = part.to_vec();
                flipped[part.len() / 2] ^= 1;
                assert!(!list.vouches_for(piece, &flipped));
                assert!(!list.vouches_for(piece, &part[1..]));
                assert!(!list.vouches_for(piece, &[part, &[0]].concat()));
            }
        }
    }

    #[test]
    fn the_bytes_of_a_list_are_fixed() {
        let encoded = list(b"abc").encode();
        let digest = blake3::hash(b"abc");
        let expected =
            [b"SHOALPCS\x01\0\0\0\0\0\x10\0\x03\0\0\0\0\0\0\0", digest.as_bytes().as_slice()].concat();
        assert_eq!(encoded, expected);
    }

    #[test]
    fn foreign_and_hostile_bytes_are_told_apart() {
        let bytes = list(&vec![7; 2 * SIZE]).encode();
        let changed = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            PieceList::decode(&changed)
        };
        assert_eq!(PieceList::decode(b""), Err(ListError::Foreign));
        assert_eq!(changed(0, b'X'), Err(ListError::Foreign));
        assert_eq!(changed(8, 2), Err(ListError::Version(2)));
        assert!(matches!(changed(14, 0x11), Err(ListError::Layout(_))), "a size that is no power of two");
        assert!(matches!(changed(23, 0xff), Err(ListError::Layout(_))), "more pieces than may be");
        assert!(matches!(changed(19, 1), Err(ListError::Length { .. })), "a longer blob than the list is of");
        assert!(matches!(PieceList::decode(&bytes[..bytes.len() - 1]), Err(ListError::Length { .. })));
        assert!(matches!(PieceList::decode(&[&bytes[..], &[0]].concat()), Err(ListError::Length { .. })));
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written_however_it_was_made(
            len in 0..5 * SIZE, cuts in prop::collection::vec(1..2 * SIZE, 1..8),
        ) {
            let blob = vec![3; len];
            let (mut lister, mut rest) = (PieceLister::default(), blob.as_slice());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                lister.update(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let found = lister.finish().unwrap();
            prop_assert_eq!(&found, &list(&blob));
            let decoded = PieceList::decode(&found.encode()).unwrap();
            prop_assert_eq!(decoded.digest(), found.digest());
            prop_assert_eq!(decoded, found);
        }

        #[test]
        fn what_is_decoded_is_encoded_to_the_same_bytes(
            header in prop::collection::vec(any::<u8>(), 0..16), rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = [MAGIC.as_slice(), &1_u32.to_le_bytes(), &(1_u32 << 20).to_le_bytes()].concat();
            bytes.extend(&header);
            bytes.extend(&rest);
            if let Ok(list) = PieceList::decode(&bytes) {
                prop_assert_eq!(list.encode(), bytes);
            }
        }
    }
}
