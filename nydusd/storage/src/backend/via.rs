//! How the bytes of a read come, told while they come.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use crate::cache::lock;

/// How the bytes of one read come. Goes with the read to the backend, which tells; who keeps a copy can look.
#[derive(Debug, Clone, Default)]
pub struct Via(Arc<Mutex<Way>>);

/// How the bytes of a read have come so far: where nothing is told, from the image's own backend alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// Where the piece network had its bytes from, if it gave any.
    pub network: Option<Supply>,
    /// Where the image's own backend stood in for it.
    pub detour: Option<Detour>,
}

/// The image's own backend in the place of the piece network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detour {
    /// From which byte of the blob on.
    pub from: u64,
    /// Why.
    pub why: Why,
}

/// Where the piece network had bytes from, as its daemon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// From this node's disk.
    Here,
    /// From other nodes.
    Peers,
    /// From the registry, or whatever the blob's origin is.
    Origin,
    /// From other nodes and the origin.
    Mixed,
    /// It did not say.
    Untold,
}

/// Why the piece network did not give bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its daemon is not there or does not answer, or did not a moment ago.
    Away(Arc<str>),
    /// It does not serve this blob.
    Refused(Arc<str>),
    /// The image does not list the blob's pieces.
    NoList(Arc<str>),
    /// It does not know yet whether it may serve this blob.
    NotYet,
    /// It did not serve this read.
    Failed(Arc<str>),
    /// It began to, and did not go on.
    BrokeOff(Arc<str>),
    /// What came of this blob before was wrong, or too late.
    Distrusted,
}

impl Via {
    /// The network gives bytes.
    pub fn network(&self, supply: Supply) {
        lock(&self.0).network = Some(supply);
    }

    /// The image's own backend gives the bytes from `from` on, and why.
    pub fn detour(&self, from: u64, why: Why) {
        lock(&self.0).detour = Some(Detour { from, why });
    }

    /// What was told so far.
    #[must_use]
    pub fn way(&self) -> Way {
        lock(&self.0).clone()
    }
}

impl Supply {
    /// As the network's daemon says it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "here" => Self::Here,
            "peers" => Self::Peers,
            "origin" => Self::Origin,
            "mixed" => Self::Mixed,
            _ => Self::Untold,
        }
    }
}

impl Why {
    /// One word for it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Refused(_) => "refused",
            Self::NoList(_) => "no-list",
            Self::NotYet => "not-known-yet",
            Self::Failed(_) => "failed",
            Self::BrokeOff(_) => "broke-off",
            Self::Distrusted => "distrusted",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(cause) => write!(f, "p2pd is away: {cause}"),
            Self::Refused(cause) => write!(f, "p2pd does not serve the blob: {cause}"),
            Self::NoList(cause) => write!(f, "the image has no list of the blob's pieces: {cause}"),
            Self::NotYet => f.write_str("p2pd does not know yet whether the repository is shared"),
            Self::Failed(cause) => write!(f, "p2pd did not serve the read: {cause}"),
            Self::BrokeOff(cause) => write!(f, "p2pd broke off: {cause}"),
            Self::Distrusted => f.write_str("bytes of the blob came wrong or late before"),
        }
    }
}
