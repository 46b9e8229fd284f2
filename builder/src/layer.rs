//! The tree of one layer, made entry by entry as a tar unpacker would.
//!
//! What becomes of an entry depends on where the layer lies: see [`Position`]. A layer's tree keeps what only a merge
//! can resolve, in forms that its bootstrap can hold:
//! - whiteouts are empty files `.wh.<name>` and `.wh..wh..opq`, as in the layer;
//! - a hard link to a file of a lower layer is an empty file with the attribute [`LOWER_LINK`];
//! - at an unknown place, a directory that the layer has no entry for is *implied*: merged over another, it leaves that
//!   one's attributes.

mod acl;
mod attributes;
mod entries;
mod resolve;
mod whiteout;

use std::collections::{BTreeMap, HashSet};

use rafs::{ChunkRef, Inode, InodeId, Kind, Meta, Tree};

pub use self::entries::Entries;
pub(crate) use self::{
    resolve::{clean, directory_at},
    whiteout::is_marker,
};
use crate::{
    BuildError,
    layer::resolve::{MAX_PATH, Problem, inode_at, resolve},
    source::{Entry, EntryKind},
};

/// Attribute that names the lower file that an entry is a hard link to.
pub const LOWER_LINK: &[u8] = b"trusted.shoal.link";
/// Name prefix of whiteouts.
pub const WHITEOUT: &[u8] = b".wh.";
/// Name of the file that makes a directory opaque.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// Name prefix of what aufs kept for itself.
const AUFS: &[u8] = b".wh..wh.";
/// Holes of a sparse file cost no input, so the input's length does not bound the work that it makes.
const MAX_FILE: u64 = 1 << 40;

/// Where a layer lies, which decides what its tree is like.
#[derive(Debug, Clone, Copy)]
pub enum Position<'a> {
    /// Not known: all that a layer says is kept, for a merge by the rules of OCI.
    Unknown,
    /// At the bottom of an image: as containerd unpacks the first layer.
    Lowest,
    /// Above these layers, lowest first: as containerd unpacks it for overlayfs.
    Above(&'a [Tree]),
}

/// Attributes of implied directories; the odd nanosecond tells them from real ones, which come from second-grained or
/// PAX times.
#[must_use]
pub fn implied() -> Meta {
    Meta { permissions: 0o755, mtime_nsec: 1, ..Meta::default() }
}

/// Whether a directory is there only because something below it is.
#[must_use]
pub fn is_implied(meta: &Meta) -> bool {
    *meta == implied()
}

/// A layer's tree on the way.
#[derive(Debug)]
struct LayerTree<'a> {
    tree: Tree,
    position: Position<'a>,
    /// Paths that entries named, where an opaque mark will ask for them.
    claimed: Option<HashSet<Vec<u8>>>,
}

/// Refuses an entry that can be at no place of any tree; gives its cleaned path.
fn check(entry: &Entry) -> Result<Vec<&[u8]>, BuildError> {
    let bad = |problem| BuildError::entry(&entry.path, problem);
    let path = clean(&entry.path).map_err(bad)?;
    if entry.meta.xattrs.contains_key(LOWER_LINK) {
        return Err(bad("has an attribute that is reserved"));
    }
    if let Some(b"" | b"." | b"..") = path.last().and_then(|name| name.strip_prefix(WHITEOUT)) {
        // It could remove what it must not.
        return Err(bad("is a whiteout without a name"));
    }
    match &entry.kind {
        EntryKind::File(size) if *size > MAX_FILE => Err(bad("is a file of more than a TiB")),
        EntryKind::Symlink(target) if target.is_empty() || target.len() > MAX_PATH => {
            Err(bad("has a target that is empty or longer than 4095 bytes"))
        }
        EntryKind::HardLink(target) => match clean(target) {
            Err(_) => Err(bad("is a hard link to outside of the root")),
            Ok(parts) if parts.is_empty() => Err(bad("is a hard link to the root")),
            Ok(_) => Ok(path),
        },
        _ => Ok(path),
    }
}

impl<'a> LayerTree<'a> {
    fn new(chunk_size: u32, position: Position<'a>) -> Self {
        Self { tree: Tree::new(chunk_size), position, claimed: None }
    }

    /// Adds an entry, with its chunks where it is a file.
    fn add(&mut self, entry: &Entry, chunks: &[ChunkRef]) -> Result<(), BuildError> {
        let bad = |problem| BuildError::entry(&entry.path, problem);
        let path = check(entry)?;
        let Some((name, parents)) = path.split_last() else {
            self.add_root(entry);
            return Ok(());
        };
        let is_of_aufs = |part: &&[u8]| part.starts_with(AUFS) && *part != OPAQUE;
        if matches!(self.position, Position::Unknown) && path.iter().any(is_of_aufs) {
            return Ok(());
        }
        let (parent, mut at) = self.directory(parents).map_err(bad)?;
        if name.starts_with(WHITEOUT) {
            self.white_out(parent, &at, name, &entry.meta);
            return Ok(());
        }
        match &entry.kind {
            EntryKind::HardLink(target) => self.add_link(parent, name, target, &entry.meta).map_err(bad)?,
            EntryKind::Comment => drop(self.children_mut(parent).remove(*name)),
            kind => self.put(parent, name, &entry.meta, inode_kind(kind, chunks)),
        }
        at.push(name.to_vec());
        if let Some(claimed) = &mut self.claimed {
            claimed.insert(at.join(&b'/'));
        }
        Ok(())
    }

    fn add_root(&mut self, entry: &Entry) {
        if entry.kind != EntryKind::Directory {
            return;
        }
        let root = &mut self.tree.inode_mut(Tree::ROOT).meta;
        match self.position {
            Position::Unknown => {
                *root = attributes::as_said(&entry.meta, &Kind::Directory(BTreeMap::new()));
            }
            // containerd passes the entry over. The time is as good as that of unpacking, and the same each time.
            _ => (root.mtime, root.mtime_nsec) = attributes::time(&entry.meta),
        }
    }

    /// Makes an inode and names it. A directory over a directory changes only its attributes; all else is replaced.
    fn put(&mut self, parent: InodeId, name: &[u8], header: &Meta, kind: Kind) {
        let existing = self.child(parent, name).filter(|_| matches!(kind, Kind::Directory(_)));
        if let Some(id) = existing.filter(|id| self.tree.children(*id).is_some()) {
            let existing = &self.tree.inode(id).meta;
            self.tree.inode_mut(id).meta = match self.position {
                Position::Unknown => attributes::as_said(header, &kind),
                _ => attributes::of_named_again(header, existing),
            };
            return;
        }
        let parent_meta = &self.tree.inode(parent).meta;
        let meta = match self.position {
            Position::Unknown => attributes::as_said(header, &kind),
            _ => attributes::of_new(header, &kind, parent_meta),
        };
        let id = self.tree.add(Inode { meta, kind });
        self.name(parent, name, id);
    }

    /// Names an inode; gives whether the layer had taken that name away before.
    fn name(&mut self, parent: InodeId, name: &[u8], id: InodeId) -> bool {
        self.children_mut(parent).insert(name.to_vec(), id);
        // Until a merge by the rules of OCI a whiteout stays beside what came in its place.
        !matches!(self.position, Position::Unknown) && self.forget_whiteout(parent, name)
    }

    fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        self.tree.children(parent)?.get(name).copied()
    }

    fn children_mut(&mut self, parent: InodeId) -> &mut BTreeMap<Vec<u8>, InodeId> {
        self.tree.children_mut(parent).expect("parents are directories")
    }

    fn add_link(
        &mut self,
        parent: InodeId,
        name: &[u8],
        target: &[u8],
        header: &Meta,
    ) -> Result<(), Problem> {
        let path = clean(target)?;
        let (last, parents) = path.split_last().expect("links to the root were refused");
        let directory = directory_at(&self.tree, parents)?;
        if let Some(id) = directory.and_then(|directory| self.child(directory, last)) {
            let inode = self.tree.inode_mut(id);
            match &inode.kind {
                Kind::Directory(_) => return Err("is a hard link to a directory"),
                // An unpacker gives each link its attributes anew, and they share one inode.
                kind => attributes::of_link(&mut inode.meta, header, kind),
            }
            self.name(parent, name, id);
            return Ok(());
        }
        let is_taken = directory.is_some_and(|directory| whiteout::takes_away(&self.tree, directory, last));
        match self.position {
            Position::Lowest => return Err("is a hard link to what is not there"),
            // A whiteout is a device while containerd unpacks, and a link to it is one more.
            Position::Above(_) if is_taken => {
                self.children_mut(parent).remove(name);
                self.mark(parent, &[WHITEOUT, name].concat(), header);
            }
            Position::Unknown | Position::Above(_) => {
                let kind = Kind::File { size: 0, chunks: Vec::new() };
                let mut meta = attributes::as_said(header, &kind);
                meta.xattrs.insert(LOWER_LINK.to_vec(), path.join(&b'/'));
                let id = self.tree.add(Inode { meta, kind });
                self.name(parent, name, id);
            }
        }
        Ok(())
    }

    /// The directory at `path` and its path without links, made where it is missing. Only links of this layer count.
    fn directory(&mut self, path: &[&[u8]]) -> Result<(InodeId, Vec<Vec<u8>>), Problem> {
        let place = resolve(&self.tree, path)?;
        let mut at = place.directory;
        for end in place.parts.len() - place.missing + 1..=place.parts.len() {
            at = self.imply(at, &place.parts[..end]);
        }
        Ok((at, place.parts))
    }

    /// Makes the directory at `path`, which no entry names so far.
    fn imply(&mut self, parent: InodeId, path: &[Vec<u8>]) -> InodeId {
        let name = path.last().expect("the root is there");
        let parent_meta = &self.tree.inode(parent).meta;
        let meta = match self.position {
            Position::Unknown => implied(),
            Position::Lowest => attributes::of_implied(parent_meta, &[], path),
            Position::Above(below) => attributes::of_implied(parent_meta, below, path),
        };
        let id = self.tree.add(Inode { meta, kind: Kind::Directory(BTreeMap::new()) });
        if self.name(parent, name, id) {
            // containerd refuses a layer that goes on below a name that it took away. Taken away is what is below.
            self.mark(id, OPAQUE, &Meta::default());
        }
        id
    }

    /// Gives the directory that an entry named its time, as unpackers do once nothing is put into it any more. Whatever
    /// came in its place gets it too.
    fn set_time(&mut self, entry: &Entry) {
        let found = clean(&entry.path).ok().and_then(|path| inode_at(&self.tree, &path));
        let Some(id) = found.filter(|id| *id != Tree::ROOT) else { return };
        let time = match self.position {
            Position::Unknown => (entry.meta.mtime, entry.meta.mtime_nsec),
            _ => attributes::time(&entry.meta),
        };
        let meta = &mut self.tree.inode_mut(id).meta;
        (meta.mtime, meta.mtime_nsec) = time;
    }
}

/// What an entry becomes, hard links and comments apart.
fn inode_kind(kind: &EntryKind, chunks: &[ChunkRef]) -> Kind {
    match kind {
        EntryKind::Directory => Kind::Directory(BTreeMap::new()),
        EntryKind::File(size) => Kind::File { size: *size, chunks: chunks.to_vec() },
        EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
        EntryKind::CharDevice(rdev) => Kind::CharDevice(*rdev),
        EntryKind::BlockDevice(rdev) => Kind::BlockDevice(*rdev),
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Socket => Kind::Socket,
        EntryKind::HardLink(_) | EntryKind::Comment => unreachable!("these are no inodes of their own"),
    }
}

#[cfg(test)]
mod tests;
