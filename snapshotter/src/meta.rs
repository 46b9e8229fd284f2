//! What is known of every snapshot: one SQLite file that survives `kill -9` and power cuts.

mod db;
mod record;

pub use db::Database;
pub use record::{Content, Kind, NewSnapshot, Record, SnapshotId, Usage};

use std::path::PathBuf;

/// A request that the snapshots as they are do not allow, or a database that fails.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The file cannot be opened.
    #[error("open database {path} (one that another snapshotter made cannot be used: give another --root)")]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A later version of this program made the file.
    #[error("database {path} has version {version}: made by a newer containerd-nydus-grpc")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// A query failed.
    #[error("database: {action}")]
    Query {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// Labels cannot be written down.
    #[error("labels of snapshot {name:?}")]
    Labels {
        /// The snapshot.
        name: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The directories of a new snapshot cannot be made.
    #[error("make directories of snapshot {name:?}")]
    Directories {
        /// The snapshot.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The name is in use, by an active or a committed snapshot.
    #[error("snapshot {name:?} already exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// No such snapshot.
    #[error("snapshot {name:?} not found")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Only committed snapshots can be parents.
    #[error("parent {name:?} is not committed")]
    ParentNotCommitted {
        /// The parent.
        name: String,
    },
    /// Only active snapshots can be committed.
    #[error("snapshot {name:?} is not active")]
    NotActive {
        /// The snapshot.
        name: String,
    },
    /// Snapshots that others stand on stay.
    #[error("cannot remove snapshot {name:?}: it has children")]
    HasChildren {
        /// The snapshot.
        name: String,
    },
}

#[cfg(test)]
pub(crate) mod testing {
    use std::time::SystemTime;

    use super::{Content, Kind, Record, SnapshotId, Usage};
    use crate::labels::Labels;

    /// A committed snapshot with files.
    pub(crate) fn record(id: i64, name: &str) -> Record {
        Record {
            id: SnapshotId(id),
            name: name.into(),
            parent: None,
            kind: Kind::Committed,
            content: Content::Files,
            labels: Labels::default(),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            usage: Usage::default(),
        }
    }
}
