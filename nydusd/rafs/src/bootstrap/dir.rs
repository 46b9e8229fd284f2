//! Directories: binary search by name, and reading on from a cookie.

use std::cmp::Ordering;

use super::inode::{Flat, Inode};
use super::{DirEntry, View};
use crate::layout::dirent::DirBlock;
use crate::{FileType, FormatError, Nid};

/// Cookies are the block number above, the entry's number in the block below this many bits.
const INDEX_BITS: u32 = 12;

/// A directory's content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory<'a> {
    flat: Flat<'a>,
    block_bits: u8,
    blocks: u64,
}

impl<'a> View<'a> {
    /// The directory `nid`.
    #[inline]
    pub(super) fn directory(self, nid: Nid) -> Result<Directory<'a>, FormatError> {
        let inode = self.inode(nid)?;
        self.directory_of(&inode)
    }

    #[inline]
    pub(super) fn directory_of(self, inode: &Inode) -> Result<Directory<'a>, FormatError> {
        if inode.record.file_type != FileType::Directory {
            return Err(inode.fault("type", "is not directory"));
        }
        let block_bits = self.image.block_bits;
        let blocks = inode.record.size.div_ceil(1 << block_bits);
        Ok(Directory { flat: self.flat(inode)?, block_bits, blocks })
    }

    /// All entries of the directory `inode` but its own and its parent's. One that is out of order is an error: lookups
    /// would not find it.
    pub(super) fn children_of(
        self,
        inode: &Inode,
    ) -> Result<impl Iterator<Item = Result<DirEntry<'a>, FormatError>>, FormatError> {
        let mut last: Option<&[u8]> = None;
        let ordered = move |entry: Result<DirEntry<'a>, FormatError>| {
            let entry = entry?;
            if last.replace(entry.name).is_some_and(|last| last >= entry.name) {
                return Err(inode.fault("directory", "is not sorted by name"));
            }
            Ok(entry)
        };
        let all = self.directory_of(inode)?.entries(0).map(ordered);
        Ok(all.filter(|entry| !entry.as_ref().is_ok_and(DirEntry::is_dot)))
    }
}

impl<'a> Directory<'a> {
    /// Block `number`, below [`Self::blocks`].
    #[inline]
    fn block(&self, number: u64) -> Result<DirBlock<'a>, FormatError> {
        let size = 1usize << self.block_bits;
        let start = usize::try_from(number << self.block_bits).expect("blocks lie within the bootstrap");
        match self.flat.blocks.get(start..) {
            Some(rest) if !rest.is_empty() => {
                let offset = self.flat.blocks_offset + start as u64;
                DirBlock::parse(&rest[..size.min(rest.len())], offset)
            }
            _ => DirBlock::parse(self.flat.tail, self.flat.tail_offset),
        }
    }

    pub(super) fn lookup(&self, name: &[u8]) -> Result<Option<(Nid, FileType)>, FormatError> {
        // The last block whose first name is not above `name`.
        let (mut low, mut high) = (0, self.blocks);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.block(middle)?;
            match block.name(0)?.cmp(name) {
                Ordering::Greater => high = middle,
                Ordering::Equal | Ordering::Less => {
                    found = Some(block);
                    low = middle + 1;
                }
            }
        }
        found.map_or(Ok(None), |block| search(&block, name))
    }

    pub(super) fn entries(self, cookie: u64) -> Entries<'a> {
        let index = usize::try_from(cookie & ((1 << INDEX_BITS) - 1)).expect("12 bits fit");
        Entries { directory: self, number: cookie >> INDEX_BITS, index, block: None }
    }
}

fn search(block: &DirBlock<'_>, name: &[u8]) -> Result<Option<(Nid, FileType)>, FormatError> {
    let (mut low, mut high) = (0, block.count());
    while low < high {
        let middle = low + (high - low) / 2;
        match block.name(middle)?.cmp(name) {
            Ordering::Greater => high = middle,
            Ordering::Less => low = middle + 1,
            Ordering::Equal => {
                let entry = block.entry(middle)?;
                return Ok(Some((entry.nid, entry.file_type)));
            }
        }
    }
    Ok(None)
}

/// Entries from a place on. Ends behind the first broken one.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    directory: Directory<'a>,
    number: u64,
    index: usize,
    block: Option<DirBlock<'a>>,
}

impl<'a> Entries<'a> {
    fn take(&mut self) -> Result<Option<DirEntry<'a>>, FormatError> {
        loop {
            if self.number >= self.directory.blocks {
                return Ok(None);
            }
            let block = match self.block {
                Some(block) => block,
                None => *self.block.insert(self.directory.block(self.number)?),
            };
            if self.index < block.count() {
                let entry = block.entry(self.index)?;
                self.index += 1;
                let next_cookie = self.number << INDEX_BITS | self.index as u64;
                let (nid, file_type, name) = (entry.nid, entry.file_type, entry.name);
                return Ok(Some(DirEntry { nid, file_type, name, next_cookie }));
            }
            (self.number, self.index, self.block) = (self.number + 1, 0, None);
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<DirEntry<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let got = self.take();
        if got.is_err() {
            self.number = self.directory.blocks;
        }
        got.transpose()
    }
}
