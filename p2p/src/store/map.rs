//! The bits that say which pieces are good, on disk.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
};

use crate::{PieceBitmap, PieceCount, PieceIndex};

/// The file, and a copy of what it should hold, or of more: a bit that could not be cleared is set.
#[derive(Debug)]
pub(super) struct MapFile {
    pub(super) file: File,
    bits: Vec<u8>,
}

impl MapFile {
    /// A map without bits. All of it is on disk, so that setting a bit needs no room.
    pub(super) fn create(path: &Path, count: PieceCount) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let bits = vec![0; count.get().div_ceil(8) as usize];
        file.write_all_at(&bits, 0)?;
        file.sync_all()?;
        Ok(Self { file, bits })
    }

    /// Reads a map, and what it says.
    pub(super) fn open(path: &Path, count: PieceCount) -> io::Result<(Self, PieceBitmap)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = count.get().div_ceil(8) as usize;
        if file.metadata()?.len() != len as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bits = vec![0; len];
        file.read_exact_at(&mut bits, 0)?;
        let good = PieceBitmap::from_bytes(count, &bits).map_err(io::Error::other)?;
        Ok((Self { file, bits }, good))
    }

    /// Sets bits, durable on return. The pieces must be durable already.
    pub(super) fn set(&mut self, pieces: &[PieceIndex]) -> io::Result<()> {
        self.change(pieces, |byte, bit| *byte |= bit)
    }

    /// Clears a bit, durable on return.
    pub(super) fn clear(&mut self, piece: PieceIndex) -> io::Result<()> {
        let (at, bit) = (piece.slot() / 8, 1 << (piece.slot() % 8));
        if self.bits.get(at).is_none_or(|byte| byte & bit == 0) {
            return Ok(());
        }
        let cleared = self.change(&[piece], |byte, bit| *byte &= !bit);
        if cleared.is_err() {
            self.bits[at] |= bit;
        }
        cleared
    }

    fn change(&mut self, pieces: &[PieceIndex], change: impl Fn(&mut u8, u8)) -> io::Result<()> {
        let mut changed: Option<Range<usize>> = None;
        for piece in pieces {
            let at = piece.slot() / 8;
            let Some(byte) = self.bits.get_mut(at) else { continue };
            change(byte, 1 << (piece.slot() % 8));
            changed = Some(changed.map_or(at..at + 1, |c| c.start.min(at)..c.end.max(at + 1)));
        }
        let Some(changed) = changed else { return Ok(()) };
        self.file.write_all_at(&self.bits[changed.clone()], changed.start as u64)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_as_they_were_left() {
        let dir = tempfile::tempdir().unwrap();
        let (path, count) = (dir.path().join("map"), PieceCount::new(100).unwrap());
        let piece = |number| count.piece(number).unwrap();
        let mut map = MapFile::create(&path, count).unwrap();
        map.set(&[3, 50, 99].map(piece)).unwrap();
        map.clear(piece(50)).unwrap();
        map.clear(piece(51)).unwrap();
        let (_, good) = MapFile::open(&path, count).unwrap();
        assert!(good.iter().eq([3, 99].map(piece)));
    }

    #[test]
    fn a_bit_that_was_not_cleared_is_cleared_when_that_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, count) = (dir.path().join("map"), PieceCount::new(100).unwrap());
        let piece = count.piece(3).unwrap();
        let mut map = MapFile::create(&path, count).unwrap();
        map.set(&[piece]).unwrap();
        let writable = std::mem::replace(&mut map.file, File::open(&path).unwrap());
        assert!(map.clear(piece).is_err());
        map.file = writable;
        map.clear(piece).unwrap();
        assert!(MapFile::open(&path, count).unwrap().1.iter().next().is_none());
    }

    #[test]
    fn a_map_of_another_length_or_with_foreign_bits_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, count) = (dir.path().join("map"), PieceCount::new(9).unwrap());
        for bytes in [&[0_u8][..], &[0, 0, 0], &[0, 2]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(MapFile::open(&path, count).is_err(), "{bytes:?}");
        }
    }
}
