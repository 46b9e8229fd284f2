//! Where the pieces of a task lie that are of different sizes: a file of pairs of 64-bit numbers, little-endian, of where
//! each begins and ends. It stands beside the task's own.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{PieceCount, PieceLayout};

/// Bytes of one piece's place.
const PLACE: usize = 16;
/// Largest file.
const LARGEST: u64 = PLACE as u64 * PieceCount::MOST as u64;

fn file(meta: &Path) -> PathBuf {
    meta.with_file_name("places")
}

/// Writes them beside `meta`, durable on return.
pub(super) fn write(meta: &Path, layout: &PieceLayout) -> io::Result<()> {
    let places = layout.pieces().map(|piece| layout.range(piece));
    let bytes: Vec<u8> =
        places.flat_map(|place| [place.start, place.end]).flat_map(u64::to_le_bytes).collect();
    let mut file = File::create_new(file(meta))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// Reads what [`write`] wrote beside `meta` for a blob of `len` bytes.
pub(super) fn read(meta: &Path, len: u64) -> io::Result<PieceLayout> {
    let mut bytes = Vec::new();
    File::open(file(meta))?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    let (places, rest) = bytes.as_chunks::<PLACE>();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("half of 16 bytes"));
    let place = |place: &[u8; PLACE]| -> Range<u64> { number(&place[..8])..number(&place[8..]) };
    let places: Vec<_> = places.iter().map(place).collect();
    let layout = PieceLayout::at(len, &places).map_err(io::Error::other)?;
    if rest.is_empty() { Ok(layout) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "pieces are ranges")]
    fn places_are_read_as_they_were_written_and_hostile_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("meta.json");
        let layout = PieceLayout::at(500, &[0..7, 7..300, 400..500]).unwrap();
        write(&meta, &layout).unwrap();
        assert_eq!(read(&meta, 500).unwrap(), layout);
        assert!(read(&meta, 499).is_err(), "beyond the end");
        let bytes = std::fs::read(file(&meta)).unwrap();
        for hostile in [&bytes[..bytes.len() - 1], &[&bytes[16..32], &bytes[..16]].concat()] {
            std::fs::write(file(&meta), hostile).unwrap();
            assert!(read(&meta, 500).is_err());
        }
    }
}
