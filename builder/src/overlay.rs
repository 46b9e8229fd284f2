//! Layers onto each other: what an overlay file system shows of them.

mod compact;

use std::collections::{BTreeMap, HashMap};

use rafs::{BlobId, BlobIndex, Inode, InodeId, Kind, Meta, Tree};

use crate::{
    BuildError,
    layer::{LOWER_LINK, OPAQUE, WHITEOUT, directory_at, is_implied, is_marker},
};

/// Whose unpacker the result is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// What overlayfs shows of layers that containerd unpacked: the root has mode 0755 and belongs to root, a character
    /// device 0:0 is a whiteout, and link counts are those of the layer. The layers' trees are made for their positions.
    Containerd,
    /// What `nydus-image` makes: everything is kept as the layers have it.
    Nydus,
}

/// Layers merged so far.
#[derive(Debug)]
pub struct Overlay {
    rules: Rules,
    tree: Tree,
    blobs: HashMap<BlobId, BlobIndex>,
}

/// One layer while it is merged.
struct Upper<'a> {
    tree: &'a Tree,
    /// Where an inode went, so that hard links stay together.
    placed: HashMap<InodeId, InodeId>,
    blobs: Vec<BlobIndex>,
    /// Number of names of each inode in the layer.
    names: Vec<u32>,
}

type Names = BTreeMap<Vec<u8>, InodeId>;

impl Overlay {
    /// No layers yet.
    #[must_use]
    pub fn new(chunk_size: u32, rules: Rules) -> Self {
        Self { rules, tree: Tree::new(chunk_size), blobs: HashMap::new() }
    }

    /// Merges a layer over those before. `name` is for messages.
    ///
    /// # Errors
    /// [`BuildError`] for another chunk size, too many blobs, or a hard link to a file that no layer has.
    pub fn push(&mut self, layer: &Tree, name: &str) -> Result<(), BuildError> {
        if layer.chunk_size != self.tree.chunk_size {
            return Err(BuildError::Mismatch {
                what: "chunk size",
                layer: name.into(),
                found: layer.chunk_size.to_string(),
                expected: self.tree.chunk_size.to_string(),
            });
        }
        let placed = self.lower_links(layer)?;
        let blobs = layer.blobs.iter().map(|blob| self.add_blob(blob)).collect::<Result<_, _>>()?;
        let mut upper = Upper { tree: layer, placed, blobs, names: count_names(layer) };
        self.set_root(layer.inode(Tree::ROOT).meta.clone());
        let mut todo = vec![(Tree::ROOT, Tree::ROOT)];
        while let Some((from, to)) = todo.pop() {
            let Some(names) = layer.children(from) else { continue };
            self.remove_whited_out(layer, names, to);
            for (name, id) in names {
                if self.is_whiteout(layer, name, *id) || self.is_device_whiteout(layer, *id) {
                    continue;
                }
                todo.extend(self.place(&mut upper, to, name, *id));
            }
        }
        Ok(())
    }

    /// The merged image: without what no name leads to, blobs in order of first use.
    #[must_use]
    pub fn finish(self) -> Tree {
        compact::compact(self.tree)
    }

    fn set_root(&mut self, meta: Meta) {
        let meta = match self.rules {
            Rules::Nydus => self.adapt(meta),
            Rules::Containerd => Meta { permissions: 0o755, mtime: meta.mtime.max(0), ..Meta::default() },
        };
        self.tree.inode_mut(Tree::ROOT).meta = meta;
    }

    fn add_blob(&mut self, blob: &rafs::Blob) -> Result<BlobIndex, BuildError> {
        if let Some(index) = self.blobs.get(&blob.id) {
            // Either may know chunks that the other has forgotten.
            self.tree.blobs[usize::from(index.0)].chunks.add(&blob.chunks);
            return Ok(*index);
        }
        let count = self.tree.blobs.len();
        let too_many = rafs::FormatError::TooLarge {
            what: "layers with content",
            found: count as u64 + 1,
            limit: rafs::MAX_BLOBS as u64,
        };
        let index = u8::try_from(count).ok().filter(|_| count < rafs::MAX_BLOBS);
        let index = BlobIndex(index.ok_or(too_many).map_err(BuildError::format("merge"))?);
        self.blobs.insert(blob.id.clone(), index);
        self.tree.blobs.push(blob.clone());
        Ok(index)
    }

    /// Hard links of a layer into those below, found before the layer changes anything.
    fn lower_links(&self, layer: &Tree) -> Result<HashMap<InodeId, InodeId>, BuildError> {
        let mut found = HashMap::new();
        for (number, inode) in (0_u32..).zip(&layer.inodes) {
            let Some(target) = inode.meta.xattrs.get(LOWER_LINK) else { continue };
            let parts: Vec<_> = target.split(|b| *b == b'/').collect();
            let (name, parents) = parts.split_last().expect("split gives at least one part");
            let directory = directory_at(&self.tree, parents).ok().flatten();
            let names = directory.and_then(|directory| self.tree.children(directory));
            let id = names.and_then(|names| names.get(*name)).filter(|id| self.tree.children(**id).is_none());
            let missing =
                || BuildError::entry(target, "is the target of a hard link, and in none of the layers");
            found.insert(InodeId(number), *id.ok_or_else(missing)?);
        }
        Ok(found)
    }

    fn remove_whited_out(&mut self, upper: &Tree, names: &Names, to: InodeId) {
        let devices: Vec<_> = names.iter().filter(|(_, id)| self.is_device_whiteout(upper, **id)).collect();
        let markers: Vec<_> = names.iter().filter(|(name, id)| self.is_whiteout(upper, name, **id)).collect();
        let lower = self.tree.children_mut(to).expect("directories are merged into directories");
        if markers.iter().any(|(name, _)| *name == OPAQUE) {
            lower.clear();
        }
        for name in markers.iter().filter_map(|(name, _)| name.strip_prefix(WHITEOUT)) {
            lower.remove(name);
        }
        for (name, _) in devices {
            lower.remove(name);
        }
    }

    fn is_whiteout(&self, upper: &Tree, name: &[u8], id: InodeId) -> bool {
        match self.rules {
            Rules::Containerd => is_marker(upper, name, id),
            Rules::Nydus => name.starts_with(WHITEOUT),
        }
    }

    fn is_device_whiteout(&self, upper: &Tree, id: InodeId) -> bool {
        self.rules == Rules::Containerd && upper.inode(id).kind == Kind::CharDevice(0)
    }

    /// Puts one entry into directory `to`; gives the pair to go on with where it is a directory.
    fn place(
        &mut self,
        upper: &mut Upper<'_>,
        to: InodeId,
        name: &[u8],
        id: InodeId,
    ) -> Option<(InodeId, InodeId)> {
        if let Some(known) = upper.placed.get(&id).copied() {
            self.name(to, name, known);
            return None;
        }
        let inode = upper.tree.inode(id);
        if !matches!(inode.kind, Kind::Directory(_)) {
            let new = self.add(inode.clone(), &upper.blobs);
            let names = upper.names[id.0 as usize];
            if names > 1 && self.rules == Rules::Containerd {
                self.tree.links.insert(new, names);
            }
            upper.placed.insert(id, new);
            self.name(to, name, new);
            return None;
        }
        let existing = self.tree.children(to).and_then(|names| names.get(name)).copied();
        let Some(lower) = existing.filter(|lower| self.tree.children(*lower).is_some()) else {
            let meta = self.adapt(inode.meta.clone());
            let new = self.tree.add(Inode { meta, kind: Kind::Directory(Names::new()) });
            self.name(to, name, new);
            return Some((id, new));
        };
        if self.rules == Rules::Containerd || !is_implied(&inode.meta) {
            self.tree.inode_mut(lower).meta = self.adapt(inode.meta.clone());
        }
        Some((id, lower))
    }

    fn add(&mut self, mut inode: Inode, blobs: &[BlobIndex]) -> InodeId {
        inode.meta = self.adapt(inode.meta);
        if let Kind::File { chunks, .. } = &mut inode.kind {
            for chunk in chunks {
                chunk.blob = blobs[usize::from(chunk.blob.0)];
            }
        }
        self.tree.add(inode)
    }

    fn name(&mut self, directory: InodeId, name: &[u8], id: InodeId) {
        self.tree
            .children_mut(directory)
            .expect("entries are placed in directories")
            .insert(name.to_vec(), id);
    }

    /// Attributes without the mark of implied directories.
    fn adapt(&self, mut meta: Meta) -> Meta {
        if self.rules == Rules::Nydus && is_implied(&meta) {
            meta.mtime_nsec = 0;
        }
        meta
    }
}

fn count_names(tree: &Tree) -> Vec<u32> {
    let mut names = vec![0; tree.inodes.len()];
    let mut todo = vec![Tree::ROOT];
    while let Some(children) = todo.pop().and_then(|directory| tree.children(directory)) {
        for id in children.values() {
            names[id.0 as usize] += 1;
            todo.extend(Some(*id).filter(|id| tree.children(*id).is_some()));
        }
    }
    names
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
