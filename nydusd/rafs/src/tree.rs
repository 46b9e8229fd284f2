//! A file tree in memory: what builders make and [`crate::BootstrapWriter`] writes.

use std::collections::BTreeMap;

use crate::{BlobId, BlobIndex, ChunkIndex, Chunks, Compressor, Digest, DigestAlgorithm};

/// Place of an inode in [`Tree::inodes`]. Names that share it are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(pub u32);

/// A whole image or layer: inodes, and the blobs that their chunks stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// All inodes; the first is the root directory. One that no name leads to is not written.
    pub inodes: Vec<Inode>,
    /// Blobs in table order. One to which no file refers is not written, and the indexes behind it move up.
    pub blobs: Vec<Blob>,
    /// Size that every chunk but the last of a file has, in bytes.
    pub chunk_size: u32,
    /// Inodes (files or whole directories) to fetch ahead of use, first one first.
    pub prefetch: Vec<InodeId>,
    /// Link counts to write for inodes that have names which the tree does not show. Fewer than it shows count as those.
    pub links: BTreeMap<InodeId, u32>,
}

/// Attributes and content of one inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, permissions, times and extended attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// Attributes that every inode has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970, negative before.
    pub mtime: i64,
    /// Nanoseconds of the modification time, below 10^9.
    pub mtime_nsec: u32,
    /// Extended attributes by full name (`user.x`), sorted so that output is reproducible.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory: names, without `.` and `..`.
    Directory(BTreeMap<Vec<u8>, InodeId>),
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Its chunks in file order: `ceil(size / chunk_size)` of them.
        chunks: Vec<ChunkRef>,
    },
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
}

/// Type of an inode, as directory entries tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Symbolic link.
    Symlink,
}

/// One chunk of a file: which blob, which chunk in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The blob.
    pub blob: BlobIndex,
    /// Its number in that blob.
    pub chunk: ChunkIndex,
}

/// A blob as the bootstrap tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Name in the backend.
    pub id: BlobId,
    /// How chunks are compressed.
    pub compressor: Compressor,
    /// How chunks are hashed.
    pub digest_algorithm: DigestAlgorithm,
    /// Feature bits (rafs-v6 section 6).
    pub features: u32,
    /// Size of the blob file in bytes, as far as known when the bootstrap is written.
    pub compressed_size: u64,
    /// Size of the blob's uncompressed image in bytes, a multiple of 4096.
    pub uncompressed_size: u64,
    /// Number of chunks in the blob, referenced or not.
    pub chunk_count: u32,
    /// Where the compression context table ("CI table") stands in the blob file.
    pub ci: crate::blob::CiLocation,
    /// Size of the table of contents with its tar header, in bytes; 0 where none was written before the bootstrap.
    pub toc_size: u32,
    /// SHA-256 of the table of contents with its tar header, or zeros.
    pub toc_digest: [u8; 32],
    /// Chunks of which a record is known; others were merged away.
    pub chunks: Chunks,
}

/// One chunk of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Digest of the uncompressed bytes.
    pub digest: Digest,
    /// Where it begins in the blob file, in bytes. 0 for members of a batch unit, whose place only the blob tells.
    pub compressed_offset: u64,
    /// Its stored length in bytes. 0 for members of a batch unit.
    pub compressed_size: u32,
    /// Where it begins in the uncompressed image, a multiple of 4096.
    pub uncompressed_offset: u64,
    /// Its length in bytes.
    pub uncompressed_size: u32,
    /// Whether it is stored compressed.
    pub is_compressed: bool,
    /// CRC-32C of the uncompressed bytes, where the image has it.
    pub crc32c: Option<u32>,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree of nothing but a root directory, mode 0755, owned by root.
    #[must_use]
    pub fn new(chunk_size: u32) -> Self {
        let meta = Meta { permissions: 0o755, ..Meta::default() };
        let root = Inode { meta, kind: Kind::Directory(BTreeMap::new()) };
        Self {
            inodes: vec![root],
            blobs: Vec::new(),
            chunk_size,
            prefetch: Vec::new(),
            links: BTreeMap::new(),
        }
    }

    /// The inode `id`.
    ///
    /// # Panics
    /// If `id` is not of this tree.
    #[must_use]
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0 as usize]
    }

    /// The inode `id`, to change.
    ///
    /// # Panics
    /// If `id` is not of this tree.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0 as usize]
    }

    /// Adds an inode, not yet named.
    ///
    /// # Panics
    /// If the tree has 2^32 inodes.
    pub fn add(&mut self, inode: Inode) -> InodeId {
        let id = InodeId(u32::try_from(self.inodes.len()).expect("fewer than 2^32 inodes"));
        self.inodes.push(inode);
        id
    }

    /// Names in directory `id`, or `None` where it is not a directory.
    #[must_use]
    pub fn children(&self, id: InodeId) -> Option<&BTreeMap<Vec<u8>, InodeId>> {
        match &self.inode(id).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Names in directory `id`, to change, or `None` where it is not a directory.
    pub fn children_mut(&mut self, id: InodeId) -> Option<&mut BTreeMap<Vec<u8>, InodeId>> {
        match &mut self.inode_mut(id).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Follows `path` (components split at `/`, empty ones and `.` ignored, `..` not understood) from the root.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<InodeId> {
        let mut at = Self::ROOT;
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".") {
            at = *self.children(at)?.get(name)?;
        }
        Some(at)
    }

    /// A path that leads from the root to `id`, if one does.
    #[must_use]
    pub fn path_of(&self, id: InodeId) -> Option<Vec<u8>> {
        let mut ways = vec![(Self::ROOT, Vec::new())];
        while let Some((at, path)) = ways.pop() {
            if at == id {
                return Some(path);
            }
            let children = self.children(at).into_iter().flatten();
            ways.extend(children.map(|(name, child)| (*child, [&path[..], b"/", name].concat())));
        }
        None
    }
}

impl Kind {
    /// Its type.
    #[must_use]
    pub const fn file_type(&self) -> FileType {
        match self {
            Self::Directory(_) => FileType::Directory,
            Self::File { .. } => FileType::File,
            Self::Symlink(_) => FileType::Symlink,
            Self::CharDevice(_) => FileType::CharDevice,
            Self::BlockDevice(_) => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
        }
    }
}
