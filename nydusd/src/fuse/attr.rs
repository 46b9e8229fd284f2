//! Attributes in FUSE's form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, INodeNo, ReplyXattr};
use rafs::{BlobIndex, FileType, bootstrap::Attributes};

use crate::{
    fs::FsError,
    kernel::probe_block,
    mounts::{BLOBS_INO, Image, PROBE_INO, ROOT_INO},
};

/// Attributes of an image's inode.
pub(super) fn of(image: &Image, attributes: &Attributes) -> Result<FileAttr, FsError> {
    let time = time(attributes.mtime, attributes.mtime_nsec);
    Ok(FileAttr {
        ino: INodeNo(image.number().ino(attributes.nid)?),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: UNIX_EPOCH,
        kind: file_type(attributes.file_type),
        perm: attributes.permissions,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: 4096,
        flags: 0,
    })
}

/// Attributes of the directory of all images.
pub(super) fn root(time: SystemTime) -> FileAttr {
    FileAttr {
        ino: INodeNo(ROOT_INO),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes of the directory of blobs: for the kernel's own use, and root's.
pub(super) fn blobs(time: SystemTime) -> FileAttr {
    FileAttr { ino: INodeNo(BLOBS_INO), perm: 0o700, ..root(time) }
}

/// Attributes of a blob.
pub(super) fn blob(image: &Image, blob: BlobIndex, time: SystemTime) -> FileAttr {
    bytes(image.number().blob_ino(blob), image.rafs().blob_len(blob), time)
}

/// Attributes of the probe's blob.
pub(super) fn probe(time: SystemTime) -> FileAttr {
    bytes(PROBE_INO, probe_block().len() as u64, time)
}

fn bytes(ino: u64, size: u64, time: SystemTime) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        kind: fuser::FileType::RegularFile,
        perm: 0o400,
        nlink: 1,
        ..root(time)
    }
}

/// What stands for a name that is not there.
pub(super) fn nothing() -> FileAttr {
    FileAttr { ino: INodeNo(0), ..root(UNIX_EPOCH) }
}

pub(super) const fn file_type(file_type: FileType) -> fuser::FileType {
    match file_type {
        FileType::File => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::Symlink => fuser::FileType::Symlink,
    }
}

fn time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    whole.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}

/// An attribute's value, or its length where that was asked for.
pub(super) enum Value {
    Bytes(Vec<u8>),
    Length(u32),
}

/// Fits a value into a buffer of `size` bytes; 0 asks for the length.
pub(super) fn fit(value: &[u8], size: u32) -> Result<Value, FsError> {
    let len = u32::try_from(value.len()).map_err(|_| FsError::Range)?;
    match size {
        0 => Ok(Value::Length(len)),
        _ if len > size => Err(FsError::Range),
        _ => Ok(Value::Bytes(value.to_vec())),
    }
}

pub(super) fn reply_xattr(outcome: Result<Value, Errno>, reply: ReplyXattr) {
    match outcome {
        Ok(Value::Bytes(bytes)) => reply.data(&bytes),
        Ok(Value::Length(len)) => reply.size(len),
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_their_nanoseconds_forward() {
        assert_eq!(time(-2, 800_000_000), UNIX_EPOCH - Duration::new(1, 200_000_000));
        assert_eq!(time(5, 1), UNIX_EPOCH + Duration::new(5, 1));
        assert_eq!(time(i64::MIN, 0), UNIX_EPOCH - Duration::from_secs(1 << 63));
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_and_its_length_told() {
        assert!(matches!(fit(b"abc", 0), Ok(Value::Length(3))));
        assert!(matches!(fit(b"abc", 2), Err(FsError::Range)));
        assert!(matches!(fit(b"abc", 3), Ok(Value::Bytes(bytes)) if bytes == b"abc"));
    }
}
