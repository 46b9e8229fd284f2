//! What a layer brought, in its order: where it lies in an image decides what becomes of it.

use rafs::{ChunkRef, Tree};

use super::{LayerTree, OPAQUE, Position, check, clean};
use crate::{
    BuildError,
    source::{Entry, EntryKind},
};

/// Entries of a layer, and the chunks of those that are files.
#[derive(Debug, Default)]
pub struct Entries {
    all: Vec<(Entry, Vec<ChunkRef>)>,
}

impl Entries {
    /// Takes an entry; gives its number.
    ///
    /// # Errors
    /// [`BuildError::Entry`] for one that leaves the root, or that no file system would take.
    pub(crate) fn push(&mut self, entry: Entry) -> Result<usize, BuildError> {
        check(&entry)?;
        self.all.push((entry, Vec::new()));
        Ok(self.all.len() - 1)
    }

    pub(crate) fn set_chunks(&mut self, number: usize, chunks: Vec<ChunkRef>) {
        self.all[number].1 = chunks;
    }

    /// The tree that they make at `position`.
    ///
    /// # Errors
    /// [`BuildError::Entry`] for one that no unpacker could place.
    pub fn unpack(&self, chunk_size: u32, position: Position<'_>) -> Result<Tree, BuildError> {
        let mut layer = LayerTree::new(chunk_size, position);
        let is_opaque = |entry: &Entry| clean(&entry.path).is_ok_and(|path| path.last() == Some(&OPAQUE));
        if matches!(position, Position::Lowest) && self.all.iter().any(|(entry, _)| is_opaque(entry)) {
            layer.claimed = Some(std::collections::HashSet::new());
        }
        for (entry, chunks) in &self.all {
            layer.add(entry, chunks)?;
        }
        for (entry, _) in self.all.iter().filter(|(entry, _)| entry.kind == EntryKind::Directory) {
            layer.set_time(entry);
        }
        Ok(layer.tree)
    }
}
