//! The tree of one layer, made entry by entry as a tar unpacker would.
//!
//! A layer's tree keeps what only a merge can resolve, in forms that its bootstrap can hold:
//! - whiteouts are empty files `.wh.<name>` and `.wh..wh..opq`, as in the layer;
//! - a directory that the layer has no entry for is *implied*: merged over another, it leaves that one's attributes;
//! - a hard link to a file of a lower layer is an empty file with the attribute [`LOWER_LINK`].

use std::collections::VecDeque;

use rafs::{Inode, InodeId, Kind, Meta, Tree};

use crate::{
    BuildError,
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
/// As the kernel: more links in one path are a loop.
const MAX_LINKS: u32 = 255;
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;
/// Holes of a sparse file cost no input, so the input's length does not bound the work that it makes.
const MAX_FILE: u64 = 1 << 40;

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
pub struct LayerTree {
    tree: Tree,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// A regular file whose content is wanted.
    File(InodeId),
    /// Anything else.
    Other,
}

impl LayerTree {
    /// An empty layer.
    #[must_use]
    pub fn new(chunk_size: u32) -> Self {
        Self { tree: Tree::new(chunk_size) }
    }

    /// The tree.
    #[must_use]
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    /// The tree so far.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`BuildError::Entry`] for one that leaves the root, or that no file system would take.
    pub fn add(&mut self, entry: Entry) -> Result<Added, BuildError> {
        let bad = |problem: &'static str| BuildError::entry(&entry.path, problem);
        let path = clean(&entry.path).map_err(bad)?;
        if entry.meta.xattrs.contains_key(LOWER_LINK) {
            return Err(bad("has an attribute that is reserved"));
        }
        let Some((name, parents)) = path.split_last() else {
            return self.add_root(entry);
        };
        if path.iter().any(|part| part.starts_with(AUFS) && *part != OPAQUE) {
            return Ok(Added::Other);
        }
        check_whiteout(name).map_err(bad)?;
        let parent = self.directory(parents).map_err(bad)?;
        if name.len() > MAX_NAME {
            return Err(bad("has a name of more than 255 bytes"));
        }
        if name.starts_with(WHITEOUT) {
            let kind = Kind::File { size: 0, chunks: Vec::new() };
            self.put(parent, name, Inode { meta: entry.meta.clone(), kind });
            return Ok(Added::Other);
        }
        if let EntryKind::HardLink(target) = &entry.kind {
            return self.add_link(&entry.path, parent, name, target, entry.meta.clone());
        }
        let mut meta = entry.meta.clone();
        if let EntryKind::Symlink(_) = entry.kind {
            // Linux knows no permissions of symbolic links.
            meta.permissions = 0o777;
        }
        let kind = inode_kind(&entry.kind).map_err(bad)?;
        let is_file = matches!(kind, Kind::File { .. });
        let id = self.put(parent, name, Inode { meta, kind });
        Ok(if is_file { Added::File(id) } else { Added::Other })
    }

    fn add_root(&mut self, entry: Entry) -> Result<Added, BuildError> {
        if entry.kind == EntryKind::Directory {
            self.tree.inode_mut(Tree::ROOT).meta = entry.meta;
        }
        Ok(Added::Other)
    }

    /// Names an inode. A directory over a directory changes only its attributes; all else is replaced.
    fn put(&mut self, parent: InodeId, name: &[u8], inode: Inode) -> InodeId {
        let existing = self.child(parent, name);
        if let (Some(id), Kind::Directory(_)) = (existing, &inode.kind)
            && self.tree.children(id).is_some()
        {
            self.tree.inode_mut(id).meta = inode.meta;
            return id;
        }
        let id = self.tree.add(inode);
        self.name(parent, name, id);
        id
    }

    fn name(&mut self, parent: InodeId, name: &[u8], id: InodeId) {
        let children = self.tree.children_mut(parent).expect("parents are directories");
        children.insert(name.to_vec(), id);
    }

    fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        self.tree.children(parent)?.get(name).copied()
    }

    fn add_link(
        &mut self,
        entry: &[u8],
        parent: InodeId,
        name: &[u8],
        target: &[u8],
        meta: Meta,
    ) -> Result<Added, BuildError> {
        let path =
            clean(target).map_err(|_| BuildError::entry(entry, "is a hard link to outside of the root"))?;
        let Some((last, parents)) = path.split_last() else {
            return Err(BuildError::entry(entry, "is a hard link to the root"));
        };
        let directory = walk(&self.tree, parents).map_err(|problem| BuildError::entry(entry, problem))?;
        let Some(id) = directory.and_then(|directory| self.child(directory, last)) else {
            let mut meta = meta;
            meta.xattrs.insert(LOWER_LINK.to_vec(), path.join(&b'/'));
            self.put(parent, name, Inode { meta, kind: Kind::File { size: 0, chunks: Vec::new() } });
            return Ok(Added::Other);
        };
        let inode = self.tree.inode_mut(id);
        match &inode.kind {
            Kind::Directory(_) => return Err(BuildError::entry(entry, "is a hard link to a directory")),
            // An unpacker gives each link its attributes anew, and they share one inode.
            _ => relabel(&mut inode.meta, meta, matches!(inode.kind, Kind::Symlink(_))),
        }
        self.name(parent, name, id);
        Ok(Added::Other)
    }

    /// The directory at `parts`, made where it is missing. Links of this layer on the way are followed.
    fn directory(&mut self, parts: &[&[u8]]) -> Result<InodeId, &'static str> {
        let mut steps = Steps::new(parts);
        while let Some(part) = steps.next_part() {
            if part.len() > MAX_NAME {
                return Err("has a name of more than 255 bytes");
            }
            let at = steps.at();
            let id = match self.child(at, &part) {
                Some(id) => id,
                None => {
                    self.put(at, &part, Inode { meta: implied(), kind: Kind::Directory(Default::default()) })
                }
            };
            steps.enter(&self.tree, id)?;
        }
        Ok(steps.at())
    }
}

/// The directory at `parts`, links followed; `None` where there is none.
pub(crate) fn walk(tree: &Tree, parts: &[&[u8]]) -> Result<Option<InodeId>, &'static str> {
    let mut steps = Steps::new(parts);
    while let Some(part) = steps.next_part() {
        match tree.children(steps.at()).and_then(|children| children.get(&part)) {
            Some(id) => steps.enter(tree, *id)?,
            None => return Ok(None),
        }
    }
    Ok(Some(steps.at()))
}

/// A walk down a path that stays below the root.
struct Steps {
    left: VecDeque<Vec<u8>>,
    stack: Vec<InodeId>,
    links: u32,
}

impl Steps {
    fn new(parts: &[&[u8]]) -> Self {
        Self { left: parts.iter().map(|part| part.to_vec()).collect(), stack: vec![Tree::ROOT], links: 0 }
    }

    fn at(&self) -> InodeId {
        *self.stack.last().expect("the root is never left")
    }

    fn next_part(&mut self) -> Option<Vec<u8>> {
        while let Some(part) = self.left.pop_front() {
            match part.as_slice() {
                b"" | b"." => {}
                // Above the root is the root, as in a chroot.
                b".." if self.stack.len() > 1 => drop(self.stack.pop()),
                b".." => {}
                _ => return Some(part),
            }
        }
        None
    }

    fn enter(&mut self, tree: &Tree, id: InodeId) -> Result<(), &'static str> {
        match &tree.inode(id).kind {
            Kind::Directory(_) => self.stack.push(id),
            Kind::Symlink(target) => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err("lies behind a loop of symbolic links");
                }
                if target.starts_with(b"/") {
                    self.stack.truncate(1);
                }
                for part in target.split(|b| *b == b'/').rev() {
                    self.left.push_front(part.to_vec());
                }
            }
            _ => return Err("lies below something that is no directory"),
        }
        Ok(())
    }
}

/// What an entry becomes, hard links apart.
fn inode_kind(kind: &EntryKind) -> Result<Kind, &'static str> {
    Ok(match kind {
        EntryKind::Directory => Kind::Directory(std::collections::BTreeMap::new()),
        EntryKind::File(size) if *size > MAX_FILE => return Err("is a file of more than a TiB"),
        EntryKind::File(size) => Kind::File { size: *size, chunks: Vec::new() },
        EntryKind::Symlink(target) if target.is_empty() || target.len() > MAX_PATH => {
            return Err("has a target that is empty or longer than 4095 bytes");
        }
        EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
        EntryKind::CharDevice(rdev) => Kind::CharDevice(*rdev),
        EntryKind::BlockDevice(rdev) => Kind::BlockDevice(*rdev),
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Socket => Kind::Socket,
        EntryKind::HardLink(_) => return Err("is a hard link where none can be"),
    })
}

/// Attributes that a hard link's own header gives to the inode it names.
fn relabel(meta: &mut Meta, mut header: Meta, is_symlink: bool) {
    // Changing the owner drops capabilities, in the kernel too.
    meta.xattrs.remove(b"security.capability".as_slice());
    meta.xattrs.append(&mut header.xattrs);
    if !is_symlink {
        meta.permissions = header.permissions;
    }
    (meta.uid, meta.gid) = (header.uid, header.gid);
    (meta.mtime, meta.mtime_nsec) = (header.mtime, header.mtime_nsec);
}

/// Parts of a path without `.`, `..` and empty ones.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("has a path of more than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("has a name with a NUL in it");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or("leaves the root")?),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// A whiteout of `.` or `..`, or of nothing, could remove what it must not.
fn check_whiteout(name: &[u8]) -> Result<(), &'static str> {
    match name.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err("is a whiteout without a name"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
