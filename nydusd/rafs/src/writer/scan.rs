//! What the root leads to: inodes in the order written, with what their size and checks need.

use crate::layout::dirent::{self, is_name};
use crate::layout::{in_memory, limit, xattr};
use crate::{ChunkRef, FormatError, Inode, InodeId, Kind, Tree};

/// Longest link target in bytes: what Linux can follow.
const MAX_TARGET: u64 = 4095;

/// An inode that is written.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) inode: &'a Inode,
    pub(super) nlink: u32,
    /// Number (in [`Scan::found`]) of the directory that first names it.
    pub(super) parent: usize,
    pub(super) xattrs: Vec<u8>,
    pub(super) content: Content,
}

/// What follows or belongs to an inode.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing: devices, pipes, sockets.
    Empty,
    /// Bytes of a link target.
    Target,
    /// Entries by block, and their length in bytes.
    Entries { per_block: Vec<usize>, size: u64 },
    /// Chunk indexes.
    Chunks,
}

/// Inodes in breadth-first order: those of one directory stand together.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) found: Vec<Found<'a>>,
    /// Number in `found` by [`InodeId`].
    numbers: Vec<Option<usize>>,
    /// Names in all directories, and the root.
    pub(super) names: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(tree: &'a Tree) -> Result<Self, FormatError> {
        let mut scan = Self { found: Vec::new(), numbers: vec![None; tree.inodes.len()], names: 1 };
        if tree.children(Tree::ROOT).is_none() {
            return Err(fault("root", 0, "is not directory"));
        }
        scan.add(tree, Tree::ROOT, 0)?;
        let mut next = 0;
        while let Some(found) = scan.found.get(next) {
            if let Kind::Directory(children) = &found.inode.kind {
                for (name, id) in children {
                    scan.name(tree, next, name, *id)?;
                }
            }
            next += 1;
        }
        for (id, nlink) in &tree.links {
            let number = scan.number(*id);
            if let Some(found) = number.and_then(|number| scan.found.get_mut(number))
                && !matches!(found.inode.kind, Kind::Directory(_))
            {
                found.nlink = found.nlink.max(*nlink);
            }
        }
        Ok(scan)
    }

    /// Number of `id` in [`Self::found`].
    pub(super) fn number(&self, id: InodeId) -> Option<usize> {
        self.numbers.get(usize::try_from(id.0).ok()?).copied().flatten()
    }

    fn name(&mut self, tree: &'a Tree, parent: usize, name: &[u8], id: InodeId) -> Result<(), FormatError> {
        if !is_name(name) || matches!(name, b"." | b"..") {
            return Err(fault("name", id.0, "is empty, special or longer than 255 bytes"));
        }
        self.names += 1;
        match self.number(id) {
            None => self.add(tree, id, parent)?,
            Some(number) if matches!(self.found[number].inode.kind, Kind::Directory(_)) => {
                return Err(fault("directory", id.0, "has two names"));
            }
            Some(number) => self.found[number].nlink += 1,
        }
        if matches!(tree.inode(id).kind, Kind::Directory(_)) {
            self.found[parent].nlink += 1;
        }
        Ok(())
    }

    fn add(&mut self, tree: &'a Tree, id: InodeId, parent: usize) -> Result<(), FormatError> {
        let inode = tree.inodes.get(id.0 as usize).ok_or_else(|| fault("name", id.0, "leads to no inode"))?;
        if inode.meta.mtime_nsec >= 1_000_000_000 {
            return Err(fault("mtime", id.0, "has 10^9 nanoseconds or more"));
        }
        let xattrs = xattr::encode(inode.meta.xattrs.iter())
            .map_err(|why| fault("extended attribute", id.0, why.problem()))?;
        xattr::count(xattrs.len())
            .map_err(|_| fault("extended attributes", id.0, "take more than 256 KiB together"))?;
        let (content, nlink) = match &inode.kind {
            Kind::Directory(children) => (entries(children.keys().map(Vec::as_slice)), 2),
            Kind::File { size, chunks } => {
                check_chunks(tree, id, *size, chunks)?;
                (Content::Chunks, 1)
            }
            Kind::Symlink(target) => {
                let fits = (1..=MAX_TARGET).contains(&(target.len() as u64)) && !target.contains(&0);
                if !fits {
                    return Err(fault("link target", id.0, "is empty, longer than 4095 bytes or has a NUL"));
                }
                (Content::Target, 1)
            }
            Kind::CharDevice(_) | Kind::BlockDevice(_) | Kind::Fifo | Kind::Socket => (Content::Empty, 1),
        };
        self.numbers[id.0 as usize] = Some(self.found.len());
        self.found.push(Found { inode, nlink, parent, xattrs, content });
        limit("number of inodes", self.found.len() as u64, u32::MAX.into())
    }
}

/// Names of a directory with `.` and `..`, sorted as they are written.
pub(super) fn with_dots<'n>(children: impl Iterator<Item = &'n [u8]>) -> Vec<&'n [u8]> {
    let mut names: Vec<&[u8]> = vec![b".", b".."];
    names.extend(children);
    names.sort_unstable();
    names
}

fn entries<'n>(children: impl Iterator<Item = &'n [u8]>) -> Content {
    let (per_block, size) = dirent::split(with_dots(children).into_iter(), in_memory(crate::BLOCK_SIZE));
    Content::Entries { per_block, size }
}

/// Checks that chunks exist and make up the file: the kernel counts on every chunk but the last being whole.
fn check_chunks(tree: &Tree, id: InodeId, size: u64, chunks: &[ChunkRef]) -> Result<(), FormatError> {
    let chunk_size = u64::from(tree.chunk_size);
    if chunks.len() as u64 != size.div_ceil(chunk_size) {
        return Err(fault("file", id.0, "has another number of chunks than its size asks for"));
    }
    let mut left = size;
    for at in chunks {
        let chunk = chunk_of(tree, *at)
            .ok_or_else(|| fault("file", id.0, "has a chunk of which nothing is known"))?;
        let expected = left.min(chunk_size);
        if u64::from(chunk.uncompressed_size) != expected {
            return Err(fault("file", id.0, "has a chunk of wrong length"));
        }
        left -= expected;
    }
    Ok(())
}

/// The chunk that `at` means.
pub(super) fn chunk_of(tree: &Tree, at: ChunkRef) -> Option<&crate::Chunk> {
    let blob = tree.blobs.get(usize::from(at.blob.0))?;
    blob.chunks.get(at.chunk)
}

pub(super) fn fault(what: &'static str, inode: u32, problem: &'static str) -> FormatError {
    FormatError::Inode { what, nid: inode.into(), problem }
}
