//! Reading a bootstrap.

use std::fmt;

mod check;
mod claim;
mod dir;
mod extent;
mod inode;
mod open;
mod table;
mod walk;
mod xattr;

use crate::layout::inode::Epoch;
use crate::layout::superblock::Table;
pub use crate::layout::superblock::flag;
use crate::{Blob, BlobIndex, Chunk, ChunkIndex, FileType, FormatError, Nid, Tree};

/// A checked bootstrap over bytes that stay with the caller's container: a `Vec`, a slice, or a memory map.
///
/// Opening checks the superblocks and tables; inodes are checked when looked at, so opening costs the same for any
/// number of files, and nothing is kept in memory for an inode.
pub struct Bootstrap<B> {
    bytes: B,
    image: Image,
}

impl<B> fmt::Debug for Bootstrap<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap").field("image", &self.image).finish_non_exhaustive()
    }
}

/// What opening has read: places of the parts, and the blobs.
#[derive(Debug)]
struct Image {
    summary: Summary,
    root: Nid,
    block_bits: u8,
    chunk_bits: u32,
    meta_offset: u64,
    epoch: Epoch,
    blobs: Vec<Blob>,
    chunk_table: Table,
    prefetch_table: Table,
}

/// The bytes with what is known of them: everything but opening works on this.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    bytes: &'a [u8],
    image: &'a Image,
}

/// Facts of the whole image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Directory entries plus the root: what `statfs` calls files.
    pub inodes: u64,
    /// Size of a chunk in bytes.
    pub chunk_size: u32,
    /// Size of a metadata block in bytes: 4096, or 512 in TARFS images.
    pub block_size: u32,
    /// Sum of the blobs' uncompressed sizes in bytes.
    pub uncompressed_size: u64,
    /// Flags of the RAFS superblock (rafs-v6 section 3).
    pub flags: u64,
}

/// Attributes of one inode as the file system shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The inode.
    pub nid: Nid,
    /// Its type.
    pub file_type: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub permissions: u16,
    /// Size in bytes; the target's length for a symbolic link.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// `st_rdev` in the kernel's new encoding; 0 but for devices.
    pub rdev: u32,
    /// Modification time in seconds since 1970, negative before.
    pub mtime: i64,
    /// Nanoseconds of the modification time.
    pub mtime_nsec: u32,
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The inode it names.
    pub nid: Nid,
    /// Type of that inode, as the entry says.
    pub file_type: FileType,
    /// The name, `.` and `..` included.
    pub name: &'a [u8],
    /// Pass this to [`Bootstrap::read_dir`] to go on behind this entry.
    pub next_cookie: u64,
}

impl DirEntry<'_> {
    /// Whether it is the directory's own entry or that of its parent.
    #[must_use]
    pub fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// A part of a file, within one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The blob it stands in.
    pub blob: BlobIndex,
    /// The chunk it stands in.
    pub chunk: ChunkIndex,
    /// Where the part begins in the blob's uncompressed image, in bytes.
    pub offset: u64,
    /// Its length in bytes, 1 to the chunk size.
    pub len: u32,
}

impl<B: AsRef<[u8]>> Bootstrap<B> {
    /// Checks the superblocks and tables of a bootstrap.
    ///
    /// # Errors
    /// [`FormatError`] for anything that the format does not allow, RAFS v5 included.
    pub fn open(bytes: B) -> Result<Self, FormatError> {
        let image = Image::open(bytes.as_ref())?;
        let this = Self { bytes, image };
        this.view().directory(this.root())?;
        Ok(this)
    }

    #[inline]
    fn view(&self) -> View<'_> {
        View { bytes: self.bytes.as_ref(), image: &self.image }
    }

    /// Facts of the whole image.
    pub fn summary(&self) -> &Summary {
        &self.image.summary
    }

    /// The root directory.
    pub fn root(&self) -> Nid {
        self.image.root
    }

    /// Attributes of an inode.
    ///
    /// # Errors
    /// [`FormatError`] where `nid` is no inode or a broken one.
    #[inline]
    pub fn attributes(&self, nid: Nid) -> Result<Attributes, FormatError> {
        self.view().attributes(nid)
    }

    /// Looks up one name in a directory by binary search; `None` where there is no such name.
    ///
    /// # Errors
    /// [`FormatError`] where the directory is broken or no directory.
    pub fn lookup(&self, directory: Nid, name: &[u8]) -> Result<Option<(Nid, FileType)>, FormatError> {
        self.view().directory(directory)?.lookup(name)
    }

    /// Entries of a directory in name order, from `cookie` on; 0 is the beginning.
    ///
    /// # Errors
    /// [`FormatError`] where the directory is broken or no directory. Later entries may fail as they come.
    pub fn read_dir(
        &self,
        directory: Nid,
        cookie: u64,
    ) -> Result<impl Iterator<Item = Result<DirEntry<'_>, FormatError>>, FormatError> {
        Ok(self.view().directory(directory)?.entries(cookie))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// [`FormatError`] where the inode is broken or no link.
    pub fn link_target(&self, nid: Nid) -> Result<Vec<u8>, FormatError> {
        self.view().link_target(nid)
    }

    /// Extended attributes of an inode: full name and value.
    ///
    /// # Errors
    /// [`FormatError`] where the inode or its attributes are broken.
    #[allow(clippy::type_complexity, reason = "pairs of name and value need no name of their own")]
    pub fn xattrs(&self, nid: Nid) -> Result<Vec<(Vec<u8>, &[u8])>, FormatError> {
        self.view().xattrs(nid)
    }

    /// Value of one extended attribute by full name; `None` where the inode does not have it.
    ///
    /// # Errors
    /// [`FormatError`] where the inode or its attributes are broken.
    pub fn xattr(&self, nid: Nid, name: &[u8]) -> Result<Option<&[u8]>, FormatError> {
        self.view().xattr(nid, name)
    }

    /// The parts of a file that hold `len` bytes from `offset` on, in file order, cut at the end of the file.
    ///
    /// # Errors
    /// [`FormatError`] where the inode is broken or no regular file.
    pub fn extents(&self, nid: Nid, offset: u64, len: u64) -> Result<Vec<Extent>, FormatError> {
        self.view().extents(nid, offset, len)
    }

    /// Blobs of the image in table order, without their chunks ([`Blob::chunks`] is empty).
    pub fn blobs(&self) -> &[Blob] {
        &self.image.blobs
    }

    /// Records of the bootstrap's chunk table, in no order that means anything: blob, number in it, chunk. A record is
    /// checked as it comes.
    pub fn chunk_records(&self) -> impl Iterator<Item = Result<(BlobIndex, ChunkIndex, Chunk), FormatError>> {
        self.view().chunk_records()
    }

    /// Inodes to fetch ahead of use, first one first; a directory stands for all below it.
    pub fn prefetch(&self) -> Vec<Nid> {
        self.view().prefetch().collect()
    }

    /// Looks at everything that can be reached from the root, for a reader that takes an image as it is: every inode,
    /// name, attribute and chunk index is sound, and no directory is reached twice. Takes time with the number of
    /// inodes.
    ///
    /// # Errors
    /// [`FormatError`] for the first broken part.
    pub fn check_all(&self) -> Result<(), FormatError> {
        check::check_all(self.view())
    }

    /// The whole image as a tree, with blobs and chunks.
    ///
    /// # Errors
    /// [`FormatError`] for the first broken part; a directory reached twice is one.
    pub fn to_tree(&self) -> Result<Tree, FormatError> {
        walk::to_tree(self.view())
    }
}
