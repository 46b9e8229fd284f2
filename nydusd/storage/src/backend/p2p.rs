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

use self::stream::{Reading, Rest};
use super::{Backend, BackendError, ByteStream, Priority, Supply, Via, Why};
use crate::error::in_one_line;

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
    away: Option<Away>,
    blobs: HashMap<BlobId, Known>,
    /// One at a time makes the list of a blob known.
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
    /// The daemon has its list, by this name.
    Listed(String),
    /// It does not serve it, until then at least.
    Refused(Instant, Why),
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
            again.ok_or_else(|| Why::Failed("it forgets the list of the blob's pieces".into()))
        };
        let answer = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()));
        answer.inspect(|_| self.is_back()).inspect_err(|why| self.note(blob, why))
    }

    /// `None`: the daemon does not know the list.
    async fn get(
        &self,
        blob: &BlobId,
        range: &Range<u64>,
        priority: Priority,
    ) -> Result<Option<Response>, Why> {
        let list = self.introduce(blob).await?;
        let mut request = self
            .http
            .get(format!("http://p2pd/v1/blobs/sha256:{blob}"))
            .query(&[("list", list)])
            .header(RANGE, format!("bytes={}-{}", range.start, range.end - 1))
            .header("x-shoal-priority", priority.name());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = request.send().await.map_err(|error| away(&error))?;
        let len = answer.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if len.is_none_or(|len: u64| len == range.end - range.start) => {
                Ok(Some(answer))
            }
            StatusCode::PARTIAL_CONTENT => Err(Why::Failed("another range than asked for".into())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(answer).await),
        }
    }

    /// Makes the list of a blob known, once for all who want it; says its name.
    async fn introduce(&self, blob: &BlobId) -> Result<String, Why> {
        let turn = Arc::clone(self.state().turns.entry(blob.clone()).or_default());
        let _turn = turn.lock().await;
        match self.state().blobs.get(blob) {
            Some(Known::Listed(name)) => return Ok(name.clone()),
            // Somebody has asked just now.
            Some(Known::Refused(until, why)) if *until > Instant::now() => return Err(why.clone()),
            _ => {}
        }
        let introduced = self.put(blob).await;
        let known = match &introduced {
            Ok(name) => Known::Listed(name.clone()),
            Err(why @ Why::NotYet) => Known::Refused(Instant::now() + SOON, why.clone()),
            Err(_) => return introduced,
        };
        self.state().blobs.insert(blob.clone(), known);
        introduced
    }

    async fn put(&self, blob: &BlobId) -> Result<String, Why> {
        let file = self.lists.join(format!("{blob}.pieces"));
        let list = tokio::task::spawn_blocking(move || read_list(&file)).await;
        let list = list.map_err(|error| Why::Failed(error.to_string().into()))?;
        let list = list.map_err(|error| Why::NoList(error.to_string().into()))?;
        let request = self
            .http
            .put(format!("http://p2pd/v1/blobs/sha256:{blob}/pieces"))
            .query(&[("repository", &self.repository)])
            .body(list);
        let answer = request.send().await.map_err(|error| away(&error))?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let answer: HashMap<String, String> =
            answer.json().await.map_err(|error| Why::Failed(in_one_line(&error).into()))?;
        answer.get("list").cloned().ok_or_else(|| Why::Failed("the answer names no list".into()))
    }

    /// Makes the lists of blobs known, as far as that goes.
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
                let socket = self.socket.display();
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
            tracing::info!("the piece network at {} answers again", self.socket.display());
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
        let served = matches!(self.state().blobs.get(blob), Some(Known::Listed(_)));
        if served {
            self.note(blob, &Why::Distrusted);
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

fn away(error: &reqwest::Error) -> Why {
    Why::Away(in_one_line(error).into())
}

/// Why an answer is none, in the daemon's words where it gives any.
async fn refusal(answer: Response) -> Why {
    let status = answer.status();
    let words: Option<HashMap<String, String>> = answer.json().await.ok();
    let words = words.and_then(|mut words| words.remove("message"));
    let cause = words.map_or_else(|| status.to_string(), |words| format!("{status}: {words}")).into();
    match status {
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Why::Refused(cause),
        StatusCode::TOO_EARLY => Why::NotYet,
        StatusCode::SERVICE_UNAVAILABLE => Why::Away(cause),
        _ => Why::Failed(cause),
    }
}

fn read_list(file: &Path) -> io::Result<Vec<u8>> {
    let len = std::fs::metadata(file)?.len();
    if len > LARGEST_LIST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{len} bytes")));
    }
    std::fs::read(file)
}

#[cfg(test)]
mod tests;
