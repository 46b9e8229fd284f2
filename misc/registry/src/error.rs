//! What can go wrong with a registry.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc, time::Duration};

/// What was asked of which host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Host that was asked, which may be a mirror.
    pub host: String,
    /// Repository at it.
    pub repository: String,
    /// `manifest v1`, `blob sha256:…`, `upload of blob sha256:…`, `token`.
    pub object: String,
    /// Bytes of it.
    pub range: Option<Range<u64>>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} at {}", self.object, self.repository, self.host)?;
        match &self.range {
            Some(range) => write!(f, ", bytes {}-{}", range.start, range.end),
            None => Ok(()),
        }
    }
}

/// A failed exchange: which host, which thing, why.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A text that is no image reference.
    #[error("{text:?} is not an image reference: {problem}")]
    Reference {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A text that is no digest, or of an algorithm that cannot be checked.
    #[error("{text:?} is not a sha256 or sha512 digest")]
    MalformedDigest {
        /// The text.
        text: String,
    },
    /// A text that is no http or https URL.
    #[error("{text:?} is not an http or https URL")]
    MalformedUrl {
        /// The text.
        text: String,
    },
    /// A hosts.toml, or a certificate or key file that it names, cannot be used.
    #[error("hosts of registry {registry}: {path}: {problem}")]
    HostsFile {
        /// The registry they are for.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A host at an address of the link or of a cloud's metadata, where such are refused.
    #[error("{host} is at an address that may not be asked")]
    ForbiddenAddress {
        /// The host.
        host: String,
    },
    /// An HTTP client could not be made.
    #[error("HTTP client for {host}")]
    HttpClient {
        /// The host it was for.
        host: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// No host of a registry may do what was asked.
    #[error("no host of registry {registry} is configured to {capability}")]
    NoHost {
        /// The registry as the reference names it.
        registry: String,
        /// `pull`, `resolve` or `push`.
        capability: &'static str,
    },
    /// The docker configuration or a credential program failed.
    #[error("credentials for {host}: {problem}")]
    Credentials {
        /// Host they were for.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection failed, while it was made or later.
    #[error("{asked}: connection failed")]
    Connection {
        /// What was asked.
        asked: Box<Asked>,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came in time.
    #[error("{asked}: silent for {after:?}")]
    Timeout {
        /// What was asked.
        asked: Box<Asked>,
        /// How long was waited.
        after: Duration,
    },
    /// The registry does not have it.
    #[error("{asked}: not found")]
    NotFound {
        /// What was asked.
        asked: Box<Asked>,
    },
    /// The registry does not let us.
    #[error("{asked}: not authorized: {problem}")]
    Unauthorized {
        /// What was asked.
        asked: Box<Asked>,
        /// Why, as far as is known.
        problem: String,
    },
    /// No token was to be had for it.
    #[error("{asked}: no token")]
    Token {
        /// What was asked.
        asked: Box<Asked>,
        /// The cause, which all who wait for the token share.
        #[source]
        source: Arc<RegistryError>,
    },
    /// Any other refusal.
    #[error("{asked}: answered {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// What was asked.
        asked: Box<Asked>,
        /// HTTP status.
        status: u16,
        /// What the registry says about it, shortened.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that breaks the protocol.
    #[error("{asked}: bad answer: {problem}")]
    Malformed {
        /// What was asked.
        asked: Box<Asked>,
        /// What is wrong with it.
        problem: String,
    },
    /// A body of another length than was announced or asked for.
    #[error("{asked}: {got} bytes instead of {expected}")]
    Length {
        /// What was asked.
        asked: Box<Asked>,
        /// Bytes that were due.
        expected: u64,
        /// Bytes that came or were announced.
        got: u64,
    },
    /// Bytes that are not those of their digest.
    #[error("{asked}: its digest is {got}")]
    Digest {
        /// What was asked.
        asked: Box<Asked>,
        /// Digest of what came.
        got: String,
    },
    /// The caller's stream of a blob to push failed, or has another length than was said.
    #[error("{asked}: reading what is to be sent")]
    Source {
        /// What was to be sent.
        asked: Box<Asked>,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Timeout { .. } | Self::Length { .. } => true,
            // A mirror that serves other bytes may heal, or be replaced.
            Self::Digest { .. } => true,
            Self::Token { source, .. } => source.is_retryable(),
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Reference { .. }
            | Self::MalformedDigest { .. }
            | Self::MalformedUrl { .. }
            | Self::HostsFile { .. }
            | Self::ForbiddenAddress { .. }
            | Self::HttpClient { .. }
            | Self::NoHost { .. }
            | Self::Credentials { .. }
            | Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::Malformed { .. }
            | Self::Source { .. } => false,
        }
    }

    /// Whether the registry answered that it does not have the thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the registry, or its token service, said that we may not.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Unauthorized { .. } => true,
            Self::Token { source, .. } => source.is_unauthorized(),
            _ => false,
        }
    }

    /// When the registry wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Token { source, .. } => source.retry_after(),
            _ => None,
        }
    }
}
