//! What removed snapshots leave: directories and mounted images.

use std::{collections::HashSet, fs, io, path::Path, sync::Arc};

use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    error::in_one_line,
    instance::Images,
    layout::Layout,
    meta::{Database, MetaError, Record, SnapshotId},
};

/// Sweeps up, in the background and on request, one sweep at a time.
#[derive(Debug, Clone)]
pub struct Sweeper {
    database: Database,
    layout: Layout,
    images: Images,
    wanted: Arc<Notify>,
    busy: Arc<Mutex<()>>,
}

impl Sweeper {
    /// A sweeper of these places.
    #[must_use]
    pub fn new(database: Database, layout: Layout, images: Images) -> Self {
        Self { database, layout, images, wanted: Arc::default(), busy: Arc::default() }
    }

    /// Has [`Self::run`] sweep soon.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Sweeps now, and whenever it is woken, until `end`.
    pub async fn run(self, end: CancellationToken) {
        loop {
            if let Err(error) = self.sweep().await {
                warn!(error = in_one_line(&error), "cannot clean up");
            }
            tokio::select! {
                () = self.wanted.notified() => {}
                () = end.cancelled() => return,
            }
        }
    }

    /// Removes directories that have no snapshot, and unmounts images that have none.
    ///
    /// # Errors
    /// Where the database fails; what cannot be removed is logged, and tried again the next time.
    pub async fn sweep(&self) -> Result<(), MetaError> {
        let _one = self.busy.lock().await;
        let layout = self.layout.clone();
        let live = self
            .database
            .while_still(move |records| {
                let live: HashSet<SnapshotId> = records.iter().map(|record: &Record| record.id).collect();
                report(put_orphans_aside(&layout, &live), &layout.snapshots());
                live
            })
            .await?;
        self.images.keep_only(&live).await;
        let removed = self.layout.removed();
        let emptied = spawn_blocking(move || report(empty(&removed), &removed)).await;
        if let Err(error) = emptied {
            warn!(%error, "removal was cut short");
        }
        Ok(())
    }
}

fn put_orphans_aside(layout: &Layout, live: &HashSet<SnapshotId>) -> io::Result<()> {
    for entry in fs::read_dir(layout.snapshots())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.parse().is_ok_and(|id| !live.contains(&id)) {
            layout.put_aside(&name)?;
        }
    }
    Ok(())
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

fn report(result: io::Result<()>, directory: &Path) {
    if let Err(error) = result {
        warn!(%error, directory = %directory.display(), "cannot remove what is left of snapshots");
    }
}
