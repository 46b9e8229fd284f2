//! Places: inodes one after another, each with its attributes and tail behind it; whole blocks of content after them.

use super::scan::{Content, Found, Scan};
use crate::layout::inode::{DataLayout, EXTENDED_LEN};
use crate::layout::{NID_UNIT, chunk_addr, limit, round_up};
use crate::{BLOCK_SIZE, FormatError, Kind};

/// Where an inode and its content go, in bytes from the bootstrap's beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) layout: DataLayout,
    /// Where whole blocks of its content begin; meaningless without any.
    pub(super) blocks: u64,
}

/// Places in the order of the scan.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) of: Vec<Place>,
    /// Where the last block ends: a multiple of the block size.
    pub(super) end: u64,
}

impl Places {
    /// Places everything from `start` on, where the root inode goes.
    pub(super) fn new(scan: &Scan<'_>, start: u64) -> Result<Self, FormatError> {
        let mut at = start;
        let mut of = Vec::with_capacity(scan.found.len());
        for found in &scan.found {
            let (layout, len) = shape(found);
            at = begin(at, len, layout);
            of.push(Place { offset: at, layout, blocks: 0 });
            at = round_up(at + len, NID_UNIT);
        }
        let mut blocks = round_up(at, BLOCK_SIZE);
        for (place, found) in of.iter_mut().zip(&scan.found) {
            place.blocks = blocks;
            blocks += whole_blocks(place.layout, flat_size(found));
        }
        limit("inode number", at / NID_UNIT, u32::MAX.into())?;
        limit("number of metadata blocks", blocks / BLOCK_SIZE, u32::MAX.into())?;
        Ok(Self { of, end: blocks })
    }
}

/// Length of content that stands in the bootstrap itself.
pub(super) fn flat_size(found: &Found<'_>) -> u64 {
    match (&found.content, &found.inode.kind) {
        (Content::Entries { size, .. }, _) => *size,
        (_, Kind::Symlink(target)) => target.len() as u64,
        _ => 0,
    }
}

/// Layout of an inode, and its length with all that follows it directly.
fn shape(found: &Found<'_>) -> (DataLayout, u64) {
    let own = (EXTENDED_LEN + found.xattrs.len()) as u64;
    if let Kind::File { chunks, .. } = &found.inode.kind {
        return (DataLayout::Chunked, round_up(own, 8) + (chunks.len() * chunk_addr::LEN) as u64);
    }
    let tail = flat_size(found) % BLOCK_SIZE;
    if tail > 0 && own + tail <= BLOCK_SIZE {
        (DataLayout::Inline, own + tail)
    } else {
        (DataLayout::Plain, own)
    }
}

/// The first place from `at` on: an inline tail may not cross a block's end, nor may an inode.
fn begin(at: u64, len: u64, layout: DataLayout) -> u64 {
    let together = if layout == DataLayout::Inline { len } else { EXTENDED_LEN as u64 };
    if at % BLOCK_SIZE + together <= BLOCK_SIZE { at } else { round_up(at, BLOCK_SIZE) }
}

fn whole_blocks(layout: DataLayout, size: u64) -> u64 {
    match layout {
        DataLayout::Plain => round_up(size, BLOCK_SIZE),
        DataLayout::Inline => size - size % BLOCK_SIZE,
        DataLayout::Chunked => 0,
    }
}
