//! What can be wrong with bytes that claim to be RAFS v6.

/// A fault of the format: what, where, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before a record does.
    #[error("{what} at {offset} needs {len} bytes, the file has {size}")]
    Truncated {
        /// Which record.
        what: &'static str,
        /// Where it begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
        /// Size of the whole, in bytes.
        size: u64,
    },
    /// A field has a value that the format does not allow.
    #[error("{what} at {offset} is {found:#x}, {expected}")]
    Field {
        /// Which field.
        what: &'static str,
        /// Where its record begins, in bytes.
        offset: u64,
        /// The value found.
        found: u64,
        /// What the format allows, as a clause: "must be 12 or 9".
        expected: &'static str,
    },
    /// A feature that this reader does not know or serve.
    #[error("{what} is not supported (bits {bits:#x})")]
    Unsupported {
        /// Which feature.
        what: &'static str,
        /// The bits or number that name it.
        bits: u64,
    },
    /// A blob id that cannot be one.
    #[error("blob id {id:?} is empty, longer than 64 bytes or not a plain name")]
    BlobId {
        /// The text found.
        id: Box<str>,
    },
    /// A name, link target or attribute that the format cannot hold.
    #[error("{what} of inode {nid} {problem}")]
    Inode {
        /// Which part of the inode.
        what: &'static str,
        /// The inode.
        nid: u64,
        /// What is wrong with it, as a clause: "is longer than 4096 bytes".
        problem: &'static str,
    },
    /// Bytes that do not decompress to the stated length.
    #[error("{compressor} data does not decode to {expected} bytes")]
    Decode {
        /// Which compressor.
        compressor: &'static str,
        /// Length that was to come out, in bytes.
        expected: usize,
    },
    /// Bytes whose SHA-256 is not the one stated.
    #[error("{what} does not have the SHA-256 that the table of contents states")]
    Digest {
        /// Which part.
        what: Box<str>,
    },
    /// Two blobs of one bootstrap with the same id.
    #[error("blob id {id} stands twice in the blob table")]
    DuplicateBlob {
        /// The id.
        id: crate::BlobId,
    },
    /// A tree that is too large for the format.
    #[error("{what}: {found} is more than the format's {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The format's limit.
        limit: u64,
    },
}
