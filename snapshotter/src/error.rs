//! Why a call fails.

use std::{io, path::PathBuf};

use crate::{daemon::DaemonError, decide::Refusal, filter::FilterError, meta::MetaError};

/// A snapshot call that fails, or that containerd must take another way.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a failure: containerd need not fetch this layer.
    #[error("layer {chain_id} is there already, remotely")]
    RemoteLayer {
        /// The layer.
        chain_id: String,
    },
    /// Every snapshot has a name.
    #[error("a snapshot's key must not be empty")]
    EmptyKey,
    /// Committed snapshots are mounted through a view.
    #[error("snapshot {name:?} is committed: only active snapshots and views have mounts")]
    Committed {
        /// The snapshot.
        name: String,
    },
    /// Only labels can be changed.
    #[error("cannot update {path:?} of snapshot {name:?}: only labels change")]
    UpdateField {
        /// The snapshot.
        name: String,
        /// The field.
        path: String,
    },
    /// A filter of List.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A lazy layer that cannot be served as it was asked for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database says no.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The lazy image cannot be mounted.
    #[error("mount the image of snapshot {name:?}")]
    Image {
        /// The layer with the image's bootstrap.
        name: String,
        /// The cause.
        #[source]
        source: ImageError,
    },
    /// A directory cannot be read.
    #[error("count what {path} takes")]
    Usage {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a lazy image cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bootstrap layer holds no bootstrap.
    #[error("find its bootstrap")]
    Bootstrap(#[source] io::Error),
    /// The puller did not tell the image's name.
    #[error("its layer has no image reference label")]
    NoReference,
    /// The image's name makes no sense.
    #[error("image reference {reference:?}")]
    Reference {
        /// The name.
        reference: String,
        /// The cause.
        #[source]
        source: registry::RegistryError,
    },
    /// There is no daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The daemon cannot mount it.
    #[error("nydusd")]
    Client(#[from] nydusd_api::ClientError),
    /// It takes too long.
    #[error("not mounted within {0:?}")]
    Deadline(std::time::Duration),
}
