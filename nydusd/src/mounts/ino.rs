//! Inode numbers: which image, and what in it.

use rafs::{BlobIndex, Nid};

use crate::fs::FsError;

/// FUSE's number of the root directory.
pub const ROOT_INO: u64 = 1;
/// The directory of blobs. Numbers below the first image's are free.
pub const BLOBS_INO: u64 = 2;
/// The blob of the image that shows whether the kernel can read images by itself.
pub const PROBE_INO: u64 = 3;
/// Its name in the directory of blobs.
pub(crate) const PROBE_NAME: &str = "probe";
/// The directory's name in the root. It is not listed: only the kernel's EROFS driver reads there.
pub const BLOBS_NAME: &str = ".blobs";
/// Bits of an inode number that hold what is in the image.
const INNER_BITS: u32 = 40;
/// Set for a blob, whose index stands below it. What is left to the image's own numbers, of which the smallest inode
/// takes one for 32 bytes, covers a bootstrap of 16 TiB.
const BLOB_BIT: u64 = 1 << (INNER_BITS - 1);
/// Numbers of mounts that fit above them.
pub(super) const MAX_MOUNTS: u32 = 1 << (u64::BITS - INNER_BITS);

/// Number of a mount, never used twice in a daemon's life: an inode number that the kernel still remembers from an image
/// that is gone can never mean another image's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountNumber(pub(super) u32);

/// What an inode number stands for within its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner {
    Inode(Nid),
    Blob(BlobIndex),
}

impl MountNumber {
    /// The inode number that the kernel sees for an image's inode.
    ///
    /// # Errors
    /// [`FsError::WrongType`] for a number that no bootstrap can have.
    pub fn ino(self, nid: Nid) -> Result<u64, FsError> {
        if nid.0 >= BLOB_BIT {
            return Err(FsError::WrongType);
        }
        Ok(u64::from(self.0) << INNER_BITS | nid.0)
    }

    /// The inode number of an image's blob.
    #[must_use]
    pub fn blob_ino(self, blob: BlobIndex) -> u64 {
        u64::from(self.0) << INNER_BITS | BLOB_BIT | u64::from(blob.0)
    }

    /// Name of an image's blob in the directory of blobs.
    #[must_use]
    pub fn blob_name(self, blob: BlobIndex) -> String {
        format!("{}.{}", self.0, blob.0)
    }

    /// What [`Self::blob_name`] has made.
    pub(super) fn parse_blob_name(name: &str) -> Option<(Self, BlobIndex)> {
        let (number, index) = name.split_once('.')?;
        let found = (Self(number.parse().ok()?), BlobIndex(index.parse().ok()?));
        // One name each: not also `01.+2`.
        (found.0.blob_name(found.1) == name).then_some(found)
    }

    /// Its place in the listing of the root.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Takes an inode number apart; `None` for one that is no image's.
pub(super) fn split(ino: u64) -> Option<(MountNumber, Inner)> {
    let number = u32::try_from(ino >> INNER_BITS).ok().filter(|number| *number != 0)?;
    let inner = ino & ((1 << INNER_BITS) - 1);
    let inner = match inner & BLOB_BIT {
        0 => Inner::Inode(Nid(inner)),
        _ => Inner::Blob(BlobIndex(u8::try_from(inner & !BLOB_BIT).ok()?)),
    };
    Some((MountNumber(number), inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_number_that_would_reach_into_what_stands_above_is_refused() {
        assert_eq!(MountNumber(3).ino(Nid(7)).unwrap(), (3 << 40) | 7);
        assert!(MountNumber(3).ino(Nid(1 << 39)).is_err());
        assert!(MountNumber(3).ino(Nid(1 << 40)).is_err());
    }

    #[test]
    fn numbers_are_taken_apart_as_they_were_made() {
        let number = MountNumber(3);
        assert_eq!(split(number.ino(Nid(7)).unwrap()), Some((number, Inner::Inode(Nid(7)))));
        let blob = BlobIndex(254);
        assert_eq!(split(number.blob_ino(blob)), Some((number, Inner::Blob(blob))));
        for ino in [0, ROOT_INO, BLOBS_INO, PROBE_INO, (1 << 40) - 1, number.blob_ino(blob) + 2] {
            assert_eq!(split(ino), None, "{ino}");
        }
    }

    #[test]
    fn a_blob_has_one_name() {
        let (number, blob) = (MountNumber(12), BlobIndex(3));
        assert_eq!(MountNumber::parse_blob_name(&number.blob_name(blob)), Some((number, blob)));
        for name in ["12", "12.", ".3", "012.3", "12.+3", "12.300", "12.3.4"] {
            assert_eq!(MountNumber::parse_blob_name(name), None, "{name}");
        }
    }
}
