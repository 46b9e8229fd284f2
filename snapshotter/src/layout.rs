//! Where things are below the root directory.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use crate::meta::{Content, Kind, Record, SnapshotId};

/// The root directory and what is in it.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are always there.
    ///
    /// # Errors
    /// Where one cannot be made.
    pub fn create(root: &Path) -> io::Result<Self> {
        let layout = Self { root: root.to_owned() };
        for directory in
            [root, &layout.snapshots(), &layout.removed(), &layout.cache(), &layout.kernel_mounts()]
        {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(layout)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.root.join("metadata.db")
    }

    /// Locked while a snapshotter serves this root.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Blob data that nydusd has fetched.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// nydusd's mount; images are directories in it.
    #[must_use]
    pub fn mnt(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// Images that the kernel shows by itself; each is a directory in it.
    #[must_use]
    pub fn kernel_mounts(&self) -> PathBuf {
        self.root.join("erofs")
    }

    /// Where the kernel shows the image of this bootstrap layer, if it does.
    #[must_use]
    pub fn kernel_mount(&self, id: SnapshotId) -> PathBuf {
        self.kernel_mounts().join(id.to_string())
    }

    /// nydusd's control socket.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.root.join("api.sock")
    }

    /// One directory for each snapshot that has files.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Directories on their way out.
    #[must_use]
    pub fn removed(&self) -> PathBuf {
        self.root.join("removed")
    }

    /// A snapshot's files, or its changes.
    #[must_use]
    pub fn upper(&self, id: SnapshotId) -> PathBuf {
        self.directory(id).join("fs")
    }

    /// overlayfs' work directory.
    #[must_use]
    pub fn work(&self, id: SnapshotId) -> PathBuf {
        self.directory(id).join("work")
    }

    fn directory(&self, id: SnapshotId) -> PathBuf {
        self.snapshots().join(id.to_string())
    }

    /// Makes a new snapshot's directories. What an earlier life left under this number is put aside.
    ///
    /// # Errors
    /// Where one cannot be made.
    pub fn make(&self, id: SnapshotId, kind: Kind, parent: Option<&Record>) -> io::Result<()> {
        self.put_aside(&id.to_string())?;
        let upper = self.upper(id);
        make_directory(&self.directory(id), 0o700)?;
        make_directory(&upper, 0o755)?;
        if kind == Kind::Active {
            make_directory(&self.work(id), 0o711)?;
        }
        // The merged root takes its owner from the upper directory.
        let Some(parent) = parent.filter(|parent| parent.content == Content::Files) else { return Ok(()) };
        let owner = fs::metadata(self.upper(parent.id))?;
        chown(&upper, Some(owner.uid()), Some(owner.gid()))
    }

    /// Moves a snapshot's directory among the removed ones; fast, whatever is in it.
    ///
    /// # Errors
    /// Where it cannot be moved; that it is not there is fine.
    pub fn put_aside(&self, name: &str) -> io::Result<()> {
        let from = self.snapshots().join(name);
        for attempt in 0.. {
            match fs::rename(&from, self.removed().join(format!("{name}.{attempt}"))) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => return other,
            }
        }
        Ok(())
    }

    /// The bootstrap in an unpacked bootstrap layer. Layers come from strangers: links are not followed.
    ///
    /// # Errors
    /// Where there is none.
    pub fn bootstrap(&self, id: SnapshotId) -> io::Result<PathBuf> {
        let upper = self.upper(id);
        let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        let image = upper.join("image");
        let newer = image.join("image.boot");
        if fs::symlink_metadata(&image).is_ok_and(|found| found.is_dir()) && is_file(&newer) {
            return Ok(newer);
        }
        let older = upper.join("image.boot");
        if is_file(&older) {
            return Ok(older);
        }
        let missing = format!("neither image/image.boot nor image.boot is a file in {}", upper.display());
        Err(io::Error::new(io::ErrorKind::NotFound, missing))
    }
}

/// A directory with exactly this mode, whatever the umask.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn directories_left_by_an_unfinished_prepare_do_not_leak_into_the_next() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        for _ in 0..3 {
            layout.make(SnapshotId(1), Kind::Active, None).unwrap();
            fs::write(layout.upper(SnapshotId(1)).join("stale"), "x").unwrap();
        }
        layout.make(SnapshotId(1), Kind::Active, None).unwrap();
        assert_eq!(fs::read_dir(layout.upper(SnapshotId(1))).unwrap().count(), 0);
        assert_eq!(fs::read_dir(layout.removed()).unwrap().count(), 3);
    }

    #[test]
    fn bootstrap_is_found_in_both_places_but_never_behind_a_link() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        let id = SnapshotId(4);
        layout.make(id, Kind::Active, None).unwrap();
        let upper = layout.upper(id);
        assert!(layout.bootstrap(id).is_err());
        symlink("/etc/hostname", upper.join("image.boot")).unwrap();
        assert!(layout.bootstrap(id).is_err());
        fs::remove_file(upper.join("image.boot")).unwrap();
        fs::write(upper.join("image.boot"), "").unwrap();
        assert_eq!(layout.bootstrap(id).unwrap(), upper.join("image.boot"));
        fs::create_dir(upper.join("image")).unwrap();
        fs::write(upper.join("image/image.boot"), "").unwrap();
        assert_eq!(layout.bootstrap(id).unwrap(), upper.join("image/image.boot"));
    }
}
