//! What removed snapshots leave: directories, mounted images, and cached blobs.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use service::causes::in_one_line;
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    instance::Images,
    layout::Layout,
    meta::{Content, Database, MetaError, Record, SnapshotId},
};

/// Where cached blobs wait for their removal, in the cache's directory: it may be another file system's.
const REMOVED: &str = "removed";

/// Sweeps up, in the background and on request, one sweep at a time.
#[derive(Debug, Clone)]
pub struct Sweeper {
    database: Database,
    layout: Layout,
    cache: PathBuf,
    images: Images,
    wanted: Arc<Notify>,
    busy: Arc<Mutex<()>>,
}

impl Sweeper {
    /// A sweeper of these places; `cache` holds a directory for each blob.
    #[must_use]
    pub fn new(database: Database, layout: Layout, cache: PathBuf, images: Images) -> Self {
        Self { database, layout, cache, images, wanted: Arc::default(), busy: Arc::default() }
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

    /// Removes directories that have no snapshot, cached blobs that are in no image, and unmounts images that are gone.
    ///
    /// # Errors
    /// Where the database fails; what cannot be removed is logged, and tried again the next time.
    pub async fn sweep(&self) -> Result<(), MetaError> {
        let _one = self.busy.lock().await;
        let (layout, cache) = (&self.layout, &self.cache);
        let put_aside = |records: &[Record]| {
            let live: HashSet<SnapshotId> = records.iter().map(|record| record.id).collect();
            report(put_orphans_aside(layout, &live), &layout.snapshots());
            if let Some(blobs) = blobs_in_use(records) {
                report(put_blobs_aside(cache, &blobs), cache);
            }
            live
        };
        let live = self.database.while_still(put_aside).await?;
        self.images.keep_only(&live).await;
        let removed = [layout.removed(), cache.join(REMOVED)];
        let emptied = spawn_blocking(move || removed.iter().for_each(|path| report(empty(path), path))).await;
        if let Err(error) = emptied {
            warn!(%error, "removal was cut short");
        }
        Ok(())
    }
}

/// The hex digests of all blobs of all images; nothing where some image does not tell them.
fn blobs_in_use(records: &[Record]) -> Option<HashSet<&str>> {
    let names: BTreeMap<&str, &Record> =
        records.iter().map(|record| (record.name.as_str(), record)).collect();
    let parent = |record: &Record| record.parent.as_deref().and_then(|name| names.get(name));
    let mut bootstraps = records.iter().filter(|record| record.labels.is_bootstrap());
    // One that stands on no remote layer is an image whose blobs came from elsewhere.
    if !bootstraps.all(|layer| parent(layer).is_some_and(|below| below.content == Content::Remote)) {
        return None;
    }
    let remote = records.iter().filter(|record| record.content == Content::Remote);
    remote.map(|record| record.labels.layer_digest()?.strip_prefix("sha256:")).collect()
}

/// Whole directories are moved, at once: a cache is there with all its parts or not at all.
fn put_blobs_aside(cache: &Path, in_use: &HashSet<&str>) -> io::Result<()> {
    let removed = cache.join(REMOVED);
    for entry in unless_missing(fs::read_dir(cache))?.into_iter().flatten() {
        let name = entry?.file_name();
        let is_unused = |name: &&str| name.len() == 64 && !in_use.contains(name);
        let Some(blob) = name.to_str().filter(is_unused) else { continue };
        fs::create_dir_all(&removed)?;
        let gone = removed.join(blob);
        // Left by a sweep that was cut short.
        unless_missing(fs::remove_dir_all(&gone))?;
        unless_missing(fs::rename(cache.join(blob), gone))?;
    }
    Ok(())
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
    for entry in unless_missing(fs::read_dir(directory))?.into_iter().flatten() {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn report(result: io::Result<()>, directory: &Path) {
    if let Err(error) = result {
        warn!(%error, directory = %directory.display(), "cannot remove what is left of snapshots");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        labels::{LAYER_DIGEST, NYDUS_BOOTSTRAP},
        meta::testing::record,
    };

    fn blob(id: i64, digest: &str) -> Record {
        let labels = [(LAYER_DIGEST, digest)].into();
        Record { content: Content::Remote, labels, ..record(id, &format!("blob{id}")) }
    }

    fn bootstrap(id: i64, parent: Option<&str>) -> Record {
        let labels = [(NYDUS_BOOTSTRAP, "true")].into();
        Record { labels, parent: parent.map(str::to_owned), ..record(id, "boot") }
    }

    #[test]
    fn blobs_in_use_are_those_of_all_remote_layers() {
        let records =
            [blob(1, "sha256:aa"), blob(2, "sha256:bb"), bootstrap(3, Some("blob2")), record(4, "plain")];
        assert_eq!(blobs_in_use(&records), Some(["aa", "bb"].into()));
    }

    #[test]
    fn no_blob_is_removed_while_an_image_does_not_tell_its_blobs() {
        let unnamed = Record { content: Content::Remote, ..record(2, "unnamed") };
        assert_eq!(blobs_in_use(&[blob(1, "sha256:aa"), unnamed]), None);
        assert_eq!(blobs_in_use(&[bootstrap(3, None)]), None);
        assert_eq!(blobs_in_use(&[record(1, "plain"), bootstrap(3, Some("plain"))]), None);
    }

    #[test]
    fn only_caches_of_unused_blobs_go() {
        let dir = tempfile::tempdir().unwrap();
        let (used, unused) = ("a".repeat(64), "b".repeat(64));
        for name in [&used, &unused, "other"] {
            fs::create_dir_all(dir.path().join(name).join("0")).unwrap();
        }
        for _ in 0..2 {
            fs::create_dir_all(dir.path().join(&unused).join("0")).unwrap();
            put_blobs_aside(dir.path(), &[used.as_str()].into()).unwrap();
        }
        let exists = |name: &str| dir.path().join(name).exists();
        assert!(exists(&used) && exists("other") && !exists(&unused));
        empty(&dir.path().join(REMOVED)).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(REMOVED)).unwrap().count(), 0);
    }
}
