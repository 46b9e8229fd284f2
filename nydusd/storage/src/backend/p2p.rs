//! The piece network of this node first, the image's own backend where it has nothing to give.
//!
//! The network's daemon listens at a unix socket, whose calls stand in its `local` module. It is given the list of a
//! blob's pieces when the image is mounted, or before the first read, then asked for ranges. Whatever it does not do (it
//! is not there, does not answer in time, refuses, breaks off) is read from the image's own backend, from the byte on
//! where it broke off; after a while it is asked again. So it costs time at worst, never a read.
//!
//! An image of another builder has no list of pieces. Its daemon is given one of the chunks that the bootstrap names. Where
//! that cannot be, as with small chunks that are compressed together, the blob comes as it is, and what the digests of its
//! chunks show to be wrong is doubted before the network is asked again.

mod daemon;
mod lists;
mod stream;

use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use rafs::BlobId;
use registry::Credential;
use reqwest::Response;
use tokio::time::{Instant, timeout};

use self::{
    daemon::{Daemon, Name},
    lists::Lists,
    stream::{Reading, Rest},
};
use super::{Backend, BackendError, ByteStream, Priority, Supply, Via, Why};

/// Longest wait for the answer to begin.
const PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that does not answer is left alone for so long.
const AWAY: Duration = Duration::from_secs(5);
/// So is a blob that it will not serve.
const REFUSED: Duration = Duration::from_secs(60);
/// One of which it does not know yet whether it may, is asked for again after so long.
const SOON: Duration = Duration::from_millis(500);
/// So often it is asked when the image is mounted; reads ask after that.
const INTRODUCTIONS: u32 = 20;
/// Doubts that wait until the network is asked again; what is beyond them is found wrong again.
const DOUBTS: usize = 64;

/// A piece network before a backend.
#[derive(Debug)]
pub struct P2pBackend {
    daemon: Daemon,
    inner: Arc<dyn Backend>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    away: Option<Away>,
    blobs: HashMap<BlobId, Known>,
    /// What was wrong of blobs that only their reader can check.
    doubts: Vec<(BlobId, Range<u64>)>,
    /// One at a time makes a blob known.
    turns: HashMap<BlobId, Arc<tokio::sync::Mutex<()>>>,
}

/// A daemon that did not answer.
#[derive(Debug)]
struct Away {
    /// When it is asked again.
    until: Instant,
    cause: Arc<str>,
}

/// What is known of a blob.
#[derive(Debug, Clone)]
enum Known {
    /// The daemon knows it by this name.
    Named(Name),
    /// It does not serve it, until then at least.
    Refused(Instant, Why),
}

impl P2pBackend {
    /// The daemon at `socket` before `inner`, for blobs of `repository` and of the image whose bootstrap is the file
    /// `bootstrap`; the lists of their pieces are files `<blob>.pieces` beside it.
    ///
    /// Reads hand on `credential`, where the image has one of its own.
    ///
    /// # Errors
    /// [`io::Error`] where no client can be made.
    pub fn new(
        socket: &Path,
        repository: &str,
        bootstrap: &Path,
        credential: Option<&Credential>,
        inner: Arc<dyn Backend>,
    ) -> io::Result<Self> {
        let daemon = Daemon::new(socket, repository, Lists::of(bootstrap), credential)?;
        Ok(Self { daemon, inner, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the network is not asked for a blob now, if it is not.
    fn objection(&self, blob: &BlobId) -> Option<Why> {
        let (state, now) = (self.state(), Instant::now());
        match state.blobs.get(blob) {
            Some(Known::Refused(until, why)) if *until > now => return Some(why.clone()),
            _ => {}
        }
        let away = state.away.as_ref().filter(|away| away.until > now)?;
        Some(Why::Away(Arc::clone(&away.cause)))
    }

    /// The network's answer to a read, begun.
    async fn ask(&self, blob: &BlobId, range: &Range<u64>, priority: Priority) -> Result<Response, Why> {
        if let Some(why) = self.objection(blob) {
            return Err(why);
        }
        let asked = async {
            if let Some(answer) = self.get(blob, range, priority).await? {
                return Ok(answer);
            }
            // It has been started again.
            self.state().blobs.remove(blob);
            let again = self.get(blob, range, priority).await?;
            again.ok_or_else(|| Why::Failed("it forgets the blob's list".into()))
        };
        let answer = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()));
        answer.inspect(|_| self.is_back()).inspect_err(|why| self.note(blob, why))
    }

    /// `None`: the daemon does not know the blob any more.
    async fn get(
        &self,
        blob: &BlobId,
        range: &Range<u64>,
        priority: Priority,
    ) -> Result<Option<Response>, Why> {
        let name = self.introduce(blob).await?;
        for doubted in self.doubts(blob) {
            self.daemon.doubt(blob, &doubted).await?;
        }
        self.daemon.get(blob, &name, range, priority).await
    }

    /// Takes the doubts of a blob.
    fn doubts(&self, blob: &BlobId) -> Vec<Range<u64>> {
        self.state().doubts.extract_if(.., |(other, _)| other == blob).map(|(_, range)| range).collect()
    }

    /// Makes a blob known, once for all who want it; says how it is called.
    async fn introduce(&self, blob: &BlobId) -> Result<Name, Why> {
        let turn = Arc::clone(self.state().turns.entry(blob.clone()).or_default());
        let _turn = turn.lock().await;
        match self.state().blobs.get(blob) {
            Some(Known::Named(name)) => return Ok(name.clone()),
            // Somebody has asked just now.
            Some(Known::Refused(until, why)) if *until > Instant::now() => return Err(why.clone()),
            _ => {}
        }
        let introduced = self.daemon.introduce(blob).await;
        let known = match &introduced {
            Ok(name) => Known::Named(name.clone()),
            Err(why @ Why::NotYet) => Known::Refused(Instant::now() + SOON, why.clone()),
            Err(_) => return introduced,
        };
        self.state().blobs.insert(blob.clone(), known);
        introduced
    }

    /// Makes blobs known, as far as that goes.
    async fn introduce_all(&self, blobs: Vec<BlobId>) {
        for blob in blobs {
            for _ in 0..INTRODUCTIONS {
                let introduced = timeout(PATIENCE, self.introduce(&blob)).await;
                match introduced.unwrap_or_else(|_| Err(late())) {
                    Err(Why::NotYet) => tokio::time::sleep(SOON).await,
                    Err(why @ Why::Away(_)) => return self.note(&blob, &why),
                    Err(why) => {
                        self.note(&blob, &why);
                        break;
                    }
                    Ok(_) => break,
                }
            }
        }
    }

    /// Remembers why the network gave nothing.
    fn note(&self, blob: &BlobId, why: &Why) {
        let (mut state, now) = (self.state(), Instant::now());
        match why {
            Why::Away(cause) | Why::BrokeOff(cause) => {
                let socket = self.daemon.socket().display();
                let away = Away { until: now + AWAY, cause: Arc::clone(cause) };
                if state.away.replace(away).is_some() {
                    tracing::debug!("the piece network at {socket} is still away: {cause}");
                } else {
                    tracing::info!("the piece network at {socket} is asked again every {AWAY:?}: {cause}");
                }
            }
            Why::Refused(_) | Why::NoList(_) | Why::Distrusted => {
                state.blobs.insert(blob.clone(), Known::Refused(now + REFUSED, why.clone()));
                tracing::debug!(%blob, "{why}");
            }
            Why::Failed(_) => tracing::debug!(%blob, "{why}"),
            Why::NotYet => {}
        }
    }

    /// It has answered.
    fn is_back(&self) {
        let now = Instant::now();
        if self.state().away.take_if(|away| away.until <= now).is_some() {
            tracing::info!("the piece network at {} answers again", self.daemon.socket().display());
        }
    }
}

impl Backend for P2pBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
        via: Via,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            if range.is_empty() {
                return Arc::clone(&self.inner).read(blob, range, priority, via).await;
            }
            match self.ask(&blob, &range, priority).await {
                Ok(answer) => {
                    let said = answer.headers().get("x-shoal-source").and_then(|source| source.to_str().ok());
                    via.network(said.map_or(Supply::Untold, Supply::parse));
                    Ok(Reading::new(self, answer, Rest { blob, range, priority, via }).into_stream())
                }
                Err(why) => {
                    via.detour(range.start, why);
                    Arc::clone(&self.inner).read(blob, range, priority, via).await
                }
            }
        }
        .boxed()
    }

    fn prepare(self: Arc<Self>, blobs: Vec<BlobId>) -> BoxFuture<'static, ()> {
        async move { self.introduce_all(blobs).await }.boxed()
    }

    fn distrust(&self, blob: &BlobId, range: Range<u64>) -> bool {
        let known = self.state().blobs.get(blob).cloned();
        let served = matches!(known, Some(Known::Named(_)));
        if served {
            self.note(blob, &Why::Distrusted);
        }
        if let Some(Known::Named(Name::Unlisted)) = known {
            let mut state = self.state();
            if state.doubts.len() < DOUBTS {
                state.doubts.push((blob.clone(), range.clone()));
            }
        }
        // From the network or from the backend, nobody knows: reading anew from the backend alone may help.
        self.inner.distrust(blob, range) || served
    }

    fn name(&self) -> String {
        format!("p2p before {}", self.inner.name())
    }
}

fn late() -> Why {
    Why::Away(format!("no answer within {PATIENCE:?}").into())
}

#[cfg(test)]
mod tests;
