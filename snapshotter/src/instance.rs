//! Lazy images as directories in nydusd's mount: each is mounted when it is first needed in a life of the daemon.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nydusd_api::{Client, ClientError, FsType, MountRequest};
use registry::Reference;
use service::causes::in_one_line;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    config::DataPath,
    daemon::{Daemon, Session},
    error::ImageError,
    labels::Labels,
    layout::Layout,
    meta::{Database, Record, SnapshotId},
    nydusd_config::Template,
};

/// A caller waits no longer than this; containerd's own patience is longer.
const MOUNT: Duration = Duration::from_secs(30);
const UMOUNT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// All lazy images of this node.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    daemon: Daemon,
    layout: Layout,
    template: Template,
    data_path: DataPath,
    slots: Mutex<HashMap<SnapshotId, Arc<AsyncMutex<Slot>>>>,
}

/// What is known of one image in the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Absent,
    Mounted {
        generation: u64,
        path: PathBuf,
    },
    /// A mount or unmount was begun and its answer is not known.
    Unknown {
        generation: u64,
    },
}

impl Images {
    /// Images that `daemon` serves, mounted with configurations made from `template`.
    #[must_use]
    pub fn new(daemon: Daemon, layout: Layout, template: Template, data_path: DataPath) -> Self {
        let slots = Mutex::default();
        Self { inner: Arc::new(Inner { daemon, layout, template, data_path, slots }) }
    }

    /// Has the daemon started ahead of need.
    pub fn wake(&self) {
        self.inner.daemon.wake();
    }

    /// Makes sure that the image of this bootstrap layer is mounted, and tells where.
    ///
    /// # Errors
    /// [`ImageError`]; always within a deadline.
    pub async fn mounted(&self, layer: &Record) -> Result<PathBuf, ImageError> {
        let request = self.request(layer)?;
        let mountpoint = mountpoint(layer.id);
        let slot = self.slot(layer.id);
        timeout(MOUNT, self.mount(&slot, &mountpoint, &request))
            .await
            .map_err(|_| ImageError::Deadline(MOUNT))?
    }

    async fn mount(
        &self,
        slot: &AsyncMutex<Slot>,
        mountpoint: &str,
        request: &MountRequest,
    ) -> Result<PathBuf, ImageError> {
        loop {
            // Ahead of the deadline of the whole, so that the caller hears why there is no daemon.
            let session = self.inner.daemon.session(MOUNT / 2).await?;
            let mut slot = slot.lock().await;
            match mount_once(&mut slot, &session, mountpoint, request).await {
                Ok(path) => return Ok(path),
                Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
                // The daemon died under the call, or is about to be found dead: its next life takes it.
                Err(error) => debug!(%mountpoint, error = in_one_line(&error), "mounting again"),
            }
            drop(slot);
            sleep(RETRY).await;
        }
    }

    /// Unmounts images that no snapshot stands for any more.
    pub async fn keep_only(&self, live: &HashSet<SnapshotId>) {
        let Some(session) = self.inner.daemon.running() else { return };
        let adopted = session.adopted.keys().filter_map(|name| name.strip_prefix('/')?.parse().ok());
        let known: HashSet<SnapshotId> = adopted.chain(self.slots().keys().copied()).collect();
        for id in known.into_iter().filter(|id| !live.contains(id)) {
            let slot = self.slot(id);
            let mut slot = slot.lock().await;
            unmount_once(&mut slot, &session, &mountpoint(id)).await;
            self.slots().remove(&id);
        }
    }

    /// Mounts again what containers stand on, in each new life of the daemon. Ends with the daemon.
    pub async fn remount(self, database: Database) {
        let mut generation = 0;
        while let Some(session) = self.inner.daemon.next_life(generation).await {
            generation = session.generation;
            let layers = match database.in_use().await {
                Ok(layers) => layers,
                Err(error) => {
                    warn!(error = in_one_line(&error), "cannot tell which images are in use");
                    continue;
                }
            };
            // One after the other: a container that is waiting for its image does not queue behind them.
            for layer in layers.iter().filter(|layer| layer.labels.is_bootstrap()) {
                match self.mounted(layer).await {
                    Ok(path) => info!(path = %path.display(), name = layer.name, "image in use is mounted"),
                    Err(error) => {
                        warn!(
                            name = layer.name,
                            error = in_one_line(&error),
                            "image in use cannot be mounted"
                        );
                    }
                }
            }
        }
    }

    /// Has the daemon started where containers stand on lazy images.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn wake_if_in_use(&self, database: &Database) -> Result<(), crate::meta::MetaError> {
        if database.in_use().await?.iter().any(|layer| layer.labels.is_bootstrap()) {
            self.wake();
        }
        Ok(())
    }

    fn request(&self, layer: &Record) -> Result<MountRequest, ImageError> {
        let source = self.inner.layout.bootstrap(layer.id).map_err(ImageError::Bootstrap)?;
        let reference = reference(&layer.labels)?;
        let config =
            self.inner.template.fill(&mountpoint(layer.id), &reference.repository, layer.labels.credential());
        Ok(MountRequest {
            fs_type: FsType::Rafs,
            source: source.display().to_string(),
            config: config.to_string(),
            prefetch_files: None,
            kernel_mountpoint: match self.inner.data_path {
                DataPath::Auto => Some(self.inner.layout.kernel_mount(layer.id)),
                DataPath::Fuse => None,
            },
        })
    }

    fn slot(&self, id: SnapshotId) -> Arc<AsyncMutex<Slot>> {
        let fresh = || Arc::new(AsyncMutex::new(Slot::Absent));
        Arc::clone(self.slots().entry(id).or_insert_with(fresh))
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<SnapshotId, Arc<AsyncMutex<Slot>>>> {
        self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mountpoint(id: SnapshotId) -> String {
    format!("/{id}")
}

fn reference(labels: &Labels) -> Result<Reference, ImageError> {
    let text = labels.image_reference().ok_or(ImageError::NoReference)?;
    Reference::parse(text).map_err(|source| ImageError::Reference { reference: text.to_owned(), source })
}

async fn mount_once(
    slot: &mut Slot,
    session: &Session,
    mountpoint: &str,
    request: &MountRequest,
) -> Result<PathBuf, ClientError> {
    let generation = session.generation;
    match slot {
        Slot::Mounted { generation: mounted, path } if *mounted == generation => return Ok(path.clone()),
        Slot::Absent => {
            if let Some(path) = session.adopted.get(mountpoint) {
                *slot = Slot::Mounted { generation, path: path.clone() };
                return Ok(path.clone());
            }
        }
        // Whether it is there or not: afterwards it is not.
        Slot::Unknown { generation: asked } if *asked == generation => {
            unmount_once(slot, session, mountpoint).await;
        }
        _ => {}
    }
    // A caller that goes away here leaves it unknown.
    *slot = Slot::Unknown { generation };
    let result = mount_and_find(&session.client, mountpoint, request).await;
    *slot = match &result {
        Ok(path) => Slot::Mounted { generation, path: path.clone() },
        Err(ClientError::Refused { .. }) => Slot::Absent,
        Err(_) => Slot::Unknown { generation },
    };
    result
}

/// Mounts an image, and tells where it is seen: that is the daemon's decision.
async fn mount_and_find(
    client: &Client,
    mountpoint: &str,
    request: &MountRequest,
) -> Result<PathBuf, ClientError> {
    client.mount(mountpoint, request).await?;
    let mounts = client.mounts().await?;
    let found = mounts.into_iter().find(|image| image.mountpoint == mountpoint);
    found.map(|image| image.path).ok_or_else(|| client.broken("GET /api/v1/mount", &"the image is not there"))
}

async fn unmount_once(slot: &mut Slot, session: &Session, mountpoint: &str) {
    *slot = Slot::Unknown { generation: session.generation };
    match timeout(UMOUNT, session.client.umount(mountpoint)).await {
        Ok(Ok(())) => info!(mountpoint, "image unmounted"),
        Ok(Err(error)) => debug!(mountpoint, error = in_one_line(&error), "image was not unmounted"),
        Err(_) => warn!(mountpoint, "nydusd does not answer"),
    }
}
