//! What can go wrong with a request, and the only mapping to errno.

use rafs::FormatError;
use storage::StorageError;

/// A request that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The bootstrap is broken there.
    #[error("the image's metadata is broken")]
    Format(#[from] FormatError),
    /// The bytes of a file are not to be had.
    #[error("file data is not to be had")]
    Storage(#[from] StorageError),
    /// The inode's image is no longer mounted.
    #[error("the image is no longer mounted")]
    Unmounted,
    /// There is no such name.
    #[error("no such name")]
    NoEntry,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer is too small for the attribute.
    #[error("the buffer is too small")]
    Range,
    /// The request does not fit the inode's type, as reading the root of all images.
    #[error("not possible for this inode")]
    WrongType,
    /// Too many reads wait already.
    #[error("no turn came within {0:?}")]
    Queue(std::time::Duration),
    /// A bug: the code that answers has panicked.
    #[error("the answering code has panicked")]
    Panic,
}

impl FsError {
    /// The errno that the reader sees.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Format(_) | Self::Storage(_) | Self::Queue(_) | Self::Panic => libc::EIO,
            Self::Unmounted => libc::ESTALE,
            Self::NoEntry => libc::ENOENT,
            Self::NoAttribute => libc::ENODATA,
            Self::Range => libc::ERANGE,
            Self::WrongType => libc::EINVAL,
        }
    }

    /// Whether this is an answer that a sound image gives every day, not worth a log line.
    #[must_use]
    pub const fn is_expected(&self) -> bool {
        match self {
            Self::Format(_) | Self::Storage(_) | Self::Queue(_) | Self::Panic => false,
            Self::Unmounted | Self::NoEntry | Self::NoAttribute | Self::Range | Self::WrongType => true,
        }
    }
}
