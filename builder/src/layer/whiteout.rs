//! Names that a layer takes away.

use rafs::{Inode, InodeId, Kind, Meta, Tree};

use super::{LayerTree, OPAQUE, Position, WHITEOUT};

/// Whether a name in a layer's tree stands for something taken away. In directories that are there only for what is
/// below them, containerd lets such names be.
pub(crate) fn is_marker(tree: &Tree, name: &[u8], id: InodeId) -> bool {
    name.starts_with(WHITEOUT) && tree.children(id).is_none()
}

/// Whether the tree of a layer takes `name` in `directory` away from those below.
pub(super) fn takes_away(tree: &Tree, directory: InodeId, name: &[u8]) -> bool {
    let marker = [WHITEOUT, name].concat();
    let id = tree.children(directory).and_then(|children| children.get(&marker));
    id.is_some_and(|id| is_marker(tree, &marker, *id))
}

impl LayerTree<'_> {
    /// Takes away what marker `name` in `parent`, whose path is `at`, means.
    pub(super) fn white_out(&mut self, parent: InodeId, at: &[Vec<u8>], name: &[u8], meta: &Meta) {
        let hidden = name.strip_prefix(WHITEOUT).expect("markers begin so");
        match self.position {
            Position::Unknown => self.mark(parent, name, meta),
            // Nothing is below, so what was unpacked before goes.
            Position::Lowest if name == OPAQUE => self.remove_unclaimed(parent, &at.join(&b'/')),
            Position::Lowest => {
                self.children_mut(parent).remove(hidden);
            }
            // The kernel does not look for the mark at the root of a layer.
            Position::Above(_) if name == OPAQUE && parent == Tree::ROOT => {}
            Position::Above(_) if name == OPAQUE => self.mark(parent, name, meta),
            // containerd refuses a layer that brings a name and takes it away after that. Taken away is what is below.
            Position::Above(_) => match self.child(parent, hidden) {
                None => self.mark(parent, name, meta),
                Some(id) if self.tree.children(id).is_some() => self.mark(id, OPAQUE, meta),
                Some(_) => {}
            },
        }
    }

    /// Forgets that `name` was taken away, as it is brought again; gives whether it was.
    pub(super) fn forget_whiteout(&mut self, parent: InodeId, name: &[u8]) -> bool {
        let was = takes_away(&self.tree, parent, name);
        if was {
            self.children_mut(parent).remove(&[WHITEOUT, name].concat());
        }
        was
    }

    pub(super) fn mark(&mut self, parent: InodeId, name: &[u8], meta: &Meta) {
        if self.child(parent, name).is_some_and(|id| self.tree.children(id).is_some()) {
            return;
        }
        let kind = Kind::File { size: 0, chunks: Vec::new() };
        let meta = Meta { xattrs: Default::default(), ..meta.clone() };
        let id = self.tree.add(Inode { meta, kind });
        self.children_mut(parent).insert(name.to_vec(), id);
    }

    /// Removes all below a directory that no entry named; a directory that none named goes with all that is in it.
    fn remove_unclaimed(&mut self, directory: InodeId, path: &[u8]) {
        let mut todo = vec![(directory, path.to_vec())];
        while let (Some((directory, path)), Some(claimed)) = (todo.pop(), &self.claimed) {
            let Some(children) = self.tree.children_mut(directory) else { continue };
            let below = |name: &[u8]| match path.is_empty() {
                true => name.to_vec(),
                false => [path.as_slice(), name].join(&b'/'),
            };
            children.retain(|name, _| claimed.contains(&below(name)));
            todo.extend(children.iter().map(|(name, id)| (*id, below(name))));
        }
    }
}
