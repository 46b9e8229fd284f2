//! One function for each request.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::Response,
};
use nydusd_api::{
    BuildVersion, DaemonStatus, ExplainRequest, Explanation, MountRequest, MountedImage, TracedFile,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use service::{
    telemetry::{self, LogLevel},
    version,
};

use super::error;
use crate::{
    config::BackendConfig,
    daemon::{Daemon, DaemonError},
    explain,
    mounts::Mountpoint,
};

pub(super) type Args = Query<BTreeMap<String, String>>;
type DaemonRef = State<Arc<Daemon>>;

/// The mountpoint that argument `name` tells.
fn mountpoint(args: &Args, name: &str) -> Result<Mountpoint, DaemonError> {
    let text = args.get(name).ok_or_else(|| DaemonError::Argument(format!("argument {name} is missing")))?;
    Ok(text.parse()?)
}

/// The value of argument `name`, or that of one that is not told.
fn argument<T: FromStr + Default>(args: &Args, name: &str) -> Result<T, DaemonError> {
    let wrong = |text: &String| DaemonError::Argument(format!("argument {name} cannot be {text:?}"));
    args.get(name).map_or_else(|| Ok(T::default()), |text| text.parse().map_err(|_| wrong(text)))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, DaemonError> {
    serde_json::from_slice(body).map_err(|error| DaemonError::Argument(format!("the body is wrong: {error}")))
}

pub(super) async fn daemon(State(daemon): DaemonRef) -> Json<DaemonStatus> {
    let images = daemon.mounts().all();
    let backends: Map<String, Value> = images
        .iter()
        .map(|image| (image.mountpoint().to_string(), image.config().backend.to_json()))
        .collect();
    Json(DaemonStatus {
        id: daemon.identity().id.clone(),
        version: BuildVersion {
            package_ver: version::PACKAGE.into(),
            git_commit: version::COMMIT.into(),
            build_time: version::BUILD_TIME.into(),
            profile: version::PROFILE.into(),
            rustc: version::RUSTC.into(),
        },
        supervisor: daemon.identity().supervisor.as_ref().map(|path| path.display().to_string()),
        state: daemon.state(),
        backend_collection: Value::Object(backends),
    })
}

#[derive(Deserialize)]
struct DaemonSettings {
    log_level: String,
}

pub(super) async fn configure_daemon(body: Bytes) -> Result<StatusCode, DaemonError> {
    let settings: DaemonSettings = parse(&body)?;
    let level = LogLevel::parse(&settings.log_level)
        .ok_or_else(|| DaemonError::Argument(format!("there is no log level {:?}", settings.log_level)))?;
    telemetry::set_level(level);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn events(State(daemon): DaemonRef) -> Json<Vec<String>> {
    Json(daemon.events().all())
}

/// It serves from the beginning; a caller that has to start it finds it started.
pub(super) async fn start() -> StatusCode {
    StatusCode::NO_CONTENT
}

pub(super) async fn exit(State(daemon): DaemonRef) -> StatusCode {
    daemon.exit();
    StatusCode::NO_CONTENT
}

pub(super) async fn backend(State(daemon): DaemonRef, args: Args) -> Result<Json<Value>, DaemonError> {
    let image = daemon.mounts().get(&mountpoint(&args, "mountpoint")?)?;
    Ok(Json(image.config().backend.to_json()))
}

pub(super) async fn mounts(State(daemon): DaemonRef) -> Json<Vec<MountedImage>> {
    Json(daemon.mounted())
}

pub(super) async fn mount(
    State(daemon): DaemonRef,
    args: Args,
    body: Bytes,
) -> Result<StatusCode, DaemonError> {
    let request: MountRequest = parse(&body)?;
    daemon.mount(mountpoint(&args, "mountpoint")?, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remount(
    State(daemon): DaemonRef,
    args: Args,
    body: Bytes,
) -> Result<StatusCode, DaemonError> {
    let request: MountRequest = parse(&body)?;
    daemon.remount(mountpoint(&args, "mountpoint")?, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn umount(State(daemon): DaemonRef, args: Args) -> Result<StatusCode, DaemonError> {
    daemon.umount(&mountpoint(&args, "mountpoint")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn config(State(daemon): DaemonRef, args: Args) -> Result<Json<Value>, DaemonError> {
    let image = daemon.mounts().get(&mountpoint(&args, "id")?)?;
    let config = image.config();
    let has_secret = matches!(&config.backend, BackendConfig::Registry(r) if r.access.credential.is_some());
    Ok(Json(json!({
        "backend": config.backend.to_json(),
        "cache": { "work_dir": config.cache_dir },
        // Never the secret itself.
        "registry_auth": if has_secret { "******" } else { "" },
    })))
}

pub(super) async fn configure(
    State(daemon): DaemonRef,
    args: Args,
    body: Bytes,
) -> Result<StatusCode, DaemonError> {
    let mountpoint = mountpoint(&args, "id")?;
    let settings: BTreeMap<String, Value> = parse(&body)?;
    for key in settings.keys().filter(|key| *key != "registry_auth") {
        tracing::warn!(image = %mountpoint, key, "a setting that cannot be changed while mounted is left out");
    }
    match settings.get("registry_auth").and_then(Value::as_str).filter(|auth| !auth.is_empty()) {
        Some(auth) => daemon.set_registry_auth(&mountpoint, auth)?,
        None => drop(daemon.mounts().get(&mountpoint)?),
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start_trace(State(daemon): DaemonRef, args: Args) -> Result<StatusCode, DaemonError> {
    let image = daemon.mounts().get(&mountpoint(&args, "mountpoint")?)?;
    if image.kernel_path().is_some() {
        let problem = "the kernel reads this image by itself: mount it without kernel_mountpoint to trace it";
        return Err(DaemonError::Argument(problem.into()));
    }
    image.trace().start();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn trace(
    State(daemon): DaemonRef,
    args: Args,
) -> Result<Json<Vec<TracedFile>>, DaemonError> {
    let image = daemon.mounts().get(&mountpoint(&args, "mountpoint")?)?;
    // Walking the image may take a while.
    let report = tokio::task::spawn_blocking(move || image.trace().report(image.rafs())).await;
    let report = report.map_err(|_| DaemonError::Stopping)?;
    report.map(Json).map_err(|error| DaemonError::Argument(format!("{:#}", anyhow::Error::new(error))))
}

pub(super) async fn explain(State(daemon): DaemonRef, args: Args) -> Result<Json<Explanation>, DaemonError> {
    let image = daemon.mounts().get(&mountpoint(&args, "mountpoint")?)?;
    let request = ExplainRequest {
        mountpoint: image.mountpoint().to_string(),
        chunks: argument(&args, "chunks")?,
        slowest: argument(&args, "slowest")?,
        path: args.get("path").cloned(),
        paths: argument(&args, "paths")?,
    };
    // A large image takes a while.
    let explained = tokio::task::spawn_blocking(move || explain::explain(&image, &request)).await;
    Ok(Json(explained.map_err(|_| DaemonError::Panic)??))
}

pub(super) async fn unsupported(method: Method, uri: Uri) -> Response {
    let message = format!("{method} {} is not supported", uri.path());
    error(StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED", message)
}
