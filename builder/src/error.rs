//! Why a layer or image could not be built.

use std::{borrow::Cow, io};

use rafs::FormatError;

/// A failed build: which thing, where in it, why.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An entry that cannot be part of an image.
    #[error("entry {entry:?} {problem}")]
    Entry {
        /// Its name, as far as it is text.
        entry: String,
        /// What is wrong with it, as a clause: "leaves the root".
        problem: Cow<'static, str>,
    },
    /// A tar header that is broken.
    #[error("tar header at byte {offset}, behind entry {after:?}, {problem}")]
    Header {
        /// Where it begins in the uncompressed layer, in bytes.
        offset: u64,
        /// The last entry that was read whole.
        after: String,
        /// What is wrong with it, as a clause: "has a wrong checksum".
        problem: Cow<'static, str>,
    },
    /// Input that could not be read: also how truncated and corrupt compressed layers show.
    #[error("read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Output that could not be written.
    #[error("write {what}")]
    Write {
        /// What was written.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Bytes that are not those that were promised.
    #[error("{what} has digest {found}, not {expected}")]
    Digest {
        /// What was hashed.
        what: &'static str,
        /// The digest found.
        found: String,
        /// The digest promised.
        expected: String,
    },
    /// A tree or bootstrap that the format does not allow.
    #[error("{what}")]
    Format {
        /// What was read or made.
        what: String,
        /// Why it failed.
        #[source]
        source: FormatError,
    },
    /// Layers that cannot be merged into one image.
    #[error("{what} {found} of {layer} differs from {expected} of the layers below")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// The upper layer.
        layer: String,
        /// Its value.
        found: String,
        /// The value below.
        expected: String,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
}

impl BuildError {
    /// An entry that cannot be part of an image.
    pub(crate) fn entry(entry: &[u8], problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Entry { entry: String::from_utf8_lossy(entry).into_owned(), problem: problem.into() }
    }

    /// For `map_err`: input that could not be read.
    pub(crate) fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { what: what.into(), source }
    }

    /// For `map_err`: output that could not be written.
    pub(crate) fn write(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { what: what.into(), source }
    }

    /// For `map_err`: a tree or bootstrap that the format does not allow.
    pub(crate) fn format(what: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        move |source| Self::Format { what: what.into(), source }
    }
}
