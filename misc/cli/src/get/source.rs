//! What is downloaded, and from where.

use anyhow::Context as _;
use registry::{BlobStream, Client, Reference, Repository};
use service::exit::UsageError;

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
    Url(String),
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self, UsageError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Url(text.to_owned()));
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
                let path = url.split(['?', '#']).next().unwrap_or_default();
                path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_owned()
            }
        }
    }

    /// All from byte `from` on, from its own server, and how long the whole is where that is known; `None` where nothing
    /// is missing.
    pub(super) async fn open(
        &self,
        client: &Client,
        from: u64,
    ) -> anyhow::Result<Option<(Option<u64>, BlobStream)>> {
        let (repository, digest) = match self {
            Self::Url(url) => return Ok(Some((None, client.file(url, None).await?))),
            Self::Blob { repository, digest } => (repository, digest),
        };
        let size = client.readable_size(repository, digest).await?;
        let size = size.with_context(|| format!("{repository} has no blob {digest}"))?;
        if from >= size {
            return Ok(None);
        }
        let range = (from > 0).then_some(from..size);
        Ok(Some((Some(size), client.blob(repository, digest, range).await?)))
    }
}
