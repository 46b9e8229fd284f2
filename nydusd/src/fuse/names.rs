//! Looking up names and listing directories: in images, and in the two directories that are the daemon's own.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, sync::Arc};

use rafs::bootstrap::DirEntry;

use super::{BRIEF, FOREVER, FuseAdapter, attr};
use crate::{
    fs::FsError,
    mounts::{BLOBS_NAME, Image, Mountpoint, PROBE_NAME, Target},
};

/// Outcome of a lookup.
pub(super) enum Found {
    /// Attributes, and how long the name is good for.
    Entry(fuser::FileAttr, std::time::Duration),
    /// No such name, now or ever.
    Nothing,
}

/// A name in a directory, and where to go on behind it.
pub(super) enum Listed<'a> {
    /// `.` or `..` of a directory of the daemon's own.
    Own(&'static str, u64),
    /// An image in the root.
    Image(&'a Arc<Image>, u64),
    /// A name in an image.
    Entry(&'a Arc<Image>, DirEntry<'a>),
}

impl FuseAdapter {
    pub(super) fn look_up(&self, target: &Target, name: &OsStr) -> Result<Found, FsError> {
        match target {
            Target::Inode(image, directory) => {
                let Some(attributes) = image.rafs().lookup(*directory, name.as_bytes())? else {
                    return Ok(Found::Nothing);
                };
                Ok(Found::Entry(attr::of(image, &attributes)?, FOREVER))
            }
            Target::Root if name == BLOBS_NAME => Ok(Found::Entry(attr::blobs(self.started), FOREVER)),
            Target::Root => {
                let image = self.image_named(name).ok_or(FsError::NoEntry)?;
                let root = image.rafs().attributes(image.rafs().root())?;
                Ok(Found::Entry(attr::of(&image, &root)?, BRIEF))
            }
            Target::Blobs if name == PROBE_NAME => Ok(Found::Entry(attr::probe(self.started), FOREVER)),
            Target::Blobs => {
                let named = name.to_str().and_then(|name| self.mounts.blob_named(name));
                let (image, blob) = named.ok_or(FsError::NoEntry)?;
                Ok(Found::Entry(attr::blob(&image, blob, self.started), BRIEF))
            }
            Target::Probe | Target::Blob(..) => Err(FsError::WrongType),
        }
    }

    fn image_named(&self, name: &OsStr) -> Option<Arc<Image>> {
        let mountpoint: Mountpoint = format!("/{}", name.to_str()?).parse().ok()?;
        self.mounts.get(&mountpoint).ok()
    }

    /// Hands entries of a directory to `add` until it says that it is full.
    pub(super) fn list(
        &self,
        target: &Target,
        cookie: u64,
        mut add: impl FnMut(Listed<'_>) -> Result<bool, FsError>,
    ) -> Result<(), FsError> {
        if let Target::Inode(image, directory) = target {
            for entry in image.rafs().read_dir(*directory, cookie)? {
                if add(Listed::Entry(image, entry?))? {
                    break;
                }
            }
            return Ok(());
        }
        for (next, name) in [(1, "."), (2, "..")] {
            if next > cookie && add(Listed::Own(name, next))? {
                return Ok(());
            }
        }
        // Blobs are found by name only.
        let images = if matches!(target, Target::Root) { self.mounts.all() } else { Vec::new() };
        for image in images {
            let next = u64::from(image.number().get()) + 2;
            if next > cookie && add(Listed::Image(&image, next))? {
                break;
            }
        }
        Ok(())
    }
}
