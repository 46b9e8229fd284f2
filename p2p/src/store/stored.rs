//! The pieces of one task.

use std::{
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Kept, StoreError, files::Files, lock};
use crate::{NodeId, PieceBitmap, PieceIndex, PieceLayout, TaskId};
use bytes::Bytes;

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

impl Stored {
    pub(super) fn new(files: Files) -> Self {
        Self { files: Arc::new(files), used: AtomicU64::new(0) }
    }

    /// The task's name.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.files.meta.task
    }

    /// How it is cut.
    #[must_use]
    pub fn layout(&self) -> &PieceLayout {
        &self.files.meta.layout
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

    /// Whether any of these pieces is neither here nor being written.
    #[must_use]
    pub fn lacks(&self, pieces: &PieceBitmap) -> bool {
        let state = lock(&self.files.state);
        pieces.iter().any(|piece| state.lacks(piece))
    }

    /// Reads a piece as [`Self::read`] does. One that cannot be read is taken away, so that it can come again.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_or_lose(&self, piece: PieceIndex) -> Result<Bytes, StoreError> {
        let read = self.read(piece);
        if let Err(StoreError::File { .. }) = read
            && let Err(error) = self.files.forget(piece)
        {
            tracing::warn!(piece = piece.get(), "{}", crate::error::in_one_line(&error));
        }
        read
    }

    /// Bytes of the pieces that `range` touches and that are not here.
    pub(super) fn missing(&self, range: Range<u64>) -> u64 {
        let (state, layout) = (lock(&self.files.state), &self.files.meta.layout);
        let missing = layout.touched(range).filter(|piece| !state.holds(*piece));
        missing.map(|piece| u64::from(layout.piece_len(piece))).sum()
    }

    /// Fills `buf` with the bytes at `offset`, from pieces of whatever standing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where one of them is not there, [`StoreError::File`] where one cannot be read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        let mut taken = self.all_there(&range)?;
        loop {
            self.files.data.read_exact_at(buf, offset).map_err(|error| self.files.failed("read", error))?;
            let before = std::mem::replace(&mut taken, self.all_there(&range)?);
            if before == taken {
                break;
            }
            // A piece was taken away meanwhile: one that was read half may be there again, and be another.
        }
        self.touch(SystemTime::now());
        Ok(())
    }

    /// How often a piece was taken away so far, if all that the range touches are there.
    fn all_there(&self, range: &Range<u64>) -> Result<u64, StoreError> {
        let state = lock(&self.files.state);
        let missing = self.files.meta.layout.touched(range.clone()).find(|piece| !state.holds(*piece));
        missing.map_or(Ok(state.taken), |piece| Err(StoreError::Missing(piece.get())))
    }

    /// Bytes of the pieces that are there, and of those that are being written.
    pub(super) fn room(&self) -> (u64, u64) {
        let state = lock(&self.files.state);
        (state.bytes, state.reserved)
    }

    pub(super) const fn files(&self) -> &Arc<Files> {
        &self.files
    }

    pub(super) fn touch(&self, now: SystemTime) {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.used.fetch_max(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }
}
