//! One mounted image and what is counted of it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::task::TaskTracker;

use super::{MountNumber, Mountpoint};
use crate::{
    backends::SwapBackend, config::ImageConfig, counters::Counters, fs::Rafs, fuse::Complaints,
    kernel::KernelMount, trace::Trace,
};

/// What an image is made of.
#[derive(Debug)]
pub struct ImageParts {
    /// Where it stands.
    pub mountpoint: Mountpoint,
    /// The file system.
    pub rafs: Rafs,
    /// Where its blobs come from.
    pub backend: Arc<SwapBackend>,
    /// Its bootstrap file.
    pub source: PathBuf,
    /// Its configuration.
    pub config: ImageConfig,
}

/// A mounted image.
#[derive(Debug)]
pub struct Image {
    number: MountNumber,
    parts: ImageParts,
    counters: Counters,
    complaints: Complaints,
    trace: Trace,
    reads: TaskTracker,
    kernel: Mutex<Option<KernelMount>>,
}

impl Image {
    pub(super) fn new(number: MountNumber, parts: ImageParts) -> Self {
        Self {
            number,
            parts,
            counters: Counters::default(),
            complaints: Complaints::default(),
            trace: Trace::default(),
            reads: TaskTracker::new(),
            kernel: Mutex::default(),
        }
    }

    /// Its number.
    pub const fn number(&self) -> MountNumber {
        self.number
    }

    /// Where it stands.
    pub const fn mountpoint(&self) -> &Mountpoint {
        &self.parts.mountpoint
    }

    /// The file system.
    pub const fn rafs(&self) -> &Rafs {
        &self.parts.rafs
    }

    /// Where its blobs come from.
    pub const fn backend(&self) -> &Arc<SwapBackend> {
        &self.parts.backend
    }

    /// Its bootstrap file.
    pub const fn source(&self) -> &PathBuf {
        &self.parts.source
    }

    /// Its configuration, as it was mounted.
    pub const fn config(&self) -> &ImageConfig {
        &self.parts.config
    }

    /// Counts of its requests.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When its failures were last told.
    pub(crate) const fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    /// Record of what is read.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Reads that wait for bytes.
    pub const fn reads(&self) -> &TaskTracker {
        &self.reads
    }

    /// Where the kernel's own driver shows it, if it does.
    pub fn kernel_path(&self) -> Option<PathBuf> {
        self.lock_kernel().as_ref().map(|mount| mount.path().to_owned())
    }

    /// Takes over where the kernel's own driver shows it.
    pub(crate) fn set_kernel(&self, mount: KernelMount) {
        *self.lock_kernel() = Some(mount);
    }

    /// Takes it out of the kernel's own driver, if it is there: new readers do not find it any more.
    pub(crate) fn leave_kernel(&self) {
        if let Some(mount) = self.lock_kernel().take() {
            mount.detach();
        }
    }

    fn lock_kernel(&self) -> MutexGuard<'_, Option<KernelMount>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it after it was taken out of the table: waits for reads under way, at most `patience`, then fails the rest.
    pub async fn close(&self, patience: Duration) {
        self.reads.close();
        let drained = tokio::time::timeout(patience, self.reads.wait()).await;
        if drained.is_err() {
            tracing::warn!(image = %self.mountpoint(), "reads still waited for bytes and are failed");
        }
        self.rafs().close().await;
    }
}
