//! Many images in one daemon: names and numbers, and which image an inode number belongs to.

mod image;
mod mountpoint;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rafs::Nid;

pub use image::{Image, ImageParts};
pub use mountpoint::{BadMountpoint, Mountpoint};

use crate::fs::FsError;

/// FUSE's number of the root directory.
pub const ROOT_INO: u64 = 1;
/// Bits of an inode number that hold the image's own number. With 32 bytes for the smallest inode, they cover a bootstrap
/// of 32 TiB.
const NID_BITS: u32 = 40;
/// Numbers of mounts that fit above them.
const MAX_MOUNTS: u32 = 1 << (u64::BITS - NID_BITS);

/// Number of a mount, never used twice in a daemon's life: an inode number that the kernel still remembers from an image
/// that is gone can never mean another image's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountNumber(u32);

impl MountNumber {
    /// The inode number that the kernel sees for an image's inode.
    ///
    /// # Errors
    /// [`FsError::WrongType`] for a number that no bootstrap can have.
    pub fn ino(self, nid: Nid) -> Result<u64, FsError> {
        if nid.0 >> NID_BITS != 0 {
            return Err(FsError::WrongType);
        }
        Ok(u64::from(self.0) << NID_BITS | nid.0)
    }

    /// Its place in the listing of the root.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

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
    /// An inode of an image.
    Inode(Arc<Image>, Nid),
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
        let number = u32::try_from(ino >> NID_BITS).map_err(|_| FsError::Unmounted)?;
        let image = state.images.get(&MountNumber(number)).ok_or(FsError::Unmounted)?;
        Ok(Target::Inode(Arc::clone(image), Nid(ino & ((1 << NID_BITS) - 1))))
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
    fn an_inode_number_that_would_reach_into_the_mount_number_is_refused() {
        assert_eq!(MountNumber(3).ino(Nid(7)).unwrap(), (3 << 40) | 7);
        assert!(MountNumber(3).ino(Nid(1 << 40)).is_err());
    }

    #[test]
    fn an_unknown_inode_number_is_stale() {
        let table = MountTable::default();
        assert!(matches!(table.resolve(ROOT_INO), Ok(Target::Root)));
        for ino in [0, 2, 5 << 40, u64::MAX] {
            assert!(matches!(table.resolve(ino), Err(FsError::Unmounted)), "{ino}");
        }
    }
}
