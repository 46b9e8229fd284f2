//! What others on this node take of the budget, such as nydusd's cache.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::store::Store;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// Files that are counted in one look; what is beyond them is not seen.
const MOST: usize = 1 << 20;
/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Looks again and again how much `directories` hold, leaves them so much of the budget, and evicts what is beyond the rest
/// or makes the disk too full. Nothing in them is touched.
pub async fn keep(store: Arc<Store>, directories: Vec<PathBuf>) {
    let directories: Arc<[PathBuf]> = directories.into();
    let mut failed = false;
    loop {
        let (store, directories) = (Arc::clone(&store), Arc::clone(&directories));
        let looked = tokio::task::spawn_blocking(move || look(&store, &directories)).await;
        let outcome = looked.map_err(|error| error.to_string()).and_then(|looked| looked);
        match outcome {
            Ok(()) => failed = false,
            // Once, until it is well again.
            Err(error) if !failed => {
                tracing::warn!(error, "what others take of the budget is not known");
                failed = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn look(store: &Store, directories: &[PathBuf]) -> Result<(), String> {
    let mut bytes = 0;
    for directory in directories {
        bytes += allocated(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    store.set_beside(bytes);
    let evicted = store.trim().map_err(|error| crate::error::in_one_line(&error))?;
    if evicted > 0 {
        tracing::info!(evicted, beside = bytes, "others need the room");
    }
    Ok(())
}

/// Bytes that the disk holds for what is in a directory; none where there is no directory. Links are not followed.
fn allocated(directory: &Path) -> io::Result<u64> {
    let (mut bytes, mut seen, mut ahead) = (0, 0, vec![directory.to_owned()]);
    while let Some(next) = ahead.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // What is gone by now takes nothing.
            let Ok(about) = entry.metadata() else { continue };
            bytes += about.blocks() * BLOCK;
            seen += 1;
            if about.is_dir() {
                ahead.push(entry.path());
            }
            if seen == MOST {
                return Ok(bytes);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Budget;

    #[test]
    fn what_is_on_disk_counts_and_not_how_long_files_are() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(allocated(&dir.path().join("none")).unwrap(), 0);
        let file = fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/full"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("elsewhere")).unwrap();
        let bytes = allocated(dir.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }

    #[test]
    fn others_leave_the_rest_of_the_budget() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(dir.path(), Budget { bytes: 16 << 20, keep_free: 0 }).unwrap();
        fs::write(other.path().join("cache"), vec![7; 4 << 20]).unwrap();
        look(&store, &[other.path().to_owned()]).unwrap();
        assert!((11 << 20..=12 << 20).contains(&store.most()), "{}", store.most());
        look(&store, &[]).unwrap();
        assert_eq!(store.most(), 16 << 20);
    }
}
