//! The whole program: everything put together, started, and ended in order.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    cleanup::Sweeper,
    config::{Address, Config},
    daemon::{self, Launch, LaunchOptions},
    instance::Images,
    layout::Layout,
    meta::Database,
    nydusd_config::Template,
    overlay,
    service::{Service, serve},
    snapshots::Snapshots,
};

/// Calls under way at the end get this long.
const DRAIN: Duration = Duration::from_secs(5);
/// Longer than ending a daemon that must be killed takes.
const CLOSE: Duration = Duration::from_secs(30);

/// Serves until `end`.
///
/// # Errors
/// Where something cannot be started; what fails later is logged, and answered to containerd.
pub async fn run(config: Config, end: CancellationToken) -> anyhow::Result<()> {
    for key in &config.ignored {
        warn!(key, "the configuration file sets what has no effect");
    }
    let layout = Layout::create(&config.root).with_context(|| format!("make {}", config.root.display()))?;
    let _locked = lock(&layout)?;
    let database = Database::open(&layout.database()).await?;
    let (daemon, supervisor) = daemon::new(launch(&config, &layout));
    let cache = config.cache.clone().unwrap_or_else(|| layout.cache());
    let images = Images::new(daemon, layout.clone(), template(&config, &cache)?, config.data_path);
    let sweeper = Sweeper::new(database.clone(), layout.clone(), cache, images.clone());

    let tasks = TaskTracker::new();
    tasks.spawn(supervisor.run(end.clone(), config.at_close));
    tasks.spawn(images.clone().remount(database.clone()));
    tasks.spawn(sweeper.clone().run(end.clone()));
    tasks.close();

    let snapshots = Snapshots::new(database.clone(), layout, images.clone(), sweeper, overlay::options());
    let served = async {
        // Only asks for the daemon: a registry that is down or a bad image never delays the start.
        images.wake_if_in_use(&database).await?;
        let listener = listen(&config.address).await?;
        info!(address = %config.address.path.display(), root = %config.root.display(), "serving");
        let drained = async {
            end.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serve(Service(snapshots), listener, end.clone()) => served.context("serve containerd"),
            () = drained => {
                warn!("calls under way are cut short");
                Ok(())
            }
        }
    }
    .await;
    end.cancel();
    if tokio::time::timeout(CLOSE, tasks.wait()).await.is_err() {
        warn!("not everything ended in time");
    }
    fs::remove_file(&config.address.path).ok();
    served
}

fn launch(config: &Config, layout: &Layout) -> Launch {
    let log_level = config.log.log_level.to_possible_value().map(|level| level.get_name().to_owned());
    let options = LaunchOptions {
        binary: config.nydusd.clone(),
        log_level: log_level.unwrap_or_else(|| "info".into()),
        threads: config.threads,
    };
    Launch::new(options, layout)
}

fn template(config: &Config, cache: &Path) -> anyhow::Result<Template> {
    let template = match &config.nydusd_config {
        Some(file) => Template::read(file, cache),
        None => Ok(Template::standard(cache)),
    };
    Ok(template?.with_registry(&config.hosts_dirs, config.p2p_socket.as_deref()))
}

/// Two snapshotters on one root would destroy each other's work.
fn lock(layout: &Layout) -> anyhow::Result<Flock<File>> {
    let path = layout.lock();
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    locked
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("another snapshotter holds {}", path.display()))
}

/// Listens on the socket, in place of one that nobody serves any more.
async fn listen(address: &Address) -> anyhow::Result<UnixListener> {
    let path = &address.path;
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("make {}", directory.display()))?;
    }
    if UnixStream::connect(path).await.is_ok() {
        bail!("another snapshotter serves {}", path.display());
    }
    remove_if_there(path).with_context(|| format!("remove {}", path.display()))?;
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .with_context(|| format!("protect {}", path.display()))?;
    chown(path, address.uid, address.gid).with_context(|| format!("give {} away", path.display()))?;
    Ok(listener)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
