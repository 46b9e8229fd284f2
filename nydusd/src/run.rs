//! From flags to a running daemon, and its end.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use nydusd_api::{FsType, MountRequest, mount_fuse};
use service::{
    exit::UsageError,
    shutdown,
    socket::{Access, Socket},
    telemetry,
};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::Cli,
    control,
    daemon::{Daemon, Identity},
    fuse::{FuseAdapter, Session, inherited, set_read_ahead},
    memory,
    mounts::Mountpoint,
};

/// How long calls under way, and threads at the end, may take.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Runs the daemon until it is told to end or its file system is unmounted.
///
/// # Errors
/// Where it cannot start, or cannot end well.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    memory::limit_heaps();
    redirect_log(cli.log_file.as_deref())?;
    telemetry::start(&cli.log);
    raise_open_files(cli.rlimit_nofile);
    // Two workers: they wait for the network, the work is done by the FUSE threads and storage's pool.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(serve(cli));
    runtime.shutdown_timeout(END_PATIENCE);
    result
}

async fn serve(cli: Cli) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("signals cannot be listened to")?;
    let identity = Identity { id: cli.id.clone(), supervisor: cli.supervisor.clone() };
    let daemon = Daemon::new(identity, Handle::current(), stop.clone());
    let socket = match &cli.apisock {
        Some(path) => Some(
            Socket::bind(path, Access::Owner)
                .with_context(|| format!("the API cannot listen at {}", path.display()))?,
        ),
        None => None,
    };
    if let Some(request) = request_of(&cli)? {
        daemon.mount(Mountpoint::root(), request).await?;
    }
    let mountpoint = resolve_parent(&cli.mountpoint)?;
    let session = start_session(&cli, &daemon, &mountpoint).await?;
    daemon.set_session(session);
    if let Err(error) = set_read_ahead(&mountpoint, cli.read_ahead_kb) {
        tracing::warn!("the kernel keeps its own read-ahead at {}: {error}", mountpoint.display());
    }
    tracing::info!(mountpoint = %mountpoint.display(), "serving");
    tokio::select! {
        () = serve_calls(&daemon, socket, &stop) => {}
        () = memory::give_back() => {}
    }
    end(&cli, &daemon).await
}

/// Returns when the daemon is told to end, or its file system is unmounted.
async fn serve_calls(daemon: &Arc<Daemon>, socket: Option<Socket>, stop: &CancellationToken) {
    let unmounted = async {
        match daemon.session() {
            Some(session) => session.ended().await,
            None => std::future::pending().await,
        }
        stop.cancel();
    };
    let calls = async {
        let Some(socket) = socket else { return stop.cancelled().await };
        let served = control::serve(socket, Arc::clone(daemon), stop.clone());
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(END_PATIENCE).await;
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::error!("the API has ended: {error}");
            },
            () = late => {}
        }
    };
    tokio::join!(unmounted_or_stopped(unmounted, stop), calls);
}

async fn unmounted_or_stopped(unmounted: impl Future<Output = ()>, stop: &CancellationToken) {
    tokio::select! { () = unmounted => {}, () = stop.cancelled() => {} }
}

async fn end(cli: &Cli, daemon: &Arc<Daemon>) -> anyhow::Result<()> {
    tracing::info!("ending");
    let mut result = Ok(());
    daemon.leave_kernel();
    if let Some(session) = daemon.session().filter(|_| cli.fuse_fd.is_none()) {
        let already = tokio::time::timeout(Duration::ZERO, session.ended()).await.is_ok();
        if !already {
            result = session.unmount().context("the file system cannot be unmounted");
        }
    }
    daemon.close_all().await;
    result
}

async fn start_session(cli: &Cli, daemon: &Arc<Daemon>, mountpoint: &Path) -> anyhow::Result<Session> {
    let device = match cli.fuse_fd {
        Some(number) => inherited::take(number).context("--fuse-fd")?,
        None => mount_fuse(mountpoint, "rafs")?,
    };
    let adapter = FuseAdapter::new(Arc::clone(daemon.mounts()), Arc::clone(daemon.reads()));
    Ok(Session::start(adapter, device, mountpoint.to_owned(), cli.thread_num.into()).await?)
}

/// The image that the flags name.
fn request_of(cli: &Cli) -> anyhow::Result<Option<MountRequest>> {
    let Some(bootstrap) = &cli.bootstrap else {
        if cli.config.is_some() || cli.localfs_dir.is_some() {
            return Err(UsageError("--config and --localfs-dir need --bootstrap".into()).into());
        }
        return Ok(None);
    };
    let config = match (&cli.config, &cli.localfs_dir) {
        (Some(path), _) => std::fs::read_to_string(path).map_err(|error| {
            UsageError(format!("configuration {} cannot be read: {error}", path.display()))
        })?,
        (None, Some(_)) => "{}".into(),
        (None, None) => return Err(UsageError("--bootstrap needs --config or --localfs-dir".into()).into()),
    };
    Ok(Some(MountRequest {
        fs_type: FsType::Rafs,
        source: bootstrap.display().to_string(),
        config: with_overrides(&config, cli)?,
        prefetch_files: Some(prefetch_files(&cli.prefetch_files)?),
        // Whoever unmounts the mountpoint ends the daemon: nothing else may be mounted there.
        kernel_mountpoint: None,
    }))
}

/// Puts what flags and environment say into a configuration.
fn with_overrides(config: &str, cli: &Cli) -> anyhow::Result<String> {
    let mut json: serde_json::Value = serde_json::from_str(config)
        .map_err(|error| UsageError(format!("the configuration is no JSON: {error}")))?;
    let is_v2 = json["version"] == 2;
    if let Some(dir) = &cli.localfs_dir {
        let backend = match is_v2 {
            true => serde_json::json!({ "type": "localfs", "localfs": { "dir": dir } }),
            false => serde_json::json!({ "type": "localfs", "config": { "dir": dir } }),
        };
        let parent = if is_v2 { &mut json } else { &mut json["device"] };
        parent["backend"] = backend;
    }
    if let Ok(auth) = std::env::var("IMAGE_PULL_AUTH") {
        let backend = if is_v2 { &mut json["backend"] } else { &mut json["device"]["backend"] };
        if backend["type"] == "registry" {
            backend[if is_v2 { "registry" } else { "config" }]["auth"] = auth.into();
        }
    }
    Ok(json.to_string())
}

fn prefetch_files(listed: &[String]) -> anyhow::Result<Vec<String>> {
    if listed != ["-"] {
        return Ok(listed.to_vec());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("the list of files to prefetch cannot be read")?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The mountpoint without symbolic links above it; itself it is not touched, it may be mounted already.
fn resolve_parent(mountpoint: &Path) -> anyhow::Result<PathBuf> {
    let wrong = || UsageError(format!("{} is no directory to mount at", mountpoint.display()));
    let name = mountpoint.file_name().ok_or_else(wrong)?;
    let parent = mountpoint.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new(".")).canonicalize().map_err(|_| wrong())?;
    Ok(parent.join(name))
}

fn redirect_log(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("log file {} cannot be written", path.display()))?;
    // All of stderr: what the runtime says when it aborts belongs into the file too.
    nix::unistd::dup2_stderr(file).context("stderr cannot be redirected")
}

/// Takes what the hard limit gives.
fn raise_open_files(wanted: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if wanted > hard && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return;
    }
    if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_err() {
        tracing::warn!(soft, "the limit of open files cannot be raised");
    }
}
