//! Which chunks are in a piece together.

use std::ops::Range;

use super::ListedChunk;
use crate::PieceLayout;

/// Bytes of a piece, unless one chunk takes more.
const USUAL: u64 = PieceLayout::DEFAULT_SIZE as u64;
/// Bytes of the chunks of a piece for a reader, unless one chunk has more: so much is unpacked to check a piece.
const PLAIN: u64 = 32 << 20;
/// Chunks may be aligned to blocks of so many bytes. More between two chunks is not worth fetching: chunks that this
/// image does not know of.
const BLOCK: u64 = 4096;

/// Where pieces lie: each as many chunks as there is room for.
pub(super) fn places(chunks: &[ListedChunk]) -> Vec<Range<u64>> {
    let mut places: Vec<Range<u64>> = Vec::new();
    let mut plain = 0;
    for chunk in chunks {
        let (place, more) = (chunk.place(), u64::from(chunk.plain));
        let open = places.last_mut().filter(|open| {
            let is_near = place.start - open.end < BLOCK;
            is_near && place.end - open.start <= USUAL && plain + more <= PLAIN
        });
        match open {
            Some(open) => {
                open.end = place.end;
                plain += more;
            }
            None => {
                places.push(place);
                plain = more;
            }
        }
    }
    places
}
