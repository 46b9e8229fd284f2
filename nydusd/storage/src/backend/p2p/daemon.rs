//! Calls to the network's daemon, and what its answers mean.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use rafs::BlobId;
use registry::Credential;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue, RANGE},
};

use super::{
    Priority, Why,
    lists::{List, Lists},
};
use crate::error::in_one_line;

/// A daemon, and what it has to know of an image.
#[derive(Debug)]
pub(super) struct Daemon {
    http: Client,
    socket: PathBuf,
    repository: String,
    lists: Lists,
    /// The image's own credential for its registry, as `Authorization` says it.
    authorization: Option<HeaderValue>,
}

/// How a blob is called that the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// By the list of its pieces or chunks, which has this name.
    Listed(String),
    /// It has neither: the daemon cannot check parts of it, and the reader does.
    Unlisted,
}

impl Daemon {
    pub(super) fn new(
        socket: &Path,
        repository: &str,
        lists: Lists,
        credential: Option<&Credential>,
    ) -> io::Result<Self> {
        registry::install_crypto_provider();
        let http = Client::builder().unix_socket(socket.to_owned()).build().map_err(io::Error::other)?;
        Ok(Self {
            http,
            socket: socket.to_owned(),
            repository: repository.to_owned(),
            lists,
            authorization: credential.and_then(Credential::to_authorization),
        })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for a range; `None` where it does not know the blob by this name.
    pub(super) async fn get(
        &self,
        blob: &BlobId,
        name: &Name,
        range: &Range<u64>,
        priority: Priority,
    ) -> Result<Option<Response>, Why> {
        let query = match name {
            Name::Listed(list) => ("list", list.as_str()),
            Name::Unlisted => ("unchecked", "true"),
        };
        let request = self.http.get(url(blob)).query(&[query]).header("x-shoal-priority", priority.name());
        let answer = send(self.authorized(of(request, range))).await?;
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

    /// Says that a range of an unlisted blob was wrong; returns when it has come from the registry again.
    pub(super) async fn doubt(&self, blob: &BlobId, range: &Range<u64>) -> Result<(), Why> {
        let request = self.authorized(self.http.post(format!("{}/doubts", url(blob))));
        let answer = send(of(request, range)).await?;
        match answer.status() {
            // It has forgotten the blob, and with it what was wrong.
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(refusal(answer).await),
        }
    }

    /// Makes a blob known, with the list of its pieces where the image has one, and else with that of its chunks.
    pub(super) async fn introduce(&self, blob: &BlobId) -> Result<Name, Why> {
        let (lists, named) = (self.lists.clone(), blob.clone());
        let list = tokio::task::spawn_blocking(move || lists.list(&named)).await;
        match list.map_err(|error| Why::Failed(error.to_string().into()))? {
            Ok(List::Pieces(list)) => self.introduce_list(blob, "pieces", list).await,
            Ok(List::Chunks(list)) => self.introduce_list(blob, "chunks", list).await,
            Ok(List::Nothing(why)) => {
                tracing::debug!(%blob, "the piece network cannot check parts of it: {}", in_one_line(&why));
                self.introduce_unlisted(blob).await
            }
            Err(error) => Err(Why::NoList(error.to_string().into())),
        }
    }

    async fn introduce_list(&self, blob: &BlobId, kind: &str, list: Vec<u8>) -> Result<Name, Why> {
        let request = self.http.put(format!("{}/{kind}", url(blob)));
        let answer = self.introduced(request.body(list)).await?;
        let answer: HashMap<String, String> =
            answer.json().await.map_err(|error| Why::Failed(in_one_line(&error.without_url()).into()))?;
        let name = answer.get("list").cloned().map(Name::Listed);
        name.ok_or_else(|| Why::Failed("the answer names no list".into()))
    }

    async fn introduce_unlisted(&self, blob: &BlobId) -> Result<Name, Why> {
        // How long it is only the registry can say, to who may read it.
        self.introduced(self.authorized(self.http.put(url(blob)))).await?;
        Ok(Name::Unlisted)
    }

    async fn introduced(&self, request: RequestBuilder) -> Result<Response, Why> {
        let answer = send(request.query(&[("repository", &self.repository)])).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }
}

async fn send(request: RequestBuilder) -> Result<Response, Why> {
    // The calls are always the same: their URL would only hide the cause.
    request.send().await.map_err(|error| Why::Away(in_one_line(&error.without_url()).into()))
}

fn url(blob: &BlobId) -> String {
    format!("http://p2pd/v1/blobs/sha256:{blob}")
}

fn of(request: RequestBuilder, range: &Range<u64>) -> RequestBuilder {
    request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1))
}

/// Why an answer is none, in the daemon's words where it gives any.
async fn refusal(answer: Response) -> Why {
    let status = answer.status();
    let words: Option<HashMap<String, String>> = answer.json().await.ok();
    let words = words.and_then(|mut words| words.remove("message"));
    let cause = words.map_or_else(|| status.to_string(), |words| format!("{status}: {words}")).into();
    match status {
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => {
            Why::Refused(cause)
        }
        StatusCode::TOO_EARLY => Why::NotYet,
        StatusCode::SERVICE_UNAVAILABLE => Why::Away(cause),
        _ => Why::Failed(cause),
    }
}
