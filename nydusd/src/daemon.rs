//! The daemon: images, the FUSE session they are seen through, and what the API may do with them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use nydusd_api::{DaemonState, DataPath, FsType, MountRequest, MountedImage};
use storage::{StorageError, backend::Backend as _};
use tokio::{runtime::Handle, sync::Mutex};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backends::{BackendUnusable, Backends},
    config::{self, BackendConfig, ConfigError, ImageConfig, Secret},
    events::Events,
    explain::ExplainError,
    fs::{OpenError, Rafs},
    fuse::{ReadQueue, Session},
    kernel::KernelPath,
    mounts::{BadMountpoint, Image, ImageParts, MountError, MountTable, Mountpoint},
    prefetch,
};

/// How long reads under way may take when their image is unmounted.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a read waits for its turn behind others.
const TURN_PATIENCE: Duration = Duration::from_secs(60);

/// A call that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration of the image is wrong.
    #[error("the image's configuration is wrong")]
    Config(#[from] ConfigError),
    /// Where its blobs come from cannot be used.
    #[error(transparent)]
    Backend(#[from] BackendUnusable),
    /// Its cache cannot be used.
    #[error("the image's cache cannot be used")]
    Cache(#[source] StorageError),
    /// The image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The place is wrong.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The text is no mountpoint.
    #[error(transparent)]
    Mountpoint(#[from] BadMountpoint),
    /// What became of the image's chunks cannot be told.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// Not served by this daemon.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// An argument is wrong.
    #[error("{0}")]
    Argument(String),
    /// A bug: the code that does it has panicked.
    #[error("the code that does this has panicked")]
    Panic,
    /// The daemon is going down.
    #[error("the daemon is going down")]
    Stopping,
}

/// Who a daemon is, as the API tells it.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The `--id` it was started with.
    pub id: Option<String>,
    /// The `--supervisor` it was started with.
    pub supervisor: Option<PathBuf>,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    identity: Identity,
    mounts: Arc<MountTable>,
    reads: Arc<ReadQueue>,
    events: Arc<Events>,
    backends: Backends,
    session: OnceLock<Session>,
    kernel: KernelPath,
    /// Held while images come and go, so that a check still holds when its deed is done.
    changes: Arc<Mutex<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Daemon {
    /// A daemon without images, whose tasks run on `runtime`; cancelling `stop` ends it.
    #[must_use]
    pub fn new(identity: Identity, runtime: Handle, stop: CancellationToken) -> Arc<Self> {
        let events = Arc::new(Events::default());
        Arc::new(Self {
            identity,
            mounts: Arc::default(),
            reads: Arc::new(ReadQueue::new(runtime, TURN_PATIENCE, Arc::clone(&events))),
            events,
            backends: Backends::default(),
            session: OnceLock::new(),
            kernel: KernelPath::default(),
            changes: Arc::default(),
            tasks: TaskTracker::new(),
            stop,
        })
    }

    /// Who it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its images.
    pub const fn mounts(&self) -> &Arc<MountTable> {
        &self.mounts
    }

    /// Where its reads go.
    pub const fn reads(&self) -> &Arc<ReadQueue> {
        &self.reads
    }

    /// Its last errors.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Takes the session through which the images are seen.
    pub fn set_session(&self, session: Session) {
        drop(self.session.set(session));
    }

    /// The session, once there is one.
    pub fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    /// Where it is in its life.
    pub fn state(&self) -> DaemonState {
        match (self.stop.is_cancelled(), self.session.get()) {
            (true, _) => DaemonState::Stopped,
            (false, None) => DaemonState::Init,
            (false, Some(_)) => DaemonState::Running,
        }
    }

    /// Begins to end it.
    pub fn exit(&self) {
        self.stop.cancel();
    }

    /// Mounts an image. Waits for nothing on the network.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing has changed then.
    pub async fn mount(
        self: &Arc<Self>,
        mountpoint: Mountpoint,
        request: MountRequest,
    ) -> Result<(), DaemonError> {
        let turn = self.turn(&request).await?;
        let daemon = Arc::clone(self);
        let image = self
            .blocking(move || {
                daemon.mounts.check_free(&mountpoint)?;
                let image = daemon.mounts.add(daemon.open(mountpoint, &request)?)?;
                daemon.show_in_kernel(&image, request.kernel_mountpoint.as_deref());
                daemon.prepare_backend(&image);
                daemon.start_prefetch(&image, request.prefetch_files);
                drop(turn);
                Ok(image)
            })
            .await?;
        self.forget_names(&image, None).await;
        let data_path = self.describe(&image).data_path;
        tracing::info!(image = %image.mountpoint(), source = %image.source().display(), %data_path, "mounted");
        Ok(())
    }

    /// Puts another bootstrap in the place of a mounted image.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing has changed then.
    pub async fn remount(
        self: &Arc<Self>,
        mountpoint: Mountpoint,
        request: MountRequest,
    ) -> Result<(), DaemonError> {
        let turn = self.turn(&request).await?;
        let daemon = Arc::clone(self);
        let (old, new) = self
            .blocking(move || {
                daemon.mounts.get(&mountpoint)?;
                let old = daemon.mounts.replace(daemon.open(mountpoint.clone(), &request)?)?;
                let new = daemon.mounts.get(&mountpoint)?;
                old.leave_kernel();
                daemon.show_in_kernel(&new, request.kernel_mountpoint.as_deref());
                daemon.prepare_backend(&new);
                daemon.start_prefetch(&new, request.prefetch_files);
                drop(turn);
                Ok((old, new))
            })
            .await?;
        self.forget_names(&new, Some(&old)).await;
        tracing::info!(image = %new.mountpoint(), source = %new.source().display(), "mounted anew");
        self.close(old).await;
        Ok(())
    }

    /// Unmounts an image; reads under way have a few seconds.
    ///
    /// # Errors
    /// [`DaemonError::Mount`] where it is not mounted.
    pub async fn umount(self: &Arc<Self>, mountpoint: &Mountpoint) -> Result<(), DaemonError> {
        let image = {
            let _turn = self.changes.lock().await;
            let image = self.mounts.get(mountpoint)?;
            // First, while its reads are still answered: whoever just came through ends well.
            let leaving = move || {
                image.leave_kernel();
                Ok(())
            };
            self.blocking(leaving).await?;
            self.mounts.remove(mountpoint)?
        };
        self.forget_names(&image, Some(&image)).await;
        tracing::info!(image = %mountpoint, "unmounted");
        self.close(image).await;
        Ok(())
    }

    /// All images, and where they are seen.
    pub fn mounted(&self) -> Vec<MountedImage> {
        self.mounts.all().iter().map(|image| self.describe(image)).collect()
    }

    fn describe(&self, image: &Image) -> MountedImage {
        let fuse = || self.session.get().map(|session| session.mountpoint().to_owned()).unwrap_or_default();
        let mountpoint = image.mountpoint();
        let (data_path, path) = match image.kernel_path() {
            Some(path) => (DataPath::Erofs, path),
            None if mountpoint.is_root() => (DataPath::Fuse, fuse()),
            None => (DataPath::Fuse, fuse().join(mountpoint.name())),
        };
        MountedImage { mountpoint: mountpoint.to_string(), data_path, path }
    }

    /// Reads of a mounted image use another credential from now on.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub fn set_registry_auth(&self, mountpoint: &Mountpoint, auth: &str) -> Result<(), DaemonError> {
        let image = self.mounts.get(mountpoint)?;
        let secret = Secret::from_basic(auth)
            .map_err(|problem| DaemonError::Argument(format!("registry_auth {problem}")))?;
        let BackendConfig::Registry(config) = &image.config().backend else {
            return Err(DaemonError::Argument(format!("{mountpoint} has no registry backend")));
        };
        image.backend().swap(self.backends.with_secret(config, image.source(), secret)?);
        Ok(())
    }

    /// Ends all images: reads under way have a few seconds, all images at once.
    pub async fn close_all(self: &Arc<Self>) {
        let closed = async {
            let _turn = self.changes.lock().await;
            for image in self.mounts.all() {
                self.tasks.spawn(async move { image.close(DRAIN_PATIENCE).await });
            }
            self.tasks.close();
            self.tasks.wait().await;
        };
        if tokio::time::timeout(2 * DRAIN_PATIENCE, closed).await.is_err() {
            tracing::warn!("some images did not end in time");
        }
    }

    /// Takes all images out of the kernel's own driver, which holds on to the FUSE mount.
    pub fn leave_kernel(&self) {
        self.mounts.all().iter().for_each(|image| image.leave_kernel());
    }

    /// Has the kernel's own driver show an image, where it is asked to. That it does not is no error: the image is seen
    /// through FUSE all the same.
    fn show_in_kernel(&self, image: &Image, at: Option<&Path>) {
        let (Some(at), Some(session)) = (at, self.session.get()) else { return };
        match self.kernel.mount(image, session.mountpoint(), at) {
            Ok(mount) => image.set_kernel(mount),
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(image = %image.mountpoint(), "seen through FUSE, not EROFS: {error:#}");
            }
        }
    }

    async fn turn(&self, request: &MountRequest) -> Result<tokio::sync::OwnedMutexGuard<()>, DaemonError> {
        if request.fs_type == FsType::Passthrough {
            return Err(DaemonError::Unsupported("fs_type passthroughfs"));
        }
        if let Some(at) = request.kernel_mountpoint.as_deref().filter(|at| !at.is_absolute()) {
            let problem = format!("kernel_mountpoint {} is not absolute", at.display());
            return Err(DaemonError::Argument(problem));
        }
        let turn = Arc::clone(&self.changes).lock_owned().await;
        if self.stop.is_cancelled() { Err(DaemonError::Stopping) } else { Ok(turn) }
    }

    /// Runs `work` to its end even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, DaemonError> + Send + 'static,
    ) -> Result<T, DaemonError> {
        self.tasks.spawn_blocking(work).await.unwrap_or_else(|error| {
            Err(if error.is_panic() { DaemonError::Panic } else { DaemonError::Stopping })
        })
    }

    fn open(&self, mountpoint: Mountpoint, request: &MountRequest) -> Result<ImageParts, DaemonError> {
        let (config, unknown) = config::parse(&request.config)?;
        for key in unknown {
            tracing::warn!(image = %mountpoint, key, "a key of the configuration has no effect");
        }
        self.open_configured(mountpoint, request.source.clone().into(), config)
    }

    fn open_configured(
        &self,
        mountpoint: Mountpoint,
        source: PathBuf,
        config: ImageConfig,
    ) -> Result<ImageParts, DaemonError> {
        let backend = self.backends.open(&config.backend, &source)?;
        let cache = self.backends.cache(&config.cache_dir).map_err(DaemonError::Cache)?;
        let rafs = Rafs::open(&source, &cache, backend.clone(), config.policy.clone())?;
        Ok(ImageParts { mountpoint, rafs, backend, source, config })
    }

    /// Tells the backend of the blobs, beside the first reads; ends with the image at the latest.
    fn prepare_backend(&self, image: &Arc<Image>) {
        let blobs = image.rafs().blobs().iter().map(|blob| blob.id.clone()).collect();
        let (backend, image) = (Arc::clone(image.backend()), Arc::clone(image));
        self.tasks.spawn(async move {
            tokio::select! {
                () = backend.prepare(blobs) => {}
                () = image.reads().wait() => {}
            }
        });
    }

    fn start_prefetch(&self, image: &Arc<Image>, files: Option<Vec<String>>) {
        let image = Arc::clone(image);
        self.tasks.spawn_blocking(move || prefetch::start(&image, &files.unwrap_or_default()));
    }

    /// Tells the kernel which names of the root mean something else now: the image's own, or all in it where it is the
    /// root itself.
    async fn forget_names(&self, image: &Image, gone: Option<&Image>) {
        let Some(session) = self.session.get() else { return };
        let names = match (image.mountpoint().is_root(), gone) {
            (false, _) => vec![image.mountpoint().name().into()],
            // Also names that were not there before: the kernel remembers that, too.
            (true, Some(gone)) => [names_in_root(gone.rafs()), names_in_root(image.rafs())].concat(),
            (true, None) => Vec::new(),
        };
        session.forget_names(names).await;
    }

    /// Closes an image in a task of its own, so that the end of a call does not cut it short.
    async fn close(&self, image: Arc<Image>) {
        let closed = self.tasks.spawn(async move { image.close(DRAIN_PATIENCE).await });
        if closed.await.is_err() {
            tracing::warn!("an image did not end well");
        }
    }
}

fn names_in_root(rafs: &Rafs) -> Vec<Vec<u8>> {
    let Ok(entries) = rafs.read_dir(rafs.root(), 0) else { return Vec::new() };
    entries.filter_map(Result::ok).filter(|entry| !entry.is_dot()).map(|entry| entry.name.to_vec()).collect()
}
