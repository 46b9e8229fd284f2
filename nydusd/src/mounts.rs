//! Many images in one daemon: names and numbers, and which image an inode number belongs to.

mod image;
mod ino;
mod mountpoint;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rafs::{BlobIndex, Nid};

pub use image::{Image, ImageParts};
pub(crate) use ino::PROBE_NAME;
pub use ino::{BLOBS_INO, BLOBS_NAME, MountNumber, PROBE_INO, ROOT_INO};
use ino::{Inner, MAX_MOUNTS};
pub use mountpoint::{BadMountpoint, Mountpoint};

use crate::fs::FsError;

/// An image that cannot be added or is not there.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The place is taken.
    #[error("{0} is mounted already")]
    Taken(Mountpoint),
    /// Nothing is there.
    #[error("{0} is not mounted")]
    Missing(Mountpoint),
    /// An image at the root and images below it cannot stand together.
    #[error("{0} cannot be mounted: an image at / and images below it exclude each other")]
    Mixed(Mountpoint),
    /// All numbers are used up.
    #[error("this daemon has mounted {MAX_MOUNTS} images in its life; start another")]
    Exhausted,
}

/// What an inode number stands for.
#[derive(Debug, Clone)]
pub enum Target {
    /// The directory of all images.
    Root,
    /// The directory of all images' blobs.
    Blobs,
    /// The probe's blob.
    Probe,
    /// An inode of an image.
    Inode(Arc<Image>, Nid),
    /// A blob of an image: its uncompressed bytes.
    Blob(Arc<Image>, BlobIndex),
}

/// All mounted images.
#[derive(Debug, Default)]
pub struct MountTable {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u32,
    images: BTreeMap<MountNumber, Arc<Image>>,
    names: BTreeMap<Mountpoint, MountNumber>,
}

impl MountTable {
    /// Whether an image can be added at `mountpoint`.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn check_free(&self, mountpoint: &Mountpoint) -> Result<(), MountError> {
        self.read().check_free(mountpoint)
    }

    /// Adds an image at its mountpoint.
    ///
    /// # Errors
    /// [`MountError`]; nothing is changed then.
    pub fn add(&self, parts: ImageParts) -> Result<Arc<Image>, MountError> {
        let mut state = self.write();
        state.check_free(&parts.mountpoint)?;
        state.insert(parts)
    }

    /// Puts an image in the place of the one at its mountpoint, which is returned.
    ///
    /// # Errors
    /// [`MountError`]; nothing is changed then.
    pub fn replace(&self, parts: ImageParts) -> Result<Arc<Image>, MountError> {
        let mut state = self.write();
        let Some(old) = state.names.get(&parts.mountpoint).copied() else {
            return Err(MountError::Missing(parts.mountpoint));
        };
        let mountpoint = parts.mountpoint.clone();
        state.insert(parts)?;
        state.images.remove(&old).ok_or(MountError::Missing(mountpoint))
    }

    /// Takes the image at `mountpoint` out.
    ///
    /// # Errors
    /// [`MountError::Missing`].
    pub fn remove(&self, mountpoint: &Mountpoint) -> Result<Arc<Image>, MountError> {
        let mut state = self.write();
        let number = state.names.remove(mountpoint);
        number
            .and_then(|number| state.images.remove(&number))
            .ok_or_else(|| MountError::Missing(mountpoint.clone()))
    }

    /// The image at `mountpoint`.
    ///
    /// # Errors
    /// [`MountError::Missing`].
    pub fn get(&self, mountpoint: &Mountpoint) -> Result<Arc<Image>, MountError> {
        let state = self.read();
        let image = state.names.get(mountpoint).and_then(|number| state.images.get(number));
        image.cloned().ok_or_else(|| MountError::Missing(mountpoint.clone()))
    }

    /// All images, in the order in which they were mounted.
    pub fn all(&self) -> Vec<Arc<Image>> {
        self.read().images.values().cloned().collect()
    }

    /// What an inode number stands for.
    ///
    /// # Errors
    /// [`FsError::Unmounted`].
    pub fn resolve(&self, ino: u64) -> Result<Target, FsError> {
        let state = self.read();
        if ino == ROOT_INO {
            return Ok(match state.root() {
                Some(image) => Target::Inode(Arc::clone(image), image.rafs().root()),
                None => Target::Root,
            });
        }
        match ino {
            BLOBS_INO => return Ok(Target::Blobs),
            PROBE_INO => return Ok(Target::Probe),
            _ => {}
        }
        let (number, inner) = ino::split(ino).ok_or(FsError::Unmounted)?;
        let image = Arc::clone(state.images.get(&number).ok_or(FsError::Unmounted)?);
        match inner {
            Inner::Inode(nid) => Ok(Target::Inode(image, nid)),
            Inner::Blob(blob) if image.rafs().has_blob(blob) => Ok(Target::Blob(image, blob)),
            Inner::Blob(_) => Err(FsError::NoEntry),
        }
    }

    /// The blob of that name in the directory of blobs.
    pub(crate) fn blob_named(&self, name: &str) -> Option<(Arc<Image>, BlobIndex)> {
        let (number, blob) = MountNumber::parse_blob_name(name)?;
        let image = Arc::clone(self.read().images.get(&number)?);
        image.rafs().has_blob(blob).then_some((image, blob))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn root(&self) -> Option<&Arc<Image>> {
        let (mountpoint, number) = self.names.first_key_value()?;
        mountpoint.is_root().then(|| self.images.get(number))?
    }

    fn check_free(&self, mountpoint: &Mountpoint) -> Result<(), MountError> {
        if self.names.contains_key(mountpoint) {
            return Err(MountError::Taken(mountpoint.clone()));
        }
        if !self.names.is_empty() && (mountpoint.is_root() || self.root().is_some()) {
            return Err(MountError::Mixed(mountpoint.clone()));
        }
        Ok(())
    }

    fn insert(&mut self, parts: ImageParts) -> Result<Arc<Image>, MountError> {
        // Zero stays free: numbers below 2^40 are the kernel's root and nothing else.
        let number = self.used + 1;
        if number >= MAX_MOUNTS {
            return Err(MountError::Exhausted);
        }
        self.used = number;
        let number = MountNumber(number);
        let mountpoint = parts.mountpoint.clone();
        let image = Arc::new(Image::new(number, parts));
        self.images.insert(number, Arc::clone(&image));
        self.names.insert(mountpoint, number);
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_inode_number_is_stale() {
        let table = MountTable::default();
        assert!(matches!(table.resolve(ROOT_INO), Ok(Target::Root)));
        assert!(matches!(table.resolve(BLOBS_INO), Ok(Target::Blobs)));
        for ino in [0, 4, 5 << 40, u64::MAX] {
            assert!(matches!(table.resolve(ino), Err(FsError::Unmounted)), "{ino}");
        }
    }
}
