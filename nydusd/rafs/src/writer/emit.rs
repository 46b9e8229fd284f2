//! Bytes of everything that has its place.

use super::image::{BlobTable, Head, chunk_records, flags, prefetch, slots};
use super::place::{Place, Places, flat_size};
use super::scan::{Content, Found, Scan, with_dots};
use crate::layout::chunk_addr::FORMAT_INDEXES;
use crate::layout::dirent::{self, Dirent};
use crate::layout::inode::{DataLayout, EXTENDED_LEN, InodeRecord};
use crate::layout::superblock::{SLOTS_OFFSET, SUPERBLOCK_OFFSET, Superblock, Table};
use crate::layout::{NID_UNIT, blob_entry, chunk_record, fit, in_memory, put, round_up, xattr};
use crate::{BLOCK_SIZE, ChunkRef, FileType, FormatError, InodeId, Kind, Nid, Tree};

/// What has been found and placed.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) tree: &'a Tree,
    pub(super) scan: &'a Scan<'a>,
    pub(super) blobs: &'a BlobTable,
    pub(super) head: Head,
    pub(super) places: &'a Places,
}

pub(super) fn emit(parts: &Parts<'_>) -> Result<Vec<u8>, FormatError> {
    let records = chunk_records(parts.tree, parts.scan, parts.blobs);
    let records_len = (records.len() * chunk_record::LEN) as u64;
    let chunk_table = Table { offset: parts.places.end, size: records_len };
    let size = round_up(chunk_table.offset + records_len, BLOCK_SIZE);
    let mut to = vec![0; in_memory(size)];
    put(&mut to, in_memory(SUPERBLOCK_OFFSET), &parts.superblock(chunk_table).encode());
    put(&mut to, in_memory(SLOTS_OFFSET), &slots(parts.tree, parts.blobs, size)?);
    parts.blob_table(&mut to);
    parts.prefetch_table(&mut to)?;
    for (number, (found, at)) in parts.scan.found.iter().zip(&parts.places.of).enumerate() {
        parts.inode(&mut to, number, found, at)?;
    }
    for (number, record) in records.iter().enumerate() {
        put(&mut to, in_memory(chunk_table.offset) + number * chunk_record::LEN, &record.encode());
    }
    Ok(to)
}

impl Parts<'_> {
    fn superblock(&self, chunk_table: Table) -> Superblock {
        let Self { tree, scan, blobs, head, .. } = *self;
        let uncompressed: u64 = blobs.kept.iter().map(|old| tree.blobs[*old].uncompressed_size).sum();
        let prefetch_size = 4 * head.prefetch as u64;
        let metadata = head.metadata();
        Superblock {
            block_bits: 12,
            root_nid: u16::try_from((head.root_offset() - metadata) / NID_UNIT).expect("one block"),
            inodes: scan.names,
            epoch: 0,
            epoch_nsec: 0,
            // Only shown by statfs; images beyond its width exist.
            blocks: u32::try_from(uncompressed / BLOCK_SIZE).unwrap_or(u32::MAX),
            meta_block: u32::try_from(metadata / BLOCK_SIZE).expect("254 blobs and a prefetch table"),
            devices: u16::try_from(blobs.kept.len()).expect("at most 254 blobs"),
            flags: flags(tree, scan, blobs),
            chunk_size: tree.chunk_size,
            blob_table: Table { offset: head.blob_table(), size: (head.blobs * blob_entry::LEN) as u64 },
            chunk_table,
            prefetch_table: Table {
                offset: if prefetch_size == 0 { 0 } else { head.prefetch_table() },
                size: prefetch_size,
            },
        }
    }

    fn blob_table(&self, to: &mut [u8]) {
        for (new, old) in (0u32..).zip(&self.blobs.kept) {
            let entry = blob_entry::encode(&self.tree.blobs[*old], new, self.tree.chunk_size);
            put(to, in_memory(self.head.blob_table()) + new as usize * blob_entry::LEN, &entry);
        }
    }

    fn prefetch_table(&self, to: &mut [u8]) -> Result<(), FormatError> {
        let numbers = prefetch(self.tree, self.scan);
        for (entry, number) in numbers.into_iter().take(self.head.prefetch).enumerate() {
            let nid: u32 = fit("nid to fetch ahead", self.nid(number).0, u32::MAX.into())?;
            put(to, in_memory(self.head.prefetch_table()) + 4 * entry, &nid.to_le_bytes());
        }
        Ok(())
    }

    fn nid(&self, number: usize) -> Nid {
        Nid((self.places.of[number].offset - self.head.metadata()) / NID_UNIT)
    }

    fn child(&self, id: InodeId) -> Nid {
        self.nid(self.scan.number(id).expect("every child was found by the scan"))
    }

    fn inode(&self, to: &mut [u8], number: usize, found: &Found<'_>, at: &Place) -> Result<(), FormatError> {
        let meta = &found.inode.meta;
        let record = InodeRecord {
            layout: at.layout,
            xattr_count: xattr::count(found.xattrs.len())?,
            file_type: found.inode.kind.file_type(),
            permissions: meta.permissions,
            size: match &found.inode.kind {
                Kind::File { size, .. } => *size,
                _ => flat_size(found),
            },
            u: self.first_word(found, at)?,
            ino: fit("inode number", number as u64 + 1, u32::MAX.into())?,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            mtime_nsec: meta.mtime_nsec,
            nlink: found.nlink,
            len: EXTENDED_LEN as u64,
        };
        put(to, in_memory(at.offset), &record.encode());
        put(to, in_memory(at.offset) + EXTENDED_LEN, &found.xattrs);
        let behind = at.offset + record.len_with_xattrs();
        match (&found.content, &found.inode.kind) {
            (Content::Entries { per_block, .. }, Kind::Directory(_)) => {
                put_flat(to, at, behind, &self.entries(number, found, per_block));
            }
            (_, Kind::Symlink(target)) => put_flat(to, at, behind, target),
            (_, Kind::File { chunks, .. }) => {
                let mut next = in_memory(round_up(behind, 8));
                for chunk in chunks {
                    let record = self.blobs.addr(self.tree, *chunk)?.encode();
                    put(to, next, &record);
                    next += record.len();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `i_u`: device number, chunk format or first block.
    fn first_word(&self, found: &Found<'_>, at: &Place) -> Result<u32, FormatError> {
        match &found.inode.kind {
            Kind::CharDevice(rdev) | Kind::BlockDevice(rdev) => Ok(*rdev),
            Kind::File { size, chunks } => Ok(FORMAT_INDEXES | self.chunk_bits(*size, chunks)),
            _ => fit("metadata block", at.blocks / BLOCK_SIZE, u32::MAX.into()),
        }
    }

    /// Binary logarithm of the chunk size in blocks. A file whose chunks follow one another in one blob is a single
    /// chunk to the kernel, which then reads it in larger pieces.
    fn chunk_bits(&self, size: u64, chunks: &[ChunkRef]) -> u32 {
        let addr = |at: &ChunkRef| {
            let addr = self.blobs.addr(self.tree, *at).ok()?;
            Some((addr.blob, u64::from(addr.block) * BLOCK_SIZE))
        };
        let chunk_size = u64::from(self.tree.chunk_size);
        let one_run = chunks.windows(2).all(|pair| match (addr(&pair[0]), addr(&pair[1])) {
            (Some((blob, place)), Some((next_blob, next))) => blob == next_blob && next == place + chunk_size,
            _ => false,
        });
        let unit = if one_run && chunks.len() > 1 { size.next_power_of_two() } else { chunk_size };
        unit.trailing_zeros() - BLOCK_SIZE.trailing_zeros()
    }

    fn entries(&self, number: usize, found: &Found<'_>, per_block: &[usize]) -> Vec<u8> {
        let Kind::Directory(children) = &found.inode.kind else { return Vec::new() };
        let names = with_dots(children.keys().map(Vec::as_slice));
        let mut entries = names.into_iter().map(|name| {
            let (nid, file_type) = match name {
                b"." => (self.nid(number), FileType::Directory),
                b".." => (self.nid(found.parent), FileType::Directory),
                _ => {
                    let id = children[name];
                    (self.child(id), self.tree.inode(id).kind.file_type())
                }
            };
            Dirent { nid, file_type, name }
        });
        let mut to = Vec::new();
        for count in per_block {
            to.resize(to.len().next_multiple_of(in_memory(BLOCK_SIZE)), 0);
            let block: Vec<_> = entries.by_ref().take(*count).collect();
            dirent::encode_block(&mut to, &block);
        }
        to
    }
}

/// Puts content into its blocks, and what the layout keeps inline behind the inode.
fn put_flat(to: &mut [u8], at: &Place, behind: u64, content: &[u8]) {
    let whole = match at.layout {
        DataLayout::Inline => content.len() - content.len() % in_memory(BLOCK_SIZE),
        DataLayout::Plain | DataLayout::Chunked => content.len(),
    };
    let (blocks, tail) = content.split_at(whole);
    put(to, in_memory(at.blocks), blocks);
    put(to, in_memory(behind), tail);
}
