//! One node at work: the pure decisions of [`peer`](crate::peer) and [`owner`](crate::owner), joined to the network, the
//! disk and the origin.
//!
//! One task, the actor, owns all state and never waits for anything but the next event. What takes time (reading and
//! writing pieces, checking them, fetching them from the origin) it spawns, and hears of the end as an event.

mod actor;
mod check;
mod life;
mod messages;
mod origin;
mod owned;
mod plain;
mod supply;
mod swarm;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod upload;
mod wire;
mod yielding;

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use origin::{Origin, OriginError};
use supply::FromOrigin;
pub use supply::Supply;

use crate::{
    ChunkList, Claim, NodeId, P2pError, PieceIndex, PieceLayout, PieceList, Priority, TaskId, Vouch,
    membership::Told,
    metrics::Metrics,
    peer::Hold,
    rate::Limits,
    store::{Store, Stored},
    transport::{Event, Transport},
};

/// Times that a read begins, as long as it finds pieces gone.
const READS: usize = 3;
/// Commands that wait.
const COMMANDS: usize = 256;

/// The members of the cluster and where they are, this node left out or not.
pub type Members = BTreeMap<NodeId, SocketAddr>;

/// What an engine works with.
#[derive(Debug)]
pub struct Parts {
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// What comes of it.
    pub events: mpsc::Receiver<Event>,
    /// The disk.
    pub store: Arc<Store>,
    /// Who is alive.
    pub members: watch::Receiver<Arc<Members>>,
    /// Takes the lists of members that others send.
    pub told: mpsc::Sender<Told>,
    /// How fast pieces may go and come.
    pub limits: Limits,
    /// How far what nobody waits for makes room for the host's own work.
    pub host: watch::Receiver<Hold>,
    /// Counts what comes and goes.
    pub metrics: Metrics,
    /// Decides what is left to chance.
    pub seed: u64,
}

/// What is shared: a blob, and what makes its pieces good ones.
#[derive(Debug, Clone)]
pub enum Content {
    /// Each piece is known beforehand.
    Listed {
        /// SHA-256 of the blob.
        blob: [u8; 32],
        /// Digests of its pieces.
        list: Arc<PieceList>,
    },
    /// Each chunk in the pieces is known beforehand.
    Chunks {
        /// SHA-256 of the blob.
        blob: [u8; 32],
        /// Its chunks.
        list: Arc<ChunkList>,
    },
    /// Only the whole is known: pieces are provisional until all of them are there and were checked together.
    Whole {
        /// SHA-256 of the blob.
        blob: [u8; 32],
        /// How it is cut.
        layout: PieceLayout,
    },
    /// Not even that: what the origin sends is right, and so is what another node says that it sent. Only for origins
    /// that somebody has chosen to share so.
    Unsaid {
        /// The origin's address, and which version of what is there.
        name: Arc<str>,
        /// How it is cut.
        layout: PieceLayout,
    },
}

impl Content {
    /// The task of this content.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.with_vouch(TaskId::of)
    }

    /// How it is cut.
    #[must_use]
    pub fn layout(&self) -> &PieceLayout {
        match self {
            Self::Listed { list, .. } => list.layout(),
            Self::Chunks { list, .. } => list.layout(),
            Self::Whole { layout, .. } | Self::Unsaid { layout, .. } => layout,
        }
    }

    fn with_vouch<T>(&self, use_it: impl FnOnce(Vouch<'_>) -> T) -> T {
        match self {
            Self::Listed { blob, list } => use_it(Vouch::List { blob, list: &list.digest() }),
            Self::Chunks { blob, list } => use_it(Vouch::Chunks { blob, list: list.digest() }),
            Self::Whole { blob, .. } => use_it(Vouch::Whole { blob }),
            Self::Unsaid { name, .. } => use_it(Vouch::Url(name)),
        }
    }
}

/// When pieces that are wanted are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// They were checked, if need be together with all others.
    Checked,
    /// They are here, checked or not.
    Here,
}

enum Command {
    Open {
        content: Content,
        stored: Arc<Stored>,
        /// Of what is here of a blob without a list.
        claims: Vec<Claim>,
        origin: Arc<dyn Origin>,
        opened: oneshot::Sender<Arc<Held>>,
    },
    Want {
        task: TaskId,
        pieces: Vec<PieceIndex>,
        priority: Priority,
        until: Until,
        done: oneshot::Sender<Result<(), P2pError>>,
    },
    Doubt {
        task: TaskId,
        pieces: Vec<PieceIndex>,
        done: oneshot::Sender<()>,
    },
    /// Somebody found a piece gone.
    Lost {
        task: TaskId,
    },
}

/// A node at work. Dropping it ends it; [`Self::stop`] waits until it has.
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    me: NodeId,
    store: Arc<Store>,
    stop: CancellationToken,
    actor: Option<JoinHandle<()>>,
}

/// As long as somebody has it, the node takes part in a task.
#[derive(Debug)]
struct Held {
    from_origin: Arc<FromOrigin>,
}

/// A blob that the node takes part in, until a moment after the last of these is gone.
#[derive(Debug, Clone)]
pub struct Blob {
    held: Arc<Held>,
    task: TaskId,
    stored: Arc<Stored>,
    commands: mpsc::Sender<Command>,
}

impl Engine {
    /// Starts to work.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS);
        let (stop, store, me) = (CancellationToken::new(), Arc::clone(&parts.store), parts.transport.id());
        let actor = tokio::spawn(actor::Actor::new(parts).run(received, stop.clone()));
        Self { commands, me, store, stop, actor: Some(actor) }
    }

    /// Takes part in the swarm of a blob, whose pieces come from `origin` where no node has them.
    ///
    /// # Errors
    /// [`P2pError`] where its pieces cannot be kept, or the engine stops.
    pub async fn open(&self, content: Content, origin: Arc<dyn Origin>) -> Result<Blob, P2pError> {
        let task = content.task();
        let (store, opening, me) = (Arc::clone(&self.store), content.clone(), self.me);
        let stored = tokio::task::spawn_blocking(move || {
            let stored = opening.with_vouch(|vouch| store.task(vouch, opening.layout().clone()))?;
            let claims = plain::claims_of(me, &opening, &stored);
            Ok((stored, claims))
        });
        let stored = stored.await.map_err(|_| P2pError::Stopping)?;
        let (stored, claims) = stored.map_err(|source| P2pError::Store { task, source: Arc::new(source) })?;
        let (opened, is_open) = oneshot::channel();
        let command = Command::Open { content, stored: Arc::clone(&stored), claims, origin, opened };
        self.commands.send(command).await.map_err(|_| P2pError::Stopping)?;
        let held = is_open.await.map_err(|_| P2pError::Stopping)?;
        Ok(Blob { held, task, stored, commands: self.commands.clone() })
    }

    /// Whether what is not here of a range of a blob can be kept: what cannot had better not be begun.
    ///
    /// # Errors
    /// [`P2pError::Store`] where it cannot.
    pub async fn fits(&self, blob: &Blob, range: Range<u64>) -> Result<(), P2pError> {
        let (store, stored, task) = (Arc::clone(&self.store), Arc::clone(&blob.stored), blob.task);
        let fits = tokio::task::spawn_blocking(move || store.fits(&stored, range));
        let fits = fits.await.map_err(|_| P2pError::Stopping)?;
        fits.map_err(|source| P2pError::Store { task, source: Arc::new(source) })
    }

    /// The disk.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Ends the work, and returns when it has ended.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let Some(actor) = self.actor.take() else { return };
        if let Err(error) = actor.await {
            tracing::error!("the engine has ended badly: {error}");
        }
    }
}

impl Blob {
    /// How it is cut.
    #[must_use]
    pub fn layout(&self) -> &PieceLayout {
        self.stored.layout()
    }

    /// Which task it is.
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.task
    }

    /// How many of its pieces are here.
    #[must_use]
    pub fn here(&self) -> u32 {
        self.stored.good().held()
    }

    /// Whether all of it is here and right.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.here() == self.layout().count().get()
    }

    /// Numbers of its pieces that are here, in order.
    #[must_use]
    pub fn pieces_here(&self) -> Vec<u32> {
        self.stored.good().iter().map(PieceIndex::get).collect()
    }

    /// Pieces that `range` touches and that are not here.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Vec<PieceIndex> {
        self.layout().touched(range).filter(|piece| self.stored.standing(*piece).is_none()).collect()
    }

    /// Where a read had its bytes from before which these pieces were missing. Those that were here count for nothing
    /// where others had to come.
    #[must_use]
    pub fn supply(&self, missed: &[PieceIndex]) -> Supply {
        self.held.from_origin.supply(missed)
    }

    /// Returns when all pieces that `range` touches are here and checked. Of a blob without a list that takes all of it.
    ///
    /// # Errors
    /// [`P2pError`] where they cannot be had. There is no deadline: that is the caller's.
    pub async fn fetch(&self, range: Range<u64>, priority: Priority) -> Result<(), P2pError> {
        self.want(range, priority, Until::Checked).await
    }

    async fn want(&self, range: Range<u64>, priority: Priority, until: Until) -> Result<(), P2pError> {
        let layout = self.layout();
        if range.end > layout.len() {
            return Err(P2pError::Range { end: range.end, len: layout.len() });
        }
        let (done, is_done) = oneshot::channel();
        let pieces = layout.touched(range).collect();
        let command = Command::Want { task: self.task, pieces, priority, until, done };
        self.commands.send(command).await.map_err(|_| P2pError::Stopping)?;
        is_done.await.map_err(|_| P2pError::Stopping)?
    }

    /// Bytes of the blob, fetched where they are not here.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn read(&self, range: Range<u64>, priority: Priority) -> Result<Bytes, P2pError> {
        self.read_when(range, priority, Until::Checked).await
    }

    /// Bytes of the blob, fetched where they are not here, checked or not. Those of a blob without a list may be wrong:
    /// who uses this hashes the whole and calls nothing good before its digest is right.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn read_unchecked(&self, range: Range<u64>, priority: Priority) -> Result<Bytes, P2pError> {
        self.read_when(range, priority, Until::Here).await
    }

    /// Reads, and fetches again what the disk has lost meanwhile.
    async fn read_when(
        &self,
        range: Range<u64>,
        priority: Priority,
        until: Until,
    ) -> Result<Bytes, P2pError> {
        for _ in 1..READS {
            self.want(range.clone(), priority, until).await?;
            match self.read_here(range.clone()).await {
                Err(P2pError::Store { .. }) => self.lost(range.clone()).await?,
                read => return read,
            }
        }
        self.want(range.clone(), priority, until).await?;
        self.read_here(range).await
    }

    /// A range cannot be read: what of it is lost is wanted as if it had never come.
    async fn lost(&self, range: Range<u64>) -> Result<(), P2pError> {
        let stored = Arc::clone(&self.stored);
        let losing = tokio::task::spawn_blocking(move || {
            // Each by itself: what can be read stays.
            stored.layout().touched(range).for_each(|piece| drop(stored.read_or_lose(piece)));
        });
        losing.await.map_err(|_| P2pError::Stopping)?;
        self.commands.send(Command::Lost { task: self.task }).await.map_err(|_| P2pError::Stopping)
    }

    /// What was read unchecked of `range` is wrong, says who read it. Its pieces come from the origin again, once, and who
    /// gave another one than the origin has is caught. Returns when that is done. Of what has been checked nothing is
    /// doubted.
    ///
    /// # Errors
    /// [`P2pError::Stopping`].
    pub async fn doubt(&self, range: Range<u64>) -> Result<(), P2pError> {
        let (done, is_done) = oneshot::channel();
        let pieces = self.layout().touched(range).collect();
        let command = Command::Doubt { task: self.task, pieces, done };
        self.commands.send(command).await.map_err(|_| P2pError::Stopping)?;
        is_done.await.map_err(|_| P2pError::Stopping)
    }

    async fn read_here(&self, range: Range<u64>) -> Result<Bytes, P2pError> {
        let stored = Arc::clone(&self.stored);
        let len = usize::try_from(range.end - range.start).expect("a blob's range fits this machine");
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; len];
            stored.read_at(&mut bytes, range.start).map(|()| bytes.into())
        });
        let task = self.task;
        let read = read.await.map_err(|_| P2pError::Stopping)?;
        read.map_err(|source| P2pError::Store { task, source: Arc::new(source) })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
