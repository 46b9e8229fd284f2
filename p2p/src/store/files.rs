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
    /// Taken away, but the disk may say still that they are good: nothing is written there before it does not.
    unclear: BTreeSet<PieceIndex>,
    /// Good, and not durable yet.
    pub(super) dirty: Vec<PieceIndex>,
    /// Bytes of what is good or provisional.
    pub(super) bytes: u64,
    /// Bytes of what is being written. A piece is in one of both, never in both or none, so that the budget is exact.
    pub(super) reserved: u64,
    /// How often a piece was taken away: who reads meanwhile reads again.
    pub(super) taken: u64,
    /// How often the disk did not keep what was written: what is being written meanwhile is not believed either.
    failures: u64,
}

impl State {
    pub(super) fn holds(&self, piece: PieceIndex) -> bool {
        self.good.contains(piece) || self.provisional.contains_key(&piece)
    }

    /// Whether a piece is neither there nor about to be.
    pub(super) fn lacks(&self, piece: PieceIndex) -> bool {
        !self.holds(piece) && !self.busy.contains(&piece)
    }

    /// Takes a piece of so many bytes away, if it is there.
    fn take(&mut self, piece: PieceIndex, len: u64) {
        if self.good.remove(piece) | self.provisional.remove(&piece).is_some() {
            self.bytes -= len;
            self.taken += 1;
        }
    }
}

impl Files {
    /// Makes the files of a task in an empty directory, durable on return.
    pub(super) fn create(meta: Meta, directory: &Path) -> io::Result<Self> {
        let data = OpenOptions::new().read(true).write(true).create_new(true).open(directory.join("data"))?;
        data.set_len(meta.layout.len())?;
        data.sync_all()?;
        let map = MapFile::create(&directory.join("map"), meta.layout.count())?;
        meta.write(&directory.join("meta.json"))?;
        File::open(directory)?.sync_all()?;
        let none = PieceBitmap::empty(meta.layout.count());
        Ok(Self::new(meta, data, map, none))
    }

    /// Opens the files of a task.
    pub(super) fn open(meta: Meta, directory: &Path) -> io::Result<Self> {
        let data = OpenOptions::new().read(true).write(true).open(directory.join("data"))?;
        if data.metadata()?.len() != meta.layout.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (map, good) = MapFile::open(&directory.join("map"), meta.layout.count())?;
        Ok(Self::new(meta, data, map, good))
    }

    fn new(meta: Meta, data: File, map: MapFile, good: PieceBitmap) -> Self {
        let bytes = good.iter().map(|piece| u64::from(meta.layout.piece_len(piece))).sum();
        let state = State {
            good,
            provisional: BTreeMap::new(),
            busy: BTreeSet::new(),
            unclear: BTreeSet::new(),
            dirty: Vec::new(),
            bytes,
            reserved: 0,
            taken: 0,
            failures: 0,
        };
        Self { meta, data, map: Mutex::new(map), state: Mutex::new(state) }
    }

    /// Begins to write a piece; `None` where that is of no use, or somebody else is about it. A provisional one is in the
    /// way unless this one is to `replace` it: then it is gone, and its room is this one's.
    pub(super) fn begin(
        &self,
        piece: PieceIndex,
        len: usize,
        replace: bool,
    ) -> Result<Option<Place<'_>>, StoreError> {
        let expected = self.meta.layout.piece_len(piece);
        if len != expected as usize {
            return Err(StoreError::Length { found: len, expected });
        }
        let mut state = lock(&self.state);
        let held = state.provisional.contains_key(&piece);
        if state.good.contains(piece) || held && !replace || !state.busy.insert(piece) {
            return Ok(None);
        }
        let room = if held { u64::from(expected) } else { 0 };
        state.take(piece, room);
        state.reserved += room;
        Ok(Some(Place { files: self, piece, room }))
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
        state.take(piece, self.len_of(piece));
        state.busy.insert(piece);
        state.unclear.insert(piece);
        drop(state);
        let _place = Place { files: self, piece, room: 0 };
        self.clear(&mut map, piece)?;
        release(&self.data, &self.meta.layout.range(piece));
        Ok(())
    }

    /// Makes the disk forget a piece.
    fn clear(&self, map: &mut MapFile, piece: PieceIndex) -> Result<(), StoreError> {
        map.clear(piece).map_err(|error| self.failed("write the map", error))?;
        lock(&self.state).unclear.remove(&piece);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn map(&self) -> std::sync::MutexGuard<'_, MapFile> {
        lock(&self.map)
    }

    /// Whether everything is durable, and nobody is making it so.
    pub(super) fn is_settled(&self) -> bool {
        // Whoever flushes has this lock from before it takes what is dirty until the bits are on disk.
        self.map.try_lock().is_ok_and(|_map| lock(&self.state).dirty.is_empty())
    }

    /// Gives back to the disk what is not good, which nobody will know of; how many bytes are left.
    pub(super) fn release_unknown(&self) -> u64 {
        let (good, layout) = (lock(&self.state).good.clone(), &self.meta.layout);
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

    /// Makes good pieces durable, and then the bits that say so. Where the disk does not keep pieces they are taken away;
    /// where it keeps them and not their bits, the next flush tries again.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut map = lock(&self.map);
        let batch = std::mem::take(&mut lock(&self.state).dirty);
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.data.sync_data() {
            self.lose(batch);
            return Err(self.failed("sync", error));
        }
        map.set(&batch).map_err(|error| {
            lock(&self.state).dirty.extend(batch);
            self.failed("write the map", error)
        })
    }

    /// Takes away whatever is not durable. What the kernel could not write it may have dropped, and it says so once and
    /// not of which bytes: the next sync would call durable what is not.
    fn lose(&self, batch: Vec<PieceIndex>) {
        let mut state = lock(&self.state);
        state.failures += 1;
        let since = std::mem::take(&mut state.dirty);
        let provisional: Vec<_> = state.provisional.keys().copied().collect();
        for piece in batch.into_iter().chain(since).chain(provisional) {
            state.take(piece, self.len_of(piece));
        }
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
    /// Bytes that are reserved for it.
    room: u64,
}

impl Place<'_> {
    /// How much room it needs still.
    pub(super) fn more(&self) -> u64 {
        self.files.len_of(self.piece) - self.room
    }

    /// Takes the room that it needs.
    pub(super) fn reserve(&mut self) {
        let more = self.more();
        lock(&self.files.state).reserved += more;
        self.room += more;
    }

    /// Writes it, where it has its room.
    pub(super) fn write(self, bytes: &[u8], standing: Standing) -> Result<(), StoreError> {
        let before = self.put(bytes)?;
        self.end(before, standing)
    }

    /// Writes it; says how often the disk had failed before.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<u64, StoreError> {
        let (files, piece) = (self.files, self.piece);
        if lock(&files.state).unclear.contains(&piece) {
            files.clear(&mut lock(&files.map), piece)?;
        }
        let (range, before) = (files.meta.layout.range(piece), lock(&files.state).failures);
        if let Err(error) = files.data.write_all_at(bytes, range.start) {
            // Part of it may be there, and counts nowhere.
            release(&files.data, &range);
            return Err(files.failed("write", error));
        }
        Ok(before)
    }

    /// It is there from now on, unless the disk has failed since.
    pub(super) fn end(mut self, before: u64, standing: Standing) -> Result<(), StoreError> {
        let (files, piece) = (self.files, self.piece);
        let mut state = lock(&files.state);
        if state.failures > before {
            drop(state);
            return Err(StoreError::NotKept(files.meta.task));
        }
        let room = std::mem::take(&mut self.room);
        state.reserved -= room;
        state.bytes += room;
        match standing {
            Standing::Good => {
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
        let mut state = lock(&self.files.state);
        state.busy.remove(&self.piece);
        state.reserved -= self.room;
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
