//! The directory of all blob caches: `<blob id>/<instance>/{data,map,chunks}`.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rafs::BlobId;

use super::{BlobCache, directory::DiskDirectory, flush::Flusher, layout::Subject, lock};
use crate::{StorageError, chunks::ChunkTable};

/// Caches of one blob that may stand side by side, for images or daemons that cannot share one.
const MAX_INSTANCES: u32 = 8;

/// A directory of blob caches, shared by all images of a daemon: one cache per blob, however many images use it,
/// as long as they agree on every chunk they have in common.
#[derive(Debug)]
pub struct CacheDir {
    path: PathBuf,
    open: Mutex<HashMap<(BlobId, u32), Arc<BlobCache>>>,
    flusher: Flusher,
}

impl CacheDir {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// [`StorageError::Cache`] where it cannot be made.
    pub fn open(path: &Path) -> Result<Arc<Self>, StorageError> {
        let failed = |source| StorageError::Cache { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let flusher = Flusher::start().map_err(failed)?;
        Ok(Arc::new(Self { path: path.to_owned(), open: Mutex::default(), flusher }))
    }

    /// The cache for a blob as one image tells of it: the first that nobody else holds and whose chunks agree. Where
    /// none can be had, one that keeps nothing.
    pub(crate) fn attach(&self, id: &BlobId, table: &mut ChunkTable) -> Arc<BlobCache> {
        let subject = Subject { id: id.clone(), count: table.count, algorithm: table.algorithm };
        let mut open = lock(&self.open);
        close_unused(&mut open);
        for instance in 0..MAX_INSTANCES {
            let key = (id.clone(), instance);
            let cache = match open.get(&key) {
                Some(cache) if cache.is_of(&subject) => cache.clone(),
                Some(_) => continue,
                None => match self.open_instance(&subject, instance) {
                    Ok(Some(cache)) => Arc::new(cache),
                    Ok(None) => continue,
                    Err(e) => {
                        tracing::warn!(blob = id.short(), cause = %e, "no cache for this blob");
                        break;
                    }
                },
            };
            if let Some(shared) = cache.admit(&table.entries) {
                table.entries = shared;
                open.insert(key, cache.clone());
                return cache;
            }
        }
        Arc::new(BlobCache::without_disk(subject))
    }

    fn open_instance(&self, subject: &Subject, instance: u32) -> io::Result<Option<BlobCache>> {
        let path = self.path.join(subject.id.as_str()).join(instance.to_string());
        let Some(directory) = DiskDirectory::lock(&path)? else { return Ok(None) };
        BlobCache::open(Box::new(directory), subject.clone(), self.flusher.queue().clone()).map(Some)
    }

    /// Closes caches that nobody uses any more. The lock on a cache ends here, where the next user looks for it.
    pub(crate) fn prune(&self) {
        close_unused(&mut lock(&self.open));
    }
}

/// A cache that was still being flushed when its last user went is closed by the next that looks: meanwhile its files
/// may have been deleted.
fn close_unused(open: &mut HashMap<(BlobId, u32), Arc<BlobCache>>) {
    open.retain(|_, cache| Arc::strong_count(cache) > 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBlob;

    #[test]
    fn a_cache_that_outlived_its_users_and_its_files_is_not_used_again() {
        let (dir, blob) = (tempfile::tempdir().unwrap(), TestBlob::new(1, &[5000]));
        let cache = CacheDir::open(dir.path()).unwrap();
        let mut table = ChunkTable::new(&blob.blob).unwrap();
        let attached = cache.attach(&blob.blob.id, &mut table);
        // As the flusher holds it.
        let held = Arc::clone(&attached);
        drop(attached);
        cache.prune();
        drop(held);
        std::fs::remove_dir_all(dir.path().join(blob.blob.id.as_str())).unwrap();
        let again = cache.attach(&blob.blob.id, &mut table);
        again.store(&table.entries[0], blob.plain(0));
        again.flush();
        assert!(dir.path().join(blob.blob.id.as_str()).join("0/map").exists());
    }
}
