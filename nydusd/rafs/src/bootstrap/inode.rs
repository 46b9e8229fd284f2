//! One inode: attributes, flat content, link target.

use super::{Attributes, View};
use crate::layout::inode::{DataLayout, InodeRecord};
use crate::layout::{NID_UNIT, check, range};
use crate::{FileType, FormatError, Nid};

/// Longest link target that is read, in bytes.
const MAX_TARGET: u64 = 4096;

/// An inode and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub(super) nid: Nid,
    pub(super) offset: u64,
    pub(super) record: InodeRecord,
}

/// Content that stands in the bootstrap itself: whole blocks, and the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flat<'a> {
    pub(super) blocks: &'a [u8],
    pub(super) blocks_offset: u64,
    pub(super) tail: &'a [u8],
    pub(super) tail_offset: u64,
}

impl Inode {
    #[cold]
    pub(super) fn fault(&self, what: &'static str, problem: &'static str) -> FormatError {
        FormatError::Inode { what, nid: self.nid.0, problem }
    }
}

impl<'a> View<'a> {
    #[inline]
    pub(super) fn inode(self, nid: Nid) -> Result<Inode, FormatError> {
        // Saturated, the offset lies outside of any file.
        let offset = nid.0.saturating_mul(NID_UNIT).saturating_add(self.image.meta_offset);
        Ok(Inode { nid, offset, record: InodeRecord::parse(self.bytes, offset, self.image.epoch)? })
    }

    #[inline]
    pub(super) fn attributes(self, nid: Nid) -> Result<Attributes, FormatError> {
        let Inode { record, .. } = self.inode(nid)?;
        let is_device = matches!(record.file_type, FileType::CharDevice | FileType::BlockDevice);
        Ok(Attributes {
            nid,
            file_type: record.file_type,
            permissions: record.permissions,
            size: record.size,
            uid: record.uid,
            gid: record.gid,
            nlink: record.nlink,
            rdev: if is_device { record.u } else { 0 },
            mtime: record.mtime,
            mtime_nsec: record.mtime_nsec,
        })
    }

    /// Content of a directory or link.
    #[inline]
    pub(super) fn flat(self, inode: &Inode) -> Result<Flat<'a>, FormatError> {
        let bits = self.image.block_bits;
        let block = 1u64 << bits;
        let InodeRecord { size, u, .. } = inode.record;
        let blocks_offset = u64::from(u) << bits;
        match inode.record.layout {
            DataLayout::Plain => {
                let blocks = range(self.bytes, "content of an inode", blocks_offset, size)?;
                Ok(Flat { blocks, blocks_offset, tail: &[], tail_offset: 0 })
            }
            DataLayout::Inline => {
                let tail_len = size & (block - 1);
                let tail_offset = inode.offset.saturating_add(inode.record.len_with_xattrs());
                let fits = tail_len != 0 && (tail_offset & (block - 1)) + tail_len <= block;
                check(fits, "inline content's length", inode.offset, tail_len, "must end within its block")?;
                let blocks_len = size - tail_len;
                let blocks = match blocks_len {
                    0 => &[],
                    len => range(self.bytes, "content of an inode", blocks_offset, len)?,
                };
                let tail = range(self.bytes, "inline content of an inode", tail_offset, tail_len)?;
                Ok(Flat { blocks, blocks_offset, tail, tail_offset })
            }
            DataLayout::Chunked => Err(inode.fault("content", "is chunked, but this is no regular file")),
        }
    }

    pub(super) fn link_target(self, nid: Nid) -> Result<Vec<u8>, FormatError> {
        let inode = self.inode(nid)?;
        if inode.record.file_type != FileType::Symlink {
            return Err(inode.fault("link target", "is asked for, but it is no symbolic link"));
        }
        let size = inode.record.size;
        check(
            (1..=MAX_TARGET).contains(&size),
            "link target's length",
            inode.offset,
            size,
            "must be 1 to 4096",
        )?;
        let flat = self.flat(&inode)?;
        let target = [flat.blocks, flat.tail].concat();
        if target.contains(&0) {
            return Err(inode.fault("link target", "has a NUL byte"));
        }
        Ok(target)
    }
}
