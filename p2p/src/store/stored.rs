//! The pieces of one task.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use nix::{
    fcntl::{FallocateFlags, fallocate},
    libc::off_t,
};

use super::{Kept, StoreError, lock, map::MapFile, meta::Meta};
use crate::{NodeId, PieceBitmap, PieceIndex, PieceLayout, TaskId};

/// How far a piece is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was checked.
    Good,
    /// It cannot be checked yet; this node has fetched it.
    Provisional(NodeId),
}

/// A task in use. As long as it is, its pieces stay.
#[derive(Debug)]
pub struct Stored {
    files: Arc<Files>,
    /// When it was last used, as milliseconds of the epoch.
    used: AtomicU64,
}

/// What is made durable, whether anybody uses it or not.
#[derive(Debug)]
pub(super) struct Files {
    meta: Meta,
    data: File,
    /// Locked before `state`, and held while bits become durable.
    map: Mutex<MapFile>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    good: PieceBitmap,
    provisional: BTreeMap<PieceIndex, NodeId>,
    /// Being written.
    busy: BTreeSet<PieceIndex>,
    /// Good, and not durable yet.
    dirty: Vec<PieceIndex>,
    /// Bytes of what is good or provisional.
    bytes: u64,
}

impl State {
    fn holds(&self, piece: PieceIndex) -> bool {
        self.good.contains(piece) || self.provisional.contains_key(&piece)
    }
}

impl Files {
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

    fn failed(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::File { task: self.meta.task, what, source }
    }
}

impl Stored {
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
        let files = Arc::new(Files { meta, data, map: Mutex::new(map), state });
        Self { files, used: AtomicU64::new(0) }
    }

    /// The task's name.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.files.meta.task
    }

    /// How it is cut.
    #[must_use]
    pub fn layout(&self) -> PieceLayout {
        self.files.meta.layout
    }

    /// What vouches for its pieces.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.files.meta.kept
    }

    /// The pieces that are good.
    #[must_use]
    pub fn good(&self) -> PieceBitmap {
        lock(&self.files.state).good.clone()
    }

    /// The pieces that are provisional, and who fetched them.
    #[must_use]
    pub fn provisional(&self) -> Vec<(PieceIndex, NodeId)> {
        lock(&self.files.state).provisional.iter().map(|(piece, node)| (*piece, *node)).collect()
    }

    /// How far a piece is believed; `None` where it is not there.
    #[must_use]
    pub fn standing(&self, piece: PieceIndex) -> Option<Standing> {
        let state = lock(&self.files.state);
        if state.good.contains(piece) {
            return Some(Standing::Good);
        }
        state.provisional.get(&piece).map(|node| Standing::Provisional(*node))
    }

    /// Bytes of the pieces that are there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        lock(&self.files.state).bytes
    }

    /// Reads a piece, whatever its standing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where it is not there, [`StoreError::File`] where it cannot be read.
    pub fn read(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; self.files.meta.layout.piece_len(piece) as usize];
        self.read_at(&mut bytes, self.files.meta.layout.range(piece).start)?;
        Ok(bytes.into())
    }

    /// Fills `buf` with the bytes at `offset`, from pieces of whatever standing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where one of them is not there, [`StoreError::File`] where one cannot be read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.all_there(&range)?;
        self.files.data.read_exact_at(buf, offset).map_err(|error| self.files.failed("read", error))?;
        // One that was taken away meanwhile may have been read half.
        self.all_there(&range)?;
        self.touch(SystemTime::now());
        Ok(())
    }

    fn all_there(&self, range: &Range<u64>) -> Result<(), StoreError> {
        let state = lock(&self.files.state);
        let missing = self.files.meta.layout.touched(range.clone()).find(|piece| !state.holds(*piece));
        missing.map_or(Ok(()), |piece| Err(StoreError::Missing(piece.get())))
    }

    /// Begins to write a piece; `None` where that is of no use, or somebody else is about it.
    pub(super) fn begin(
        &self,
        piece: PieceIndex,
        len: usize,
        standing: Standing,
    ) -> Result<Option<Place<'_>>, StoreError> {
        let expected = self.files.meta.layout.piece_len(piece);
        if len != expected as usize {
            return Err(StoreError::Length { found: len, expected });
        }
        let mut state = lock(&self.files.state);
        let held = state.provisional.contains_key(&piece);
        if state.good.contains(piece) || held && standing != Standing::Good || !state.busy.insert(piece) {
            return Ok(None);
        }
        Ok(Some(Place { stored: self, piece, held }))
    }

    /// Makes provisional pieces good; says whether there were any.
    pub(super) fn confirm(&self) -> bool {
        let mut state = lock(&self.files.state);
        let confirmed: Vec<_> = std::mem::take(&mut state.provisional).into_keys().collect();
        confirmed.iter().for_each(|piece| _ = state.good.insert(*piece));
        state.dirty.extend(&confirmed);
        !confirmed.is_empty()
    }

    /// Takes a piece away, durably.
    pub(super) fn forget(&self, piece: PieceIndex) -> Result<(), StoreError> {
        let mut map = lock(&self.files.map);
        let mut state = lock(&self.files.state);
        // Whoever writes it stores it again.
        if state.busy.contains(&piece) || !state.holds(piece) {
            return Ok(());
        }
        state.dirty.retain(|dirty| *dirty != piece);
        state.provisional.remove(&piece);
        state.good.remove(piece);
        state.bytes -= self.files.len_of(piece);
        state.busy.insert(piece);
        drop(state);
        let _place = Place { stored: self, piece, held: false };
        map.clear(piece).map_err(|error| self.files.failed("write the map", error))?;
        release(&self.files.data, &self.files.meta.layout.range(piece));
        Ok(())
    }

    pub(super) const fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Whether there is nothing to flush.
    pub(super) fn is_clean(&self) -> bool {
        lock(&self.files.state).dirty.is_empty()
    }

    /// Gives back to the disk what is not good, which nobody will know of; how many bytes are left.
    pub(super) fn release_unknown(&self) -> u64 {
        let (good, layout) = (lock(&self.files.state).good.clone(), self.files.meta.layout);
        let mut gap: Option<Range<u64>> = None;
        for piece in layout.pieces().filter(|piece| !good.contains(*piece)) {
            let range = layout.range(piece);
            gap = match gap.take() {
                Some(gap) if gap.end == range.start => Some(gap.start..range.end),
                Some(gap) => {
                    release(&self.files.data, &gap);
                    Some(range)
                }
                None => Some(range),
            };
        }
        if let Some(gap) = gap {
            release(&self.files.data, &gap);
        }
        good.iter().map(|piece| self.files.len_of(piece)).sum()
    }

    pub(super) fn touch(&self, now: SystemTime) {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.used.fetch_max(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }
}

/// A piece that is being written; dropping it ends that.
#[derive(Debug)]
pub(super) struct Place<'a> {
    stored: &'a Stored,
    piece: PieceIndex,
    /// Whether it is there already.
    held: bool,
}

impl Place<'_> {
    /// How much room it needs.
    pub(super) fn more(&self) -> u64 {
        if self.held { 0 } else { self.stored.files.len_of(self.piece) }
    }

    pub(super) fn write(self, bytes: &[u8], standing: Standing) -> Result<(), StoreError> {
        let (stored, piece) = (self.stored, self.piece);
        let offset = stored.files.meta.layout.range(piece).start;
        stored.files.data.write_all_at(bytes, offset).map_err(|error| stored.files.failed("write", error))?;
        let mut state = lock(&stored.files.state);
        state.bytes += self.more();
        match standing {
            Standing::Good => {
                state.provisional.remove(&piece);
                state.good.insert(piece);
                state.dirty.push(piece);
            }
            Standing::Provisional(node) => _ = state.provisional.insert(piece, node),
        }
        drop(state);
        stored.touch(SystemTime::now());
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.stored.files.state).busy.remove(&self.piece);
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

/// When a task that is not open was last used: kept as the time of its meta file.
pub(super) fn last_used(directory: &Path) -> SystemTime {
    let modified = fs::metadata(directory.join("meta.json")).and_then(|meta| meta.modified());
    modified.unwrap_or(UNIX_EPOCH)
}

pub(super) fn set_last_used(directory: &Path, used: SystemTime) {
    let set = File::options().write(true).open(directory.join("meta.json"));
    if let Err(error) = set.and_then(|file| file.set_modified(used)) {
        tracing::debug!(%error, "cannot note when a task was used");
    }
}
