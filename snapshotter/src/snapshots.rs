//! The snapshot calls: each loads, decides and applies.

use std::{io, path::PathBuf, sync::Arc};

use tokio::task::spawn_blocking;

use crate::{
    cleanup::Sweeper,
    decide::{Action, Stack, decide},
    error::SnapshotError,
    filter::Filters,
    instance::Images,
    labels::Labels,
    layout::Layout,
    meta::{Database, Kind, NewSnapshot, Record, SnapshotId, Usage},
    mounts::{self, Mount, OverlayOptions, Own},
    usage,
};

type Result<T> = std::result::Result<T, SnapshotError>;

/// All snapshots of one root directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    layout: Layout,
    images: Images,
    sweeper: Sweeper,
    overlay: OverlayOptions,
}

impl Snapshots {
    /// The snapshots of `database`, whose files are where `layout` says.
    #[must_use]
    pub fn new(
        database: Database,
        layout: Layout,
        images: Images,
        sweeper: Sweeper,
        overlay: OverlayOptions,
    ) -> Self {
        Self { inner: Arc::new(Inner { database, layout, images, sweeper, overlay }) }
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`crate::meta::MetaError::NotFound`].
    pub async fn stat(&self, name: &str) -> Result<Record> {
        Ok(self.inner.database.get(name).await?)
    }

    /// All snapshots that pass the filters.
    ///
    /// # Errors
    /// [`SnapshotError::Filter`].
    pub async fn list(&self, filters: &[String]) -> Result<Vec<Record>> {
        let filters = Filters::parse(filters)?;
        let mut records = self.inner.database.list().await?;
        records.retain(|record| filters.pass(record));
        Ok(records)
    }

    /// Makes an active snapshot or a view and tells how to mount it.
    ///
    /// # Errors
    /// [`SnapshotError::RemoteLayer`] where nothing need be fetched; what the snapshots as they are do not allow.
    pub async fn make(&self, new: NewSnapshot) -> Result<Mount> {
        if new.name.is_empty() {
            return Err(SnapshotError::EmptyKey);
        }
        let parents = match &new.parent {
            Some(parent) => self.inner.database.chain(parent).await?,
            None => Vec::new(),
        };
        let stack = match decide(new.kind, &new.labels, &parents)? {
            Action::Mount(stack) => stack,
            Action::Remote { chain_id } => {
                self.inner.database.commit_remote(&chain_id, new).await?;
                // The image will be wanted soon.
                self.inner.images.wake();
                return Err(SnapshotError::RemoteLayer { chain_id });
            }
        };
        // First what may wait and fail: a call that is given up leaves nothing behind.
        let lowers = self.lowers(&stack, &parents).await?;
        let (kind, layout) = (new.kind, &self.inner.layout);
        let make = |id, now: &[Record]| {
            // Removed and made again since, under the same name: the directories that were found are gone.
            if now.iter().map(|record| record.id).ne(parents.iter().map(|record| record.id)) {
                return Err(io::Error::other("its parents changed meanwhile"));
            }
            layout.make(id, kind, now.first())
        };
        let id = self.inner.database.create(new, make).await?;
        Ok(self.mount(id, kind, &lowers))
    }

    /// How to mount an active snapshot or a view.
    ///
    /// # Errors
    /// [`SnapshotError::Committed`], [`crate::meta::MetaError::NotFound`], [`SnapshotError::Image`].
    pub async fn mounts(&self, name: &str) -> Result<Mount> {
        let mut parents = self.inner.database.chain(name).await?;
        let record = parents.remove(0);
        if record.kind == Kind::Committed {
            return Err(SnapshotError::Committed { name: record.name });
        }
        let stack = match decide(record.kind, &record.labels, &parents)? {
            Action::Mount(stack) => stack,
            // Only labels that were changed since lead here: the snapshot has files.
            Action::Remote { .. } => Stack::default(),
        };
        let lowers = self.lowers(&stack, &parents).await?;
        Ok(self.mount(record.id, record.kind, &lowers))
    }

    /// Turns an active snapshot into a committed one. Waits for no daemon and no network.
    ///
    /// # Errors
    /// What the snapshots as they are do not allow.
    pub async fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<()> {
        if name.is_empty() || key.is_empty() {
            return Err(SnapshotError::EmptyKey);
        }
        let active = self.inner.database.get(key).await?;
        let usage = match active.kind {
            Kind::Active => self.walk(active.id).await?,
            Kind::View | Kind::Committed => Usage::default(),
        };
        Ok(self.inner.database.commit(name, key, labels, usage).await?)
    }

    /// Forgets a snapshot. What it leaves is swept up in the background.
    ///
    /// # Errors
    /// [`crate::meta::MetaError::NotFound`], [`crate::meta::MetaError::HasChildren`].
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.inner.database.remove(name).await?;
        self.inner.sweeper.wake();
        Ok(())
    }

    /// Changes labels: all of them, or those that `fields` names (`labels`, `labels.KEY`).
    ///
    /// # Errors
    /// [`SnapshotError::UpdateField`], [`crate::meta::MetaError::NotFound`].
    pub async fn update(&self, name: &str, labels: Labels, fields: &[String]) -> Result<Record> {
        let mut replace_all = fields.is_empty();
        let mut keys = Vec::new();
        for path in fields {
            match path.strip_prefix("labels") {
                Some("") => replace_all = true,
                Some(key) if key.starts_with('.') => keys.push(key[1..].to_owned()),
                _ => {
                    let (name, path) = (name.to_owned(), path.clone());
                    return Err(SnapshotError::UpdateField { name, path });
                }
            }
        }
        let change = |kept: &mut Labels| {
            if replace_all {
                *kept = labels;
                return;
            }
            for key in keys {
                match labels.get(&key).filter(|value| !value.is_empty()) {
                    Some(value) => drop(kept.0.insert(key, value.to_owned())),
                    None => drop(kept.0.remove(&key)),
                }
            }
        };
        Ok(self.inner.database.update(name, change).await?)
    }

    /// Room that a snapshot's own files take.
    ///
    /// # Errors
    /// [`crate::meta::MetaError::NotFound`], [`SnapshotError::Usage`].
    pub async fn usage(&self, name: &str) -> Result<Usage> {
        let record = self.inner.database.get(name).await?;
        match record.kind {
            Kind::Active => self.walk(record.id).await,
            Kind::Committed => Ok(record.usage),
            Kind::View => Ok(Usage::default()),
        }
    }

    /// Removes what removed snapshots left.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn cleanup(&self) -> Result<()> {
        Ok(self.inner.sweeper.sweep().await?)
    }

    async fn walk(&self, id: SnapshotId) -> Result<Usage> {
        let path = self.inner.layout.upper(id);
        let failed = |source| SnapshotError::Usage { path: path.clone(), source };
        let walked = path.clone();
        spawn_blocking(move || usage::of_directory(&walked))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(failed)
    }

    /// The directories of a stack, nearest first; mounts its image where it has one.
    async fn lowers(&self, stack: &Stack, parents: &[Record]) -> Result<Vec<PathBuf>> {
        let mut lowers: Vec<PathBuf> = stack.layers.iter().map(|id| self.inner.layout.upper(*id)).collect();
        let Some(layer) = parents.iter().find(|parent| Some(parent.id) == stack.image) else {
            return Ok(lowers);
        };
        let mounted = self.inner.images.mounted(layer).await;
        lowers.push(mounted.map_err(|source| SnapshotError::Image { name: layer.name.clone(), source })?);
        Ok(lowers)
    }

    fn mount(&self, id: SnapshotId, kind: Kind, lowers: &[PathBuf]) -> Mount {
        let layout = &self.inner.layout;
        let (upper, work) = (layout.upper(id), layout.work(id));
        mounts::mount(kind, Own { upper: &upper, work: &work }, lowers, &self.inner.overlay)
    }
}
