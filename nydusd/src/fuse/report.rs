//! The line about a request that failed: image, file, blob, chunk and cause. The one place where failures are logged.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rafs::{BlobIndex, Nid};
use service::causes::in_one_line;
use storage::backend::Backend;

use crate::{
    counters::Op,
    events::Events,
    fs::{FsError, path_at, paths_of},
    mounts::Image,
};

/// Failures of one image are told at most this often; the next line says how many were not.
const PAUSE: Duration = Duration::from_secs(1);
/// Entries of directories that are looked at for the name of a file: some milliseconds.
const MAX_ENTRIES: usize = 200_000;

/// What a request was about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// An inode of the image.
    Inode(Nid),
    /// A blob of it, from this byte of its uncompressed image on.
    Blob(BlobIndex, u64),
}

/// When an image's failures were last told.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Whether it is time to tell of a failure, and of how many none was told since the last line.
    fn turn(&self) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| last.elapsed() < PAUSE) {
            told.unsaid += 1;
            return None;
        }
        told.last = Some(Instant::now());
        Some(std::mem::take(&mut told.unsaid))
    }
}

/// Counts a failed request, and tells of it unless sound images fail so too. Looking up the file's name reads the
/// bootstrap, which may wait for the disk.
pub(super) fn report(events: &Events, image: &Image, place: Place, op: Op, error: &FsError) {
    image.counters().failed(op);
    if error.is_expected() {
        return;
    }
    let Some(unsaid) = image.complaints().turn() else { return };
    let path = path_of(image, place);
    let cause = in_one_line(error);
    tracing::error!(
        image = %image.mountpoint(),
        source = %image.source().display(),
        backend = image.backend().name(),
        path,
        ?op,
        unsaid,
        "{cause}"
    );
    events.add(format!("{op:?} of {path} in image {} failed: {cause}", image.mountpoint()));
}

/// The file that a request was about. Where the walk fails too, the image itself is broken, which the cause says.
fn path_of(image: &Image, place: Place) -> String {
    let found = match place {
        Place::Inode(nid) => paths_of(image.rafs(), HashSet::from([nid]), MAX_ENTRIES)
            .ok()
            .and_then(|mut paths| paths.remove(&nid)),
        Place::Blob(blob, offset) => path_at(image.rafs(), blob, offset, MAX_ENTRIES).ok().flatten(),
    };
    found.unwrap_or_else(|| match place {
        Place::Inode(nid) => format!("inode {nid}"),
        Place::Blob(blob, offset) => format!("byte {offset} of blob {}", blob.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_follow_at_once_are_counted_for_the_next_line() {
        let complaints = Complaints::default();
        assert_eq!(complaints.turn(), Some(0));
        assert_eq!((complaints.turn(), complaints.turn()), (None, None));
        complaints.told.lock().unwrap().last = None;
        assert_eq!(complaints.turn(), Some(2));
    }
}
