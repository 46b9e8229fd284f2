//! Blobs without a list: the word for their pieces, and the check of the whole.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ring::digest::{Context, SHA256};
use tokio::sync::oneshot;

use super::{
    Content, Origin,
    actor::{Actor, Done},
    wire,
};
use crate::{
    Claim, NodeId, P2pError, PieceIndex, Priority, TaskId,
    metrics::{Fate, From},
    peer::{Next, Source},
    store::{Store, StoreError, Stored},
};

/// Pieces that come from the origin again at a time.
const AGAIN: usize = 4;
/// Claims in one message.
const CLAIMS: usize = 1024;

/// This node's word for pieces that it has from an earlier process: all of them are good. What cannot be read is lost.
pub(super) fn claims_of(me: NodeId, content: &Content, stored: &Stored) -> Vec<Claim> {
    if let Content::Listed { .. } | Content::Chunks { .. } = content {
        return Vec::new();
    }
    let claim = |piece| {
        let digest = *blake3::hash(&stored.read_or_lose(piece).ok()?).as_bytes();
        Some(Claim { piece, digest, fetcher: me })
    };
    stored.good().iter().filter_map(claim).collect()
}

fn is_right(blob: &[u8; 32], stored: &Stored) -> Result<bool, StoreError> {
    let mut hash = Context::new(&SHA256);
    for piece in stored.layout().pieces() {
        hash.update(&stored.read_or_lose(piece)?);
    }
    Ok(hash.finish().as_ref() == blob)
}

/// Has a piece from the origin again, and keeps it where it differs from `digest`; says what it is.
async fn fetch_again(
    (me, store): (NodeId, Arc<Store>),
    (origin, stored): (Arc<dyn Origin>, Arc<Stored>),
    (piece, digest): (PieceIndex, Option<[u8; 32]>),
) -> Result<(PieceIndex, [u8; 32]), String> {
    let fetched = origin.fetch(stored.layout().range(piece), Priority::Trace).await;
    let bytes = fetched.map_err(|error| crate::error::in_one_line(&error))?;
    let kept = tokio::task::spawn_blocking(move || {
        let found = *blake3::hash(&bytes).as_bytes();
        if Some(found) != digest {
            store.replace(&stored, piece, &bytes, me)?;
        }
        Ok((piece, found))
    });
    let kept = kept.await.map_err(|error| error.to_string())?;
    kept.map_err(|error: StoreError| crate::error::in_one_line(&error))
}

impl Actor {
    /// Tells the owner of a task what pieces are.
    pub(super) fn claim(&mut self, task: TaskId, claims: Vec<Claim>) {
        let Some(owner) = self.swarms.get(&task).and_then(|swarm| swarm.owner) else { return };
        for claims in claims.chunks(CLAIMS) {
            let body = wire::claims(task, claims);
            if owner == self.me {
                self.tell_owned(owner, body);
            } else {
                self.say(owner, body);
            }
        }
    }

    /// Tells a new owner all that is known of what is here.
    pub(super) fn claim_all(&mut self, task: TaskId) {
        let kept = self.swarms.get(&task).map(|swarm| swarm.provisional.kept());
        self.claim(task, kept.unwrap_or_default());
    }

    /// The owner says what pieces are.
    pub(super) fn claims_told(&mut self, task: TaskId, claims: &[Claim]) {
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        for (piece, from, bytes) in swarm.provisional.claimed(claims) {
            self.check(task, piece, Source::Node(from), bytes);
        }
    }

    /// Hashes a blob whose pieces are all here.
    pub(super) fn check_whole(&mut self, task: TaskId) {
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        if swarm.is_whole() && swarm.provisional.begins_check(swarm.task.have()) {
            self.hash_whole(task);
        }
    }

    fn hash_whole(&mut self, task: TaskId) {
        let Some(swarm) = self.swarms.get(&task) else { return };
        let Content::Whole { blob, .. } = swarm.content else { return };
        let (stored, losses) = (Arc::clone(&swarm.stored), swarm.provisional.losses());
        self.work.spawn_blocking(move || Done::Hashed(task, losses, is_right(&blob, &stored)));
    }

    /// The whole was hashed, when pieces had been lost so often.
    pub(super) fn hashed(&mut self, task: TaskId, losses: u64, outcome: Result<bool, StoreError>) {
        let swarm = self.swarms.get_mut(&task).filter(|swarm| swarm.provisional.losses() == losses);
        let Some(swarm) = swarm else { return };
        let right = match outcome {
            Ok(right) => right,
            Err(error) => {
                tracing::warn!(%task, "a blob cannot be read: {}", crate::error::in_one_line(&error));
                return self.begin_again(task);
            }
        };
        match swarm.provisional.hashed(self.me, right) {
            Next::Confirm => {
                self.store.confirm(&swarm.stored);
                swarm.confirmed();
            }
            Next::FetchAgain(pieces) => {
                tracing::warn!(%task, pieces = pieces.len(), "a blob is wrong: pieces are fetched again");
                self.fetch_again(task, pieces, None);
            }
            Next::GiveUp => {
                swarm.fail(&P2pError::Whole { task });
                self.start_over(task);
            }
        }
    }

    /// A reader says that pieces are wrong. One that nobody has checked yet comes from the origin again.
    pub(super) fn doubt(&mut self, task: TaskId, pieces: &[PieceIndex], done: oneshot::Sender<()>) {
        let swarm = self.swarms.get_mut(&task).filter(|swarm| swarm.is_whole());
        let doubted = swarm.map(|swarm| swarm.provisional.doubted(pieces)).unwrap_or_default();
        if doubted.is_empty() {
            // Who does not wait any more needs no answer.
            done.send(()).ok();
        } else {
            tracing::warn!(%task, pieces = doubted.len(), "a reader doubts pieces: they are fetched again");
            self.fetch_again(task, doubted, Some(done));
        }
    }

    fn fetch_again(&mut self, task: TaskId, pieces: Vec<PieceIndex>, doubter: Option<oneshot::Sender<()>>) {
        let Some(swarm) = self.swarms.get(&task) else { return };
        let (me, store) = (self.me, Arc::clone(&self.store));
        let (origin, stored) = (Arc::clone(&swarm.origin), Arc::clone(&swarm.stored));
        let digests: Vec<_> =
            pieces.into_iter().map(|piece| (piece, swarm.provisional.digest(piece))).collect();
        self.work.spawn(async move {
            let fetches = digests.into_iter().map(|piece| {
                fetch_again((me, Arc::clone(&store)), (Arc::clone(&origin), Arc::clone(&stored)), piece)
            });
            let fetched = stream::iter(fetches).buffer_unordered(AGAIN).try_collect().await;
            Done::FetchedAgain(task, fetched, doubter)
        });
    }

    pub(super) fn fetched_again(
        &mut self,
        task: TaskId,
        outcome: Result<Vec<(PieceIndex, [u8; 32])>, String>,
    ) {
        let (now, me) = (self.now(), self.me);
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        let is_open = swarm.provisional.is_open();
        if is_open {
            swarm.provisional.doubt_ended();
        }
        let fetched = match outcome {
            Ok(fetched) => fetched,
            Err(reason) if is_open => {
                tracing::info!(%task, reason, "doubted pieces were not fetched again");
                swarm.provisional.not_fetched_again();
                return self.check_whole(task);
            }
            Err(reason) => {
                let piece = swarm.layout().piece(0).expect("a blob that is fetched again has pieces");
                swarm.fail(&P2pError::Origin { task, piece, reason });
                return self.start_over(task);
            }
        };
        let mut corrected = Vec::new();
        for (piece, digest) in fetched {
            let liar = swarm.provisional.fetched_again(me, piece, digest);
            let fate = if liar.is_some() { Fate::Kept } else { Fate::Unwanted };
            self.metrics.piece(From::Origin, fate, swarm.layout().piece_len(piece).into());
            let Some(liar) = liar else { continue };
            tracing::warn!(%task, piece = piece.get(), node = %liar, "the origin has another piece than this node said");
            if liar != me {
                swarm.task.lied(now, liar);
                self.metrics.strike();
            }
            corrected.push(Claim { piece, digest, fetcher: me });
        }
        self.claim(task, corrected);
        if is_open {
            self.check_whole(task);
        } else {
            self.hash_whole(task);
        }
    }

    /// Forgets all pieces of a blob that cannot be made right, and takes part anew.
    fn start_over(&mut self, task: TaskId) {
        let seed = self.random.u64(..);
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        for piece in swarm.layout().pieces() {
            if let Err(error) = self.store.forget(&swarm.stored, piece) {
                tracing::warn!(%task, piece = piece.get(), "{}", crate::error::in_one_line(&error));
            }
        }
        let parted = swarm.start_over(seed);
        self.part_from(task, parted);
        self.find_owner(task);
    }
}
