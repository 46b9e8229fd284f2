//! What others on this node take of the budget, such as nydusd's cache.

mod walk;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{error::in_one_line, store::Store};
use walk::{Walk, WalkError};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(10);

/// What is not well, by the directory that it is about.
type Troubles = BTreeMap<PathBuf, String>;

/// Looks again and again how much other caches hold, leaves them so much of the budget, and evicts what is beyond the rest
/// or makes the disk too full. Nothing of theirs is touched. Dropping it ends it soon; [`Self::stop`] waits until it has.
#[derive(Debug)]
pub struct Lookout {
    stop: CancellationToken,
    watch: Option<JoinHandle<()>>,
}

impl Lookout {
    /// Begins to look at `directories`. The store's own is not counted where it is in one of them.
    #[must_use]
    pub fn start(store: Arc<Store>, directories: Vec<PathBuf>) -> Self {
        let stop = CancellationToken::new();
        let watch = Some(tokio::spawn(keep(store, directories.into(), stop.clone())));
        Self { stop, watch }
    }

    /// Ends it, and returns when nobody looks any more and the store is let go.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let Some(watch) = self.watch.take() else { return };
        if let Err(error) = watch.await {
            tracing::error!("who looks at other caches has ended badly: {error}");
        }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn keep(store: Arc<Store>, directories: Arc<[PathBuf]>, stop: CancellationToken) {
    let mut known = Troubles::new();
    loop {
        let (store, directories, told) = (Arc::clone(&store), Arc::clone(&directories), stop.clone());
        let looked = tokio::task::spawn_blocking(move || look(&store, &directories, &told)).await;
        let troubles = looked.unwrap_or_else(|error| Troubles::from([(PathBuf::new(), error.to_string())]));
        for (directory, error) in news(&known, &troubles) {
            tracing::warn!(directory = %directory.display(), error, "what others take of the budget is not all known");
        }
        known = troubles;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// What is to be said: each trouble once, until the directory is well again.
fn news<'a>(known: &Troubles, now: &'a Troubles) -> Vec<(&'a Path, &'a str)> {
    let new = now.iter().filter(|(directory, _)| !known.contains_key(*directory));
    new.map(|(directory, error)| (directory.as_path(), error.as_str())).collect()
}

/// Looks once; what cannot be looked at is left out.
fn look(store: &Store, directories: &[PathBuf], stop: &CancellationToken) -> Troubles {
    let (mut troubles, own) = (Troubles::new(), store.directory());
    let mut walk = Walk::without(&own, stop);
    for directory in directories {
        match walk.count(directory) {
            Ok(()) => {}
            // Half of it would be too little.
            Err(WalkError::Stopped) => return troubles,
            Err(error) => _ = troubles.insert(directory.clone(), in_one_line(&error)),
        }
    }
    store.set_beside(walk.bytes);
    match store.trim() {
        Ok(0) => {}
        Ok(evicted) => tracing::info!(evicted, beside = walk.bytes, "others need the room"),
        Err(error) => _ = troubles.insert(own, in_one_line(&error)),
    }
    troubles
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        PieceLayout, Vouch,
        store::{Budget, Standing},
    };

    fn open(directory: &Path) -> Arc<Store> {
        Arc::new(Store::open(directory, Budget { bytes: 16 << 20, keep_free: 0 }).unwrap())
    }

    #[test]
    fn others_leave_the_rest_of_the_budget() {
        let (dir, other, stop) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), CancellationToken::new());
        let store = open(dir.path());
        fs::write(other.path().join("cache"), vec![7; 4 << 20]).unwrap();
        assert!(look(&store, &[other.path().to_owned()], &stop).is_empty());
        assert!((11 << 20..=12 << 20).contains(&store.most()), "{}", store.most());
        look(&store, &[], &stop);
        assert_eq!(store.most(), 16 << 20);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_left_out_and_said_once_and_pieces_go_all_the_same() {
        let (dir, other, stop) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), CancellationToken::new());
        let store = open(&dir.path().join("pieces"));
        let layout = PieceLayout::new(1 << 20, 1 << 20).unwrap();
        let stored = store.task(Vouch::Whole { blob: &[1; 32] }, layout.clone()).unwrap();
        store.put(&stored, layout.piece(0).unwrap(), &vec![7; 1 << 20], Standing::Good).unwrap();
        drop(stored);
        fs::write(other.path().join("cache"), vec![7; 20 << 20]).unwrap();
        let broken = dir.path().join("no directory");
        fs::write(&broken, "").unwrap();
        store.set_budget(Budget { bytes: 16 << 20, keep_free: 0 });
        let directories = [broken.clone(), other.path().to_owned()];
        let found = look(&store, &directories, &stop);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&broken]);
        assert!(store.beside() >= 20 << 20, "the other was counted: {}", store.beside());
        let again = look(&store, &directories, &stop);
        assert_eq!((news(&Troubles::new(), &found).len(), news(&found, &again).len()), (1, 0));
        store.set_budget(Budget { bytes: 1 << 20, keep_free: 0 });
        look(&store, &directories, &stop);
        assert_eq!(store.bytes(), 0);
    }

    #[tokio::test]
    async fn who_looks_lets_the_store_go_when_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("pieces"));
        let lookout = Lookout::start(Arc::clone(&store), vec![dir.path().to_owned()]);
        lookout.stop().await;
        assert_eq!(Arc::strong_count(&store), 1);
    }
}
