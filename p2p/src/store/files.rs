//! The files of one task, and what is known of their pieces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Mutex,
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    libc::off_t,
};

use super::{Standing, StoreError, lock, map::MapFile, meta::Meta};
use crate::{NodeId, PieceBitmap, PieceIndex};

/// What is made durable, whether anybody uses it or not.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) meta: Meta,
    pub(super) data: File,
    /// Locked before `state`, and held while bits become durable.
    map: Mutex<MapFile>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) good: PieceBitmap,
    pub(super) provisional: BTreeMap<PieceIndex, NodeId>,
    /// Being written, or taken away.
    busy: BTreeSet<PieceIndex>,
    /// Good, and not durable yet.
    pub(super) dirty: Vec<PieceIndex>,
    /// Bytes of what is good or provisional.
    pub(super) bytes: u64,
}

impl State {
    pub(super) fn holds(&self, piece: PieceIndex) -> bool {
        self.good.contains(piece) || self.provisional.contains_key(&piece)
    }
}

impl Files {
    /// Makes the files of a task in an empty directory, durable on return.
    pub(super) fn create(meta: Meta, directory: &Path) -> io::Result<Self> {
        let data = OpenOptions::new().read(true).write(true).create_new(true).open(directory.join("data"))?;
        data.set_len(meta.layout.len())?;
        data.sync_all()?;
        let map = MapFile::create(&directory.join("map"), meta.layout)?;
        meta.write(&directory.join("meta.json"))?;
        File::open(directory)?.sync_all()?;
        Ok(Self::new(meta, data, map, PieceBitmap::empty(meta.layout)))
    }

    /// Opens the files of a task.
    pub(super) fn open(meta: Meta, directory: &Path) -> io::Result<Self> {
        let data = OpenOptions::new().read(true).write(true).open(directory.join("data"))?;
        if data.metadata()?.len() != meta.layout.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (map, good) = MapFile::open(&directory.join("map"), meta.layout)?;
        Ok(Self::new(meta, data, map, good))
    }

    fn new(meta: Meta, data: File, map: MapFile, good: PieceBitmap) -> Self {
        let (provisional, busy, dirty) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let bytes = good.iter().map(|piece| u64::from(meta.layout.piece_len(piece))).sum();
        let state = Mutex::new(State { good, provisional, busy, dirty, bytes });
        Self { meta, data, map: Mutex::new(map), state }
    }

    /// Begins to write a piece; `None` where that is of no use, or somebody else is about it.
    pub(super) fn begin(
        &self,
        piece: PieceIndex,
        len: usize,
        standing: Standing,
    ) -> Result<Option<Place<'_>>, StoreError> {
        let expected = self.meta.layout.piece_len(piece);
        if len != expected as usize {
            return Err(StoreError::Length { found: len, expected });
        }
        let mut state = lock(&self.state);
        let held = state.provisional.contains_key(&piece);
        if state.good.contains(piece) || held && standing != Standing::Good || !state.busy.insert(piece) {
            return Ok(None);
        }
        Ok(Some(Place { files: self, piece, held }))
    }

    /// Makes provisional pieces good; says whether there were any.
    pub(super) fn confirm(&self) -> bool {
        let mut state = lock(&self.state);
        let confirmed: Vec<_> = std::mem::take(&mut state.provisional).into_keys().collect();
        confirmed.iter().for_each(|piece| _ = state.good.insert(*piece));
        state.dirty.extend(&confirmed);
        !confirmed.is_empty()
    }

    /// Takes a piece away, durably.
    pub(super) fn forget(&self, piece: PieceIndex) -> Result<(), StoreError> {
        let mut map = lock(&self.map);
        let mut state = lock(&self.state);
        // Whoever writes it stores it again.
        if state.busy.contains(&piece) || !state.holds(piece) {
            return Ok(());
        }
        state.dirty.retain(|dirty| *dirty != piece);
        state.provisional.remove(&piece);
        state.good.remove(piece);
        state.bytes -= self.len_of(piece);
        state.busy.insert(piece);
        drop(state);
        let _place = Place { files: self, piece, held: false };
        map.clear(piece).map_err(|error| self.failed("write the map", error))?;
        release(&self.data, &self.meta.layout.range(piece));
        Ok(())
    }

    /// Gives back to the disk what is not good, which nobody will know of; how many bytes are left.
    pub(super) fn release_unknown(&self) -> u64 {
        let (good, layout) = (lock(&self.state).good.clone(), self.meta.layout);
        let mut gap: Option<Range<u64>> = None;
        for piece in layout.pieces().filter(|piece| !good.contains(*piece)) {
            let range = layout.range(piece);
            gap = match gap.take() {
                Some(gap) if gap.end == range.start => Some(gap.start..range.end),
                Some(gap) => {
                    release(&self.data, &gap);
                    Some(range)
                }
                None => Some(range),
            };
        }
        if let Some(gap) = gap {
            release(&self.data, &gap);
        }
        good.iter().map(|piece| self.len_of(piece)).sum()
    }

    /// Makes good pieces durable, and then the bits that say so.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut map = lock(&self.map);
        let batch = std::mem::take(&mut lock(&self.state).dirty);
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.data.sync_data() {
            // What the kernel could not write it may have dropped.
            let mut state = lock(&self.state);
            for piece in batch {
                state.bytes -= if state.good.remove(piece) { self.len_of(piece) } else { 0 };
            }
            return Err(self.failed("sync", error));
        }
        map.set(&batch).map_err(|error| self.failed("write the map", error))
    }

    fn len_of(&self, piece: PieceIndex) -> u64 {
        u64::from(self.meta.layout.piece_len(piece))
    }

    pub(super) fn failed(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::File { task: self.meta.task, what, source }
    }
}

/// A piece that is being written; dropping it ends that.
#[derive(Debug)]
pub(super) struct Place<'a> {
    files: &'a Files,
    piece: PieceIndex,
    /// Whether it is there already.
    held: bool,
}

impl Place<'_> {
    /// How much room it needs.
    pub(super) fn more(&self) -> u64 {
        if self.held { 0 } else { self.files.len_of(self.piece) }
    }

    pub(super) fn write(self, bytes: &[u8], standing: Standing) -> Result<(), StoreError> {
        let (files, piece) = (self.files, self.piece);
        let offset = files.meta.layout.range(piece).start;
        files.data.write_all_at(bytes, offset).map_err(|error| files.failed("write", error))?;
        let mut state = lock(&files.state);
        state.bytes += self.more();
        match standing {
            Standing::Good => {
                state.provisional.remove(&piece);
                state.good.insert(piece);
                state.dirty.push(piece);
            }
            Standing::Provisional(node) => _ = state.provisional.insert(piece, node),
        }
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.files.state).busy.remove(&self.piece);
    }
}

/// Gives a range back to the disk. A file system that cannot do that keeps it until the task goes.
fn release(data: &File, range: &Range<u64>) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let (Ok(start), Ok(len)) = (off_t::try_from(range.start), off_t::try_from(range.end - range.start))
        && let Err(error) = fallocate(data, flags, start, len)
    {
        tracing::debug!(%error, "cannot give back the room of a piece");
    }
}
