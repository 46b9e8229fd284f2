//! Where entries come from: a tar stream or a directory.

pub mod directory;
pub mod tar;
mod xattr;

use rafs::Meta;

use crate::BuildError;

/// One entry of a layer, as its source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as stored: not yet cleaned, possibly hostile.
    pub path: Vec<u8>,
    /// Owner, permissions, times and extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes, to be read next.
    File(u64),
    /// Another name for the entry at this path.
    HardLink(Vec<u8>),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device and its `st_rdev` in the kernel's new encoding.
    CharDevice(u32),
    /// A block device and its `st_rdev` in the kernel's new encoding.
    BlockDevice(u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Something about the entries after it: a global PAX header. It is none itself, but unpackers make way for one.
    Comment,
}

/// Entries in order, each followed by its content.
pub trait Source {
    /// The next entry; what is left of the last one's content is skipped. `None` at the end.
    ///
    /// # Errors
    /// [`BuildError`] for input that cannot be read or makes no sense.
    fn next_entry(&mut self) -> Result<Option<Entry>, BuildError>;

    /// Fills `buf` with the next bytes of the entry's content; there must be as many left.
    ///
    /// # Errors
    /// [`BuildError`] for input that cannot be read or ends early.
    fn read_content(&mut self, buf: &mut [u8]) -> Result<(), BuildError>;
}

/// `st_rdev` in the kernel's new encoding.
#[must_use]
pub const fn encode_rdev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}
