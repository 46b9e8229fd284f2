//! Inodes: compact ones of 32 bytes and extended ones of 64. Only extended ones are written.

use super::{check, le16, le32, le64, put, record, xattr};
use crate::{FileType, FormatError};

/// Length of an extended inode.
pub(crate) const EXTENDED_LEN: usize = 64;
const COMPACT_LEN: usize = 32;

/// How an inode's content is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataLayout {
    /// Whole blocks.
    Plain,
    /// Whole blocks, and the rest behind the inode.
    Inline,
    /// Chunk indexes behind the inode.
    Chunked,
}

/// One inode as it stands on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InodeRecord {
    pub(crate) layout: DataLayout,
    pub(crate) xattr_count: u16,
    pub(crate) file_type: FileType,
    pub(crate) permissions: u16,
    pub(crate) size: u64,
    /// First block, chunk format or device number, by layout and type.
    pub(crate) u: u32,
    pub(crate) ino: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) mtime_nsec: u32,
    pub(crate) nlink: u32,
    /// Length of the record itself.
    pub(crate) len: u64,
}

/// Time that compact inodes count from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch {
    pub(crate) seconds: i64,
    pub(crate) nsec: u32,
}

impl InodeRecord {
    /// Reads the inode at `offset`.
    #[inline]
    pub(crate) fn parse(bytes: &[u8], offset: u64, epoch: Epoch) -> Result<Self, FormatError> {
        let compact: &[u8; COMPACT_LEN] = record(bytes, "inode", offset)?;
        let format = le16(compact, 0);
        let layout = match format >> 1 {
            0 => DataLayout::Plain,
            2 => DataLayout::Inline,
            4 => DataLayout::Chunked,
            _ => return Err(FormatError::Unsupported { what: "inode format", bits: format.into() }),
        };
        let mode = le16(compact, 4);
        let file_type = file_type(mode).ok_or_else(|| FormatError::Field {
            what: "inode mode",
            offset,
            found: mode.into(),
            expected: "must name a known file type",
        })?;
        let common = Self {
            layout,
            xattr_count: le16(compact, 2),
            file_type,
            permissions: mode & 0o7777,
            size: le32(compact, 8).into(),
            u: le32(compact, 16),
            ino: le32(compact, 20),
            uid: le16(compact, 24).into(),
            gid: le16(compact, 26).into(),
            mtime: epoch.seconds.saturating_add(le32(compact, 12).into()),
            mtime_nsec: epoch.nsec,
            nlink: le16(compact, 6).into(),
            len: COMPACT_LEN as u64,
        };
        if format & 1 == 0 {
            return Ok(common);
        }
        let extended: &[u8; EXTENDED_LEN] = record(bytes, "extended inode", offset)?;
        let (size, nsec) = (le64(extended, 8), le32(extended, 40));
        check(size <= i64::MAX.cast_unsigned(), "inode size", offset, size, "must be below 2^63")?;
        check(nsec < 1_000_000_000, "inode's nanoseconds", offset, nsec.into(), "must be below 10^9")?;
        Ok(Self {
            size,
            uid: le32(extended, 24),
            gid: le32(extended, 28),
            mtime: le64(extended, 32).cast_signed(),
            mtime_nsec: nsec,
            nlink: le32(extended, 44),
            len: EXTENDED_LEN as u64,
            ..common
        })
    }

    /// Length of the inode and its extended attributes.
    #[inline]
    pub(crate) const fn len_with_xattrs(&self) -> u64 {
        self.len + xattr::area_len(self.xattr_count)
    }

    /// The bytes of an extended inode.
    pub(crate) fn encode(&self) -> [u8; EXTENDED_LEN] {
        let layout: u16 = match self.layout {
            DataLayout::Plain => 0,
            DataLayout::Inline => 2,
            DataLayout::Chunked => 4,
        };
        let mode = type_bits(self.file_type) | self.permissions & 0o7777;
        let mut to = [0; EXTENDED_LEN];
        put(&mut to, 0, &(layout << 1 | 1).to_le_bytes());
        put(&mut to, 2, &self.xattr_count.to_le_bytes());
        put(&mut to, 4, &mode.to_le_bytes());
        put(&mut to, 8, &self.size.to_le_bytes());
        put(&mut to, 16, &self.u.to_le_bytes());
        put(&mut to, 20, &self.ino.to_le_bytes());
        put(&mut to, 24, &self.uid.to_le_bytes());
        put(&mut to, 28, &self.gid.to_le_bytes());
        put(&mut to, 32, &self.mtime.to_le_bytes());
        put(&mut to, 40, &self.mtime_nsec.to_le_bytes());
        put(&mut to, 44, &self.nlink.to_le_bytes());
        to
    }
}

const fn file_type(mode: u16) -> Option<FileType> {
    Some(match mode & 0o170_000 {
        0o010_000 => FileType::Fifo,
        0o020_000 => FileType::CharDevice,
        0o040_000 => FileType::Directory,
        0o060_000 => FileType::BlockDevice,
        0o100_000 => FileType::File,
        0o120_000 => FileType::Symlink,
        0o140_000 => FileType::Socket,
        _ => return None,
    })
}

const fn type_bits(file_type: FileType) -> u16 {
    match file_type {
        FileType::Fifo => 0o010_000,
        FileType::CharDevice => 0o020_000,
        FileType::Directory => 0o040_000,
        FileType::BlockDevice => 0o060_000,
        FileType::File => 0o100_000,
        FileType::Symlink => 0o120_000,
        FileType::Socket => 0o140_000,
    }
}
