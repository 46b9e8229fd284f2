//! One snapshot, as the database keeps it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use sqlx::{Row, sqlite::SqliteRow};

use crate::labels::Labels;

/// Number of a snapshot, never given twice; names its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub(crate) i64);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for SnapshotId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What may be done with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Read only.
    View,
    /// Written to, until it is committed.
    Active,
    /// Finished: a layer.
    Committed,
}

impl Kind {
    /// As the database and containerd's filters call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::View, Self::Active, Self::Committed].into_iter().find(|kind| kind.name() == name)
    }
}

/// Where a snapshot's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// In its directory.
    Files,
    /// In a registry: a layer that was never downloaded and has no directory.
    Remote,
}

impl Content {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Remote => "remote",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Files, Self::Remote].into_iter().find(|content| content.name() == name)
    }
}

/// Room that a snapshot's own files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: i64,
    /// Files, directories and the like.
    pub inodes: i64,
}

/// A snapshot that is to be made.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// Its key.
    pub name: String,
    /// Name of the snapshot it stands on.
    pub parent: Option<String>,
    /// View or active.
    pub kind: Kind,
    /// Its labels.
    pub labels: Labels,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number of its directory.
    pub id: SnapshotId,
    /// Key of an active snapshot or view, name of a committed one.
    pub name: String,
    /// Name of the snapshot it stands on.
    pub parent: Option<String>,
    /// What may be done with it.
    pub kind: Kind,
    /// Where its files are.
    pub content: Content,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last changed.
    pub updated: SystemTime,
    /// Room it takes; counted when it is committed.
    pub usage: Usage,
}

impl sqlx::FromRow<'_, SqliteRow> for Record {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let kind: &str = row.try_get("kind")?;
        let content: &str = row.try_get("content")?;
        let labels: &str = row.try_get("labels")?;
        Ok(Self {
            id: SnapshotId(row.try_get("id")?),
            name: row.try_get("name")?,
            parent: row.try_get("parent")?,
            kind: Kind::parse(kind).ok_or_else(|| unknown("kind", kind))?,
            content: Content::parse(content).ok_or_else(|| unknown("content", content))?,
            labels: serde_json::from_str(labels).map_err(|source| sqlx::Error::Decode(source.into()))?,
            created: from_nanos(row.try_get("created")?),
            updated: from_nanos(row.try_get("updated")?),
            usage: Usage { bytes: row.try_get("bytes")?, inodes: row.try_get("inodes")? },
        })
    }
}

fn unknown(column: &str, value: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("unknown {column} {value:?}").into())
}

/// Nanoseconds since 1970: what one column holds until the year 2262.
pub(super) fn to_nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn from_nanos(nanos: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
