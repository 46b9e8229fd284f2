//! The piece network of this node first, the image's own backend where it has nothing to give.
//!
//! The network's daemon listens at a unix socket, whose calls stand in its `local` module. It is given the list of a
//! blob's pieces when the image is mounted, or before the first read, then asked for ranges. Whatever it does not do (it is not there, does not answer
//! in time, refuses, breaks off) is read from the image's own backend, from the byte on where it broke off; after a while
//! it is asked again. So it costs time at worst, never a read.

mod stream;

use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use rafs::BlobId;
use registry::Credential;
use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue, RANGE},
};
use tokio::time::{Instant, timeout};

use super::{Backend, BackendError, ByteStream, Priority};

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
/// Largest list of pieces.
const LARGEST_LIST: u64 = 64 << 20;

/// A piece network before a backend.
#[derive(Debug)]
pub struct P2pBackend {
    http: Client,
    socket: PathBuf,
    repository: String,
    lists: PathBuf,
    /// The image's own credential for its registry, as `Authorization` says it.
    authorization: Option<HeaderValue>,
    inner: Arc<dyn Backend>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    away_until: Option<Instant>,
    blobs: HashMap<BlobId, Known>,
    /// One at a time makes the list of a blob known.
    turns: HashMap<BlobId, Arc<tokio::sync::Mutex<()>>>,
}

/// What is known of a blob.
#[derive(Debug, Clone)]
enum Known {
    /// The daemon has its list, by this name.
    Listed(String),
    /// It does not serve it, until then at least.
    Refused(Instant),
}

/// Why the network gave nothing.
enum No {
    /// The daemon is not there or does not answer.
    Away(String),
    /// It does not serve this blob.
    Refused(String),
    /// It does not know yet whether it may serve it.
    NotYet,
    /// It does not know the list any more: it has been started again.
    Forgotten,
    /// This read failed.
    Failed(String),
}

impl P2pBackend {
    /// The daemon at `socket` before `inner`, for blobs of `repository` whose lists of pieces are files
    /// `<blob>.pieces` in the directory `lists`.
    ///
    /// Reads hand on `credential`, where the image has one of its own.
    ///
    /// # Errors
    /// [`io::Error`] where no client can be made.
    pub fn new(
        socket: &Path,
        repository: &str,
        lists: &Path,
        credential: Option<&Credential>,
        inner: Arc<dyn Backend>,
    ) -> io::Result<Self> {
        registry::install_crypto_provider();
        let http = Client::builder().unix_socket(socket.to_owned()).build().map_err(io::Error::other)?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
            repository: repository.to_owned(),
            lists: lists.to_owned(),
            authorization: credential.and_then(Credential::to_authorization),
            inner,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the network may be asked for a blob now.
    fn may_ask(&self, blob: &BlobId) -> bool {
        let (state, now) = (self.state(), Instant::now());
        let refused = matches!(state.blobs.get(blob), Some(Known::Refused(until)) if *until > now);
        !refused && state.away_until.is_none_or(|until| until <= now)
    }

    /// The network's answer to a read, begun.
    async fn ask(&self, blob: &BlobId, range: &Range<u64>, priority: Priority) -> Option<Response> {
        if !self.may_ask(blob) {
            return None;
        }
        let asked = async {
            match self.get(blob, range, priority).await {
                Err(No::Forgotten) => {
                    self.state().blobs.remove(blob);
                    self.get(blob, range, priority).await
                }
                other => other,
            }
        };
        let answer = timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(No::Away(format!("not within {PATIENCE:?}"))));
        answer.map_err(|no| self.note(blob, no)).ok()
    }

    async fn get(&self, blob: &BlobId, range: &Range<u64>, priority: Priority) -> Result<Response, No> {
        let list = self.introduce(blob).await?;
        let priority = match priority {
            Priority::Demand => "demand",
            Priority::ReadAhead => "read-ahead",
            Priority::Prefetch => "trace",
            Priority::Background => "background",
        };
        let mut request = self
            .http
            .get(format!("http://p2pd/v1/blobs/sha256:{blob}"))
            .query(&[("list", list)])
            .header(RANGE, format!("bytes={}-{}", range.start, range.end - 1))
            .header("x-shoal-priority", priority);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = request.send().await.map_err(|error| No::Away(describe(&error)))?;
        let len = answer.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if len.is_none_or(|len: u64| len == range.end - range.start) => {
                Ok(answer)
            }
            StatusCode::PARTIAL_CONTENT => Err(No::Failed("another range than asked for".to_owned())),
            StatusCode::NOT_FOUND => Err(No::Forgotten),
            status => Err(refusal(status)),
        }
    }

    /// Makes the list of a blob known, once for all who want it; says its name.
    async fn introduce(&self, blob: &BlobId) -> Result<String, No> {
        let turn = Arc::clone(self.state().turns.entry(blob.clone()).or_default());
        let _turn = turn.lock().await;
        match self.state().blobs.get(blob) {
            Some(Known::Listed(name)) => return Ok(name.clone()),
            // Somebody has asked just now.
            Some(Known::Refused(until)) if *until > Instant::now() => return Err(No::NotYet),
            _ => {}
        }
        let introduced = self.put(blob).await;
        let known = match &introduced {
            Ok(name) => Known::Listed(name.clone()),
            Err(No::NotYet) => Known::Refused(Instant::now() + SOON),
            Err(_) => return introduced,
        };
        self.state().blobs.insert(blob.clone(), known);
        introduced
    }

    async fn put(&self, blob: &BlobId) -> Result<String, No> {
        let file = self.lists.join(format!("{blob}.pieces"));
        let list = tokio::task::spawn_blocking(move || read_list(&file)).await;
        let list = list.map_err(|error| No::Failed(error.to_string()))?;
        let list =
            list.map_err(|error| No::Refused(format!("the image has no list of its pieces: {error}")))?;
        let request = self
            .http
            .put(format!("http://p2pd/v1/blobs/sha256:{blob}/pieces"))
            .query(&[("repository", &self.repository)])
            .body(list);
        let answer = request.send().await.map_err(|error| No::Away(describe(&error)))?;
        if !answer.status().is_success() {
            return Err(refusal(answer.status()));
        }
        let answer: HashMap<String, String> =
            answer.json().await.map_err(|error| No::Failed(describe(&error)))?;
        answer.get("list").cloned().ok_or_else(|| No::Failed("the answer names no list".to_owned()))
    }

    /// Makes the lists of blobs known, as far as that goes.
    async fn introduce_all(&self, blobs: Vec<BlobId>) {
        for blob in blobs {
            for _ in 0..INTRODUCTIONS {
                let introduced = timeout(PATIENCE, self.introduce(&blob)).await;
                match introduced.unwrap_or_else(|_| Err(No::Away(format!("not within {PATIENCE:?}")))) {
                    Err(No::NotYet) => tokio::time::sleep(SOON).await,
                    Err(No::Away(reason)) => return self.note(&blob, No::Away(reason)),
                    Err(no) => {
                        self.note(&blob, no);
                        break;
                    }
                    Ok(_) => break,
                }
            }
        }
    }

    /// Remembers why the network gave nothing.
    fn note(&self, blob: &BlobId, no: No) {
        let (mut state, now) = (self.state(), Instant::now());
        let socket = self.socket.display();
        match no {
            No::Away(reason) => {
                state.away_until = Some(now + AWAY);
                tracing::info!("the piece network at {socket} is left alone for {AWAY:?}: {reason}");
            }
            No::Refused(reason) => {
                state.blobs.insert(blob.clone(), Known::Refused(now + REFUSED));
                tracing::debug!(%blob, "the piece network does not serve a blob: {reason}");
            }
            No::Failed(reason) => tracing::debug!(%blob, "the piece network did not serve a read: {reason}"),
            No::Forgotten | No::NotYet => {}
        }
    }
}

impl Backend for P2pBackend {
    fn read(
        self: Arc<Self>,
        blob: BlobId,
        range: Range<u64>,
        priority: Priority,
    ) -> BoxFuture<'static, Result<ByteStream, BackendError>> {
        async move {
            if range.is_empty() {
                return Arc::clone(&self.inner).read(blob, range, priority).await;
            }
            match self.ask(&blob, &range, priority).await {
                Some(answer) => Ok(stream::with_fallback(self, answer, blob, range, priority)),
                None => Arc::clone(&self.inner).read(blob, range, priority).await,
            }
        }
        .boxed()
    }

    fn prepare(self: Arc<Self>, blobs: Vec<BlobId>) -> BoxFuture<'static, ()> {
        async move { self.introduce_all(blobs).await }.boxed()
    }

    fn distrust(&self, blob: &BlobId, range: Range<u64>) -> bool {
        let served = matches!(self.state().blobs.get(blob), Some(Known::Listed(_)));
        if served {
            self.note(blob, No::Refused("its bytes were not those of the image".to_owned()));
        }
        // From the network or from the backend, nobody knows: reading anew from the backend alone may help.
        self.inner.distrust(blob, range) || served
    }

    fn name(&self) -> String {
        format!("p2p before {}", self.inner.name())
    }
}

fn refusal(status: StatusCode) -> No {
    match status {
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => No::Refused(status.to_string()),
        StatusCode::TOO_EARLY => No::NotYet,
        StatusCode::SERVICE_UNAVAILABLE => No::Away(status.to_string()),
        _ => No::Failed(status.to_string()),
    }
}

fn read_list(file: &Path) -> io::Result<Vec<u8>> {
    let len = std::fs::metadata(file)?.len();
    if len > LARGEST_LIST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{len} bytes")));
    }
    std::fs::read(file)
}

/// An error of the client with its causes, in one line.
fn describe(error: &reqwest::Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests;
