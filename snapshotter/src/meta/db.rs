//! The SQLite file.
//!
//! Writes go through a pool of one connection, so that a transaction never meets another; reads see the last committed
//! state and wait for nobody.

use std::{io, path::Path, time::Duration, time::SystemTime};

use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Content, Kind, MetaError, NewSnapshot, Record, SnapshotId, Usage,
    record::{from_nanos, to_nanos},
};
use crate::labels::{Labels, SNAPSHOT_REF};

const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE snapshots (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        name      TEXT NOT NULL UNIQUE,
        parent_id INTEGER REFERENCES snapshots (id),
        kind      TEXT NOT NULL,
        content   TEXT NOT NULL,
        labels    TEXT NOT NULL,
        created   INTEGER NOT NULL,
        updated   INTEGER NOT NULL,
        bytes     INTEGER NOT NULL DEFAULT 0,
        inodes    INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX snapshots_parent ON snapshots (parent_id);
    PRAGMA user_version = 1;";

/// Every query for records begins so.
macro_rules! select {
    ($($rest:literal),*) => {
        concat!(
            "SELECT s.id, s.name, p.name AS parent, s.kind, s.content, s.labels, s.created, s.updated, s.bytes, s.inodes",
            " FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent_id ", $($rest),*
        )
    };
}

/// All snapshots.
#[derive(Debug, Clone)]
pub struct Database {
    write: SqlitePool,
    read: SqlitePool,
}

impl Database {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`MetaError::Open`], [`MetaError::Newer`].
    pub async fn open(path: &Path) -> Result<Self, MetaError> {
        let failed = |source| MetaError::Open { path: path.to_owned(), source };
        // Labels hold credentials: SQLite gives its other files the mode of this one.
        private(path).map_err(|source| failed(source.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // containerd takes an answer for done: it must hold after a power cut too.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool =
            |size| SqlitePoolOptions::new().max_connections(size).acquire_timeout(Duration::from_secs(30));
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let mut tx = write.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let version: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(failed)?;
        match version {
            0 => {
                sqlx::raw_sql(SCHEMA).execute(&mut *tx).await.map_err(failed)?;
            }
            VERSION => {}
            version => return Err(MetaError::Newer { path: path.to_owned(), version }),
        }
        tx.commit().await.map_err(failed)?;
        let read = pool(4).connect_with(options).await.map_err(failed)?;
        Ok(Self { write, read })
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`MetaError::NotFound`].
    pub async fn get(&self, name: &str) -> Result<Record, MetaError> {
        let mut connection = self.read.acquire().await.map_err(query("connect"))?;
        find(&mut connection, name).await?.ok_or_else(|| MetaError::NotFound { name: name.to_owned() })
    }

    /// A snapshot and all it stands on, nearest first.
    ///
    /// # Errors
    /// [`MetaError::NotFound`].
    pub async fn chain(&self, name: &str) -> Result<Vec<Record>, MetaError> {
        let mut connection = self.read.acquire().await.map_err(query("connect"))?;
        chain(&mut connection, name).await
    }

    /// All snapshots, as they are at one instant.
    ///
    /// # Errors
    /// [`MetaError::Query`].
    pub async fn list(&self) -> Result<Vec<Record>, MetaError> {
        sqlx::query_as(select!("ORDER BY s.id")).fetch_all(&self.read).await.map_err(query("list snapshots"))
    }

    /// The committed snapshots that some active snapshot or view stands on.
    ///
    /// # Errors
    /// [`MetaError::Query`].
    pub async fn in_use(&self) -> Result<Vec<Record>, MetaError> {
        sqlx::query_as(concat!(
            "WITH RECURSIVE used (id) AS (SELECT parent_id FROM snapshots WHERE kind <> 'committed'
             UNION SELECT s.parent_id FROM used JOIN snapshots s ON s.id = used.id) ",
            select!("WHERE s.id IN (SELECT id FROM used)")
        ))
        .fetch_all(&self.read)
        .await
        .map_err(query("find snapshots in use"))
    }

    /// Makes a view or an active snapshot. `directories` runs inside the transaction, with the new number and the
    /// parents, nearest first: a snapshot that has a row has its directories.
    ///
    /// # Errors
    /// [`MetaError::Exists`], [`MetaError::NotFound`] of the parent, [`MetaError::ParentNotCommitted`],
    /// [`MetaError::Directories`].
    pub async fn create(
        &self,
        new: NewSnapshot,
        directories: impl FnOnce(SnapshotId, &[Record]) -> io::Result<()> + Send,
    ) -> Result<SnapshotId, MetaError> {
        let mut tx = self.begin().await?;
        let parents = parents(&mut tx, new.parent.as_deref()).await?;
        if find(&mut tx, &new.name).await?.is_some() {
            return Err(MetaError::Exists { name: new.name });
        }
        let id = insert(&mut tx, &new, parents.first(), Content::Files).await?;
        directories(id, &parents)
            .map_err(|source| MetaError::Directories { name: new.name.clone(), source })?;
        tx.commit().await.map_err(query("make a snapshot"))?;
        Ok(id)
    }

    /// Makes sure that a committed snapshot stands for the remote layer `chain_id` on `new.parent`: the first call for
    /// it makes one, named by its chain id, or by `new.name` where another layer has that name.
    ///
    /// # Errors
    /// [`MetaError::Exists`], [`MetaError::NotFound`] of the parent, [`MetaError::ParentNotCommitted`].
    pub async fn commit_remote(&self, chain_id: &str, mut new: NewSnapshot) -> Result<(), MetaError> {
        let mut tx = self.begin().await?;
        let parents = parents(&mut tx, new.parent.as_deref()).await?;
        let parent = parents.first();
        if is_known_layer(&mut tx, chain_id, parent).await? {
            return Ok(());
        }
        if find(&mut tx, chain_id).await?.is_none() {
            chain_id.clone_into(&mut new.name);
        } else if find(&mut tx, &new.name).await?.is_some() {
            return Err(MetaError::Exists { name: new.name });
        }
        new.kind = Kind::Committed;
        insert(&mut tx, &new, parent, Content::Remote).await?;
        tx.commit().await.map_err(query("commit a remote layer"))
    }

    /// Turns the active snapshot `key` into the committed one `name`, with these labels only.
    ///
    /// # Errors
    /// [`MetaError::NotFound`], [`MetaError::NotActive`], [`MetaError::Exists`].
    pub async fn commit(
        &self,
        name: &str,
        key: &str,
        labels: &Labels,
        usage: Usage,
    ) -> Result<(), MetaError> {
        let mut tx = self.begin().await?;
        if find(&mut tx, name).await?.is_some() {
            return Err(MetaError::Exists { name: name.to_owned() });
        }
        let active = found(&mut tx, key).await?;
        if active.kind != Kind::Active {
            return Err(MetaError::NotActive { name: key.to_owned() });
        }
        sqlx::query(
            "UPDATE snapshots SET name = ?2, kind = 'committed', labels = ?3, created = ?4, updated = ?4,
             bytes = ?5, inodes = ?6 WHERE id = ?1",
        )
        .bind(active.id.0)
        .bind(name)
        .bind(encode(name, labels)?)
        .bind(to_nanos(SystemTime::now()))
        .bind(usage.bytes)
        .bind(usage.inodes)
        .execute(&mut *tx)
        .await
        .map_err(query("commit a snapshot"))?;
        tx.commit().await.map_err(query("commit a snapshot"))
    }

    /// Forgets a snapshot; what was it?
    ///
    /// # Errors
    /// [`MetaError::NotFound`], [`MetaError::HasChildren`].
    pub async fn remove(&self, name: &str) -> Result<Record, MetaError> {
        let mut tx = self.begin().await?;
        let record = found(&mut tx, name).await?;
        let children: i64 = sqlx::query_scalar("SELECT count(*) FROM snapshots WHERE parent_id = ?")
            .bind(record.id.0)
            .fetch_one(&mut *tx)
            .await
            .map_err(query("count children"))?;
        if children > 0 {
            return Err(MetaError::HasChildren { name: name.to_owned() });
        }
        sqlx::query("DELETE FROM snapshots WHERE id = ?")
            .bind(record.id.0)
            .execute(&mut *tx)
            .await
            .map_err(query("remove a snapshot"))?;
        tx.commit().await.map_err(query("remove a snapshot"))?;
        Ok(record)
    }

    /// Changes the labels of a snapshot, and nothing else but the time of the change.
    ///
    /// # Errors
    /// [`MetaError::NotFound`].
    pub async fn update(
        &self,
        name: &str,
        change: impl FnOnce(&mut Labels) + Send,
    ) -> Result<Record, MetaError> {
        let mut tx = self.begin().await?;
        let mut record = found(&mut tx, name).await?;
        change(&mut record.labels);
        // A clock that stands still or goes back must not hide that something changed.
        let now = to_nanos(SystemTime::now()).max(to_nanos(record.updated) + 1);
        record.updated = from_nanos(now);
        sqlx::query("UPDATE snapshots SET labels = ?2, updated = ?3 WHERE id = ?1")
            .bind(record.id.0)
            .bind(encode(name, &record.labels)?)
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(query("update a snapshot"))?;
        tx.commit().await.map_err(query("update a snapshot"))?;
        Ok(record)
    }

    /// Calls `visit` with all snapshots while none can be made or removed.
    ///
    /// # Errors
    /// [`MetaError::Query`].
    pub async fn while_still<T>(&self, visit: impl FnOnce(&[Record]) -> T + Send) -> Result<T, MetaError> {
        let mut tx = self.begin().await?;
        let records: Vec<Record> =
            sqlx::query_as(select!()).fetch_all(&mut *tx).await.map_err(query("list snapshots"))?;
        Ok(visit(&records))
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, MetaError> {
        self.write.begin_with("BEGIN IMMEDIATE").await.map_err(query("begin"))
    }
}

fn query(action: &'static str) -> impl FnOnce(sqlx::Error) -> MetaError {
    move |source| MetaError::Query { action, source }
}

fn encode(name: &str, labels: &Labels) -> Result<String, MetaError> {
    serde_json::to_string(labels).map_err(|source| MetaError::Labels { name: name.to_owned(), source })
}

async fn find(connection: &mut SqliteConnection, name: &str) -> Result<Option<Record>, MetaError> {
    sqlx::query_as(select!("WHERE s.name = ?"))
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(query("find a snapshot"))
}

async fn found(connection: &mut SqliteConnection, name: &str) -> Result<Record, MetaError> {
    find(connection, name).await?.ok_or_else(|| MetaError::NotFound { name: name.to_owned() })
}

async fn chain(connection: &mut SqliteConnection, name: &str) -> Result<Vec<Record>, MetaError> {
    let records: Vec<Record> = sqlx::query_as(concat!(
        "WITH RECURSIVE chain (id, depth) AS (SELECT id, 0 FROM snapshots WHERE name = ?
         UNION ALL SELECT s.parent_id, depth + 1 FROM chain JOIN snapshots s ON s.id = chain.id
         WHERE s.parent_id IS NOT NULL) ",
        select!("JOIN chain ON chain.id = s.id ORDER BY depth")
    ))
    .bind(name)
    .fetch_all(connection)
    .await
    .map_err(query("find parents"))?;
    if records.is_empty() {
        return Err(MetaError::NotFound { name: name.to_owned() });
    }
    Ok(records)
}

/// The parent and all it stands on, nearest first; nothing where no parent is named.
async fn parents(connection: &mut SqliteConnection, parent: Option<&str>) -> Result<Vec<Record>, MetaError> {
    let Some(name) = parent else { return Ok(Vec::new()) };
    let parents = chain(connection, name).await?;
    match parents.first() {
        Some(parent) if parent.kind == Kind::Committed => Ok(parents),
        _ => Err(MetaError::ParentNotCommitted { name: name.to_owned() }),
    }
}

/// Whether a committed snapshot answers containerd's question for this layer: same chain id, same parent.
async fn is_known_layer(
    connection: &mut SqliteConnection,
    chain_id: &str,
    parent: Option<&Record>,
) -> Result<bool, MetaError> {
    let known: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM snapshots
         WHERE kind = 'committed' AND parent_id IS ? AND json_extract(labels, ?) = ?",
    )
    .bind(parent.map(|parent| parent.id.0))
    .bind(format!("$.\"{SNAPSHOT_REF}\""))
    .bind(chain_id)
    .fetch_one(connection)
    .await
    .map_err(query("find a layer"))?;
    Ok(known > 0)
}

async fn insert(
    connection: &mut SqliteConnection,
    new: &NewSnapshot,
    parent: Option<&Record>,
    content: Content,
) -> Result<SnapshotId, MetaError> {
    let result = sqlx::query(
        "INSERT INTO snapshots (name, parent_id, kind, content, labels, created, updated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )
    .bind(&new.name)
    .bind(parent.map(|parent| parent.id.0))
    .bind(new.kind.name())
    .bind(content.name())
    .bind(encode(&new.name, &new.labels)?)
    .bind(to_nanos(SystemTime::now()))
    .execute(connection)
    .await
    .map_err(query("make a snapshot"))?;
    Ok(SnapshotId(result.last_insert_rowid()))
}

/// Makes the database's file where it is missing, and keeps others from reading it.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests;
