//! How much of the disk directories take.

use std::{
    collections::HashSet,
    fs::{self, DirEntry, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;

/// Files that are counted in one walk; what is beyond them is not seen.
const MOST: usize = 1 << 20;
/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Why a directory is not counted, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    /// A directory in it cannot be read. All others are counted.
    #[error("{}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// There are more files than are counted.
    #[error("more than {MOST} files: the rest is not counted")]
    TooMany,
    /// There is no time for the rest.
    #[error("stopped")]
    Stopped,
}

/// What was counted so far: each file once, whatever its names.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) bytes: u64,
    /// Directories, and files that have several names, by device and number.
    seen: HashSet<(u64, u64)>,
    files: usize,
    stop: &'a CancellationToken,
}

impl<'a> Walk<'a> {
    /// Nothing yet. `own` will not be counted wherever it is found, and a walk ends early when told to `stop`.
    pub(super) fn without(own: &Path, stop: &'a CancellationToken) -> Self {
        let own = fs::metadata(own).map(|about| (about.dev(), about.ino()));
        Self { bytes: 0, seen: own.into_iter().collect(), files: 0, stop }
    }

    /// Counts what the disk holds for a directory; nothing where there is none. Links are not followed, nor what is
    /// mounted within it.
    ///
    /// # Errors
    /// The first [`WalkError`]: what can be read is counted nevertheless.
    pub(super) fn count(&mut self, directory: &Path) -> Result<(), WalkError> {
        let unreadable = |path: &Path, source| WalkError::Unreadable { path: path.to_owned(), source };
        let about = match fs::metadata(directory) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(directory, error)),
        };
        if !self.is_new(&about) {
            return Ok(());
        }
        let (mut ahead, mut result) = (vec![directory.to_owned()], Ok(()));
        while let Some(next) = ahead.pop() {
            match fs::read_dir(&next) {
                Ok(entries) => self.entries(entries, about.dev(), &mut ahead)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => result = result.and_then(|()| Err(unreadable(&next, error))),
            }
        }
        result
    }

    /// Counts what is in one directory, and notes the directories among it.
    fn entries(
        &mut self,
        entries: impl Iterator<Item = io::Result<DirEntry>>,
        device: u64,
        ahead: &mut Vec<PathBuf>,
    ) -> Result<(), WalkError> {
        // What is gone by now takes nothing.
        for entry in entries.map_while(Result::ok) {
            if self.stop.is_cancelled() {
                return Err(WalkError::Stopped);
            }
            if self.files == MOST {
                return Err(WalkError::TooMany);
            }
            self.files += 1;
            let Ok(about) = entry.metadata() else { continue };
            if about.dev() == device && self.is_new(&about) && about.is_dir() {
                ahead.push(entry.path());
            }
        }
        Ok(())
    }

    /// Counts a file or directory, unless it was already; says whether it was not.
    fn is_new(&mut self, about: &Metadata) -> bool {
        let named_again = about.is_dir() || about.nlink() > 1;
        if named_again && !self.seen.insert((about.dev(), about.ino())) {
            return false;
        }
        self.bytes += about.blocks() * BLOCK;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// MiB that these directories take, the own one left out.
    fn mib(directories: &[&Path], own: &Path) -> u64 {
        let stop = CancellationToken::new();
        let mut walk = Walk::without(own, &stop);
        directories.iter().for_each(|directory| walk.count(directory).unwrap());
        walk.bytes / MIB
    }

    fn write(path: &Path, mib: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7; mib << 20]).unwrap();
    }

    #[test]
    fn what_is_on_disk_counts_and_not_how_long_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let (path, none) = (dir.path(), dir.path().join("none"));
        assert_eq!(mib(&[&none], &none), 0);
        fs::File::create(path.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        write(&path.join("below/full"), 1);
        std::os::unix::fs::symlink("/", path.join("elsewhere")).unwrap();
        assert_eq!(mib(&[path], &none), 1);
    }

    #[test]
    fn each_file_counts_once_and_what_is_our_own_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (path, own) = (dir.path(), dir.path().join("deep/own"));
        write(&path.join("deep/file"), 2);
        write(&own.join("piece"), 16);
        fs::hard_link(path.join("deep/file"), path.join("second name")).unwrap();
        let deep = path.join("deep");
        for directories in [&[path, &deep][..], &[&deep, path], &[path, path], &[path, &own]] {
            assert_eq!(mib(directories, &own), 2, "{directories:?}");
        }
        assert_eq!(mib(&[path], &path.join("none")), 18);
    }

    #[test]
    fn a_walk_that_is_told_to_stop_does() {
        let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        write(&dir.path().join("file"), 1);
        stop.cancel();
        let mut walk = Walk::without(Path::new("/none"), &stop);
        assert!(matches!(walk.count(dir.path()), Err(WalkError::Stopped)));
    }
}
