//! File ranges to chunks.

use super::inode::Inode;
use super::{Extent, View};
use crate::layout::chunk_addr::{self, ChunkAddr, FORMAT_INDEXES};
use crate::layout::inode::DataLayout;
use crate::layout::{check, range, round_up};
use crate::{FileType, FormatError, Nid};

impl<'a> View<'a> {
    pub(super) fn extents(self, nid: Nid, offset: u64, len: u64) -> Result<Vec<Extent>, FormatError> {
        let inode = self.inode(nid)?;
        let end = offset.saturating_add(len).min(inode.record.size);
        if offset >= end {
            self.check_file(&inode)?;
            return Ok(Vec::new());
        }
        let bits = self.image.chunk_bits;
        let (first, last) = (offset >> bits, (end - 1) >> bits);
        let (indexes, at) = self.chunk_indexes(&inode, first, last - first + 1)?;
        let mut extents = Vec::with_capacity(indexes.len() / chunk_addr::LEN);
        let mut position = offset;
        for record in indexes.chunks_exact(chunk_addr::LEN) {
            let addr = self.chunk_addr(record, at)?;
            let within = position & u64::from(self.image.summary.chunk_size - 1);
            let len = (u64::from(self.image.summary.chunk_size) - within).min(end - position);
            let start = (u64::from(addr.block) << self.image.block_bits) + within;
            let image_end = self.image.blobs[usize::from(addr.blob.0)].uncompressed_size;
            check(
                start + len <= image_end,
                "chunk's block",
                at,
                addr.block.into(),
                "must lie within its blob",
            )?;
            let len = u32::try_from(len).expect("a chunk is at most 16 MiB");
            extents.push(Extent { blob: addr.blob, chunk: addr.chunk, offset: start, len });
            position += u64::from(len);
        }
        Ok(extents)
    }

    /// `count` chunk indexes of a file, from number `first` on, and where they stand.
    pub(super) fn chunk_indexes(
        self,
        inode: &Inode,
        first: u64,
        count: u64,
    ) -> Result<(&'a [u8], u64), FormatError> {
        self.check_file(inode)?;
        let table = inode.offset + round_up(inode.record.len_with_xattrs(), 8);
        let at = table + first * chunk_addr::LEN as u64;
        Ok((range(self.bytes, "chunk indexes", at, count * chunk_addr::LEN as u64)?, at))
    }

    /// Number of chunks of a file of `size` bytes.
    pub(super) fn chunk_count(self, size: u64) -> u64 {
        size.div_ceil(self.image.summary.chunk_size.into())
    }

    /// Reads an index that stands at or behind `at`, and checks it against the blob table.
    #[inline]
    pub(super) fn chunk_addr(self, record: &[u8], at: u64) -> Result<ChunkAddr, FormatError> {
        let addr = ChunkAddr::parse(record, at)?;
        let blob = self.image.blobs.get(usize::from(addr.blob.0));
        let count = blob.map_or(0, |blob| blob.chunk_count);
        check(blob.is_some(), "chunk's blob", at, addr.blob.0.into(), "must be in the blob table")?;
        check(addr.chunk.0 < count, "chunk's number", at, addr.chunk.0.into(), "must be in its blob")?;
        Ok(addr)
    }

    fn check_file(self, inode: &Inode) -> Result<(), FormatError> {
        if inode.record.file_type != FileType::File {
            return Err(inode.fault("type", "is not regular file"));
        }
        if inode.record.size == 0 {
            return Ok(());
        }
        if inode.record.layout != DataLayout::Chunked {
            return Err(inode.fault("content", "is not chunked"));
        }
        let format = inode.record.u;
        let known = format & !0x1F == FORMAT_INDEXES;
        check(known, "chunk format", inode.offset, format.into(), "must have 8-byte indexes")
    }
}
