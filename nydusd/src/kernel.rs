//! The kernel path: Linux' own EROFS driver reads an image's bootstrap and asks the daemon for bytes of blobs only.
//!
//! What the kernel then does by itself costs no switch to the daemon: names, attributes, and everything that was read
//! before. Each blob is a file in a directory of the daemon's FUSE mount that is not listed; EROFS reads it past that
//! file's own page cache. Where the machine cannot do it, or not safely, the image stays where it is anyway: in FUSE.

mod driver;
mod place;
mod probe;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nydusd_api::detach;
use rafs::BlobIndex;

pub(crate) use probe::probe_block;

use crate::{
    fs::FsError,
    mounts::{BLOBS_NAME, Image},
};

/// An image that the kernel does not read by itself.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This machine cannot.
    #[error("this machine's kernel cannot: {0}")]
    Unfit(String),
    /// Something in the image is not as it should be, though it may never be looked at.
    #[error("the image is not for a kernel's eyes")]
    Image(#[from] FsError),
    /// There is no place for it.
    #[error("{at} cannot be mounted on")]
    Place {
        /// Where.
        at: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The driver refuses.
    #[error("EROFS refuses the image")]
    Refused(#[source] io::Error),
}

/// Mounts images by EROFS, once it has seen that this machine can.
#[derive(Debug, Default)]
pub struct KernelPath {
    /// What the probe has found, and why not, if not.
    fit: Mutex<Option<Result<(), String>>>,
}

/// An image in EROFS. Taking it out of the tree leaves it to those who stand on it.
#[derive(Debug)]
pub struct KernelMount {
    at: PathBuf,
}

impl KernelPath {
    /// Mounts `image` at `at`, an empty directory that is made where it is missing. `fuse` is where the daemon's own mount is, which
    /// must be served by other threads than the caller's.
    ///
    /// # Errors
    /// [`KernelError`]; nothing is mounted then.
    pub fn mount(&self, image: &Image, fuse: &Path, at: &Path) -> Result<KernelMount, KernelError> {
        let place = |source| KernelError::Place { at: at.to_owned(), source };
        place::prepare(at).map_err(place)?;
        let blobs = fuse.join(BLOBS_NAME);
        let within = at.parent().unwrap_or_else(|| Path::new("/"));
        self.probe(&blobs, within)?;
        image.rafs().check_all()?;
        let devices = image.rafs().blobs().iter().zip(0u8..);
        let devices: Vec<_> =
            devices.map(|(_, index)| blobs.join(image.number().blob_name(BlobIndex(index)))).collect();
        driver::mount(image.source(), &devices, at).map_err(KernelError::Refused)?;
        Ok(KernelMount { at: at.to_owned() })
    }

    /// Looks once whether this machine can.
    fn probe(&self, blobs: &Path, within: &Path) -> Result<(), KernelError> {
        let mut fit = self.fit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*fit {
            return known.clone().map_err(KernelError::Unfit);
        }
        let found = probe::probe(blobs, within);
        // Where it could not look, it knows no more than before.
        if !matches!(found, Err(probe::Unfit::Files(_))) {
            *fit = Some(found.as_ref().map_err(ToString::to_string).copied());
        }
        found.map_err(|unfit| KernelError::Unfit(unfit.to_string()))
    }
}

impl KernelMount {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes it out of the tree. Those who stand on it keep it.
    pub fn detach(&self) {
        if let Err(error) = detach(&self.at) {
            tracing::warn!(at = %self.at.display(), %error, "cannot be unmounted");
        }
        // Fails where something else is there by now, which is not ours to remove.
        std::fs::remove_dir(&self.at).ok();
    }
}
