//! What is downloaded, and from where.

use std::fmt;

use anyhow::Context as _;
use registry::{Client, FileUrl, Reference, RegistryError, Repository, Rest, SocketMirror};
use service::exit::UsageError;
use url::Url;

/// What is downloaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A blob of a registry.
    Blob {
        /// In which repository.
        repository: Repository,
        /// `sha256:…`.
        digest: String,
    },
    /// A file of a web server.
    Url(Url),
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self, UsageError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let url = Url::parse(text).map_err(|error| UsageError(format!("{text:?} is no URL: {error}")))?;
            return Ok(Self::Url(url));
        }
        let reference = Reference::parse(text).map_err(|error| UsageError(error.to_string()))?;
        match reference.digest {
            Some(digest) => Ok(Self::Blob { repository: reference.repository, digest }),
            None => Err(UsageError(format!("{text} names no blob: REGISTRY/NAME@sha256:… does, or a URL"))),
        }
    }

    /// What it must be, where its name says so.
    pub(super) fn digest(&self) -> Option<&str> {
        match self {
            Self::Blob { digest, .. } => Some(digest),
            Self::Url(_) => None,
        }
    }

    /// A short name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Blob { digest, .. } => digest.clone(),
            Self::Url(url) => {
                url.path().rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_owned()
            }
        }
    }

    /// All from byte `from` on, by the piece network; `None` where that does not share it.
    pub(super) async fn ask(
        &self,
        mirror: &SocketMirror,
        digest: Option<&str>,
        from: u64,
    ) -> Result<Option<Rest>, RegistryError> {
        let url = match self {
            Self::Blob { repository, digest } => {
                return mirror.blob(repository, digest, from).await.map(Some);
            }
            Self::Url(url) => FileUrl::parse(url.as_str())?,
        };
        if url.has_credential() {
            return Ok(None);
        }
        match mirror.file(&url, digest, from).await {
            Err(error) if error.is_unauthorized() || error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// All from byte `from` on, from its own server.
    pub(super) async fn open(&self, client: &Client, from: u64) -> anyhow::Result<Rest> {
        let (repository, digest) = match self {
            Self::Url(url) => return Ok(client.rest_of_file(url.as_str(), from).await?),
            Self::Blob { repository, digest } => (repository, digest),
        };
        let size = client.readable_size(repository, digest).await?;
        let size = size.with_context(|| format!("{repository} has no blob {digest}"))?;
        if from >= size {
            return Ok(Rest::nothing(from, size));
        }
        let range = (from > 0).then_some(from..size);
        Ok(Rest { start: from, total: Some(size), body: client.blob(repository, digest, range).await? })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { repository, digest } => write!(f, "{repository}@{digest}"),
            Self::Url(url) => {
                // A password in it is for its server alone.
                let mut shown = url.clone();
                shown.set_username("").and_then(|()| shown.set_password(None)).ok();
                f.write_str(shown.as_str())
            }
        }
    }
}
