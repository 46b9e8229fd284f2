//! One mounted image and what is counted of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::task::TaskTracker;

use super::{MountNumber, Mountpoint};
use crate::{
    backends::SwapBackend, config::ImageConfig, counters::Counters, fs::Rafs, fuse::Complaints, trace::Trace,
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
