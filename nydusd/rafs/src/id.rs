//! Identifiers of the format. Each is made valid once, here.

use std::fmt;

use crate::FormatError;

/// Number of an inode: its place in the metadata area, in units of 32 bytes. Also the inode number users see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(pub u64);

/// Place of a blob in the bootstrap's blob table, 0 to 253.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobIndex(pub u8);

/// Number of a chunk within its blob, below 2^24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkIndex(pub u32);

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlobIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of a blob in its backend: the hex SHA-256 of the blob file, or another name of at most 64 bytes.
///
/// It is used as a file name, so only letters, digits, `-`, `_` and inner dots are let through.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(Box<str>);

impl BlobId {
    /// Longest id in bytes: the width of its field in the blob table.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`FormatError::BlobId`] for an empty or over-long id, or one that could leave a directory.
    pub fn new(id: &str) -> Result<Self, FormatError> {
        let fits = !id.is_empty() && id.len() <= Self::MAX_LEN && !id.starts_with('.');
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if fits && plain { Ok(Self(id.into())) } else { Err(FormatError::BlobId { id: id.into() }) }
    }

    /// The id of a blob whose own hash is not known yet: 64 times `x`, written by inlined builds.
    #[must_use]
    pub fn unknown() -> Self {
        Self("x".repeat(Self::MAX_LEN).into())
    }

    /// The id from the SHA-256 of a blob file.
    #[must_use]
    pub fn from_sha256(sha256: &[u8; 32]) -> Self {
        Self(hex::encode(sha256).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 characters, for messages.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_leave_its_directory_is_refused() {
        for id in ["", ".", "..", "a/b", "../x", "a\0", &"a".repeat(65)] {
            assert!(BlobId::new(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_hash_and_a_plain_name_are_ids() {
        assert_eq!(BlobId::from_sha256(&[0xab; 32]).as_str(), "ab".repeat(32));
        assert_eq!(BlobId::new("layer-1.tar").unwrap().short(), "layer-1.tar");
    }
}
