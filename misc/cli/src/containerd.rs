//! containerd, as far as a pull needs it.

mod content;
mod image;
mod lease;
mod plugins;
mod snapshot;

use std::{future::Future, path::PathBuf, time::Duration};

use anyhow::Context;
use containerd_client::tonic::{
    self, Code, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::Channel,
};

pub(crate) use plugins::Plugin;
pub(crate) use snapshot::Prepared;

/// Longest wait for an answer that needs no bulk work.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for containerd to unpack one layer.
const APPLY_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Where containerd is and whose names are meant.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ContainerdArgs {
    /// containerd's socket
    #[arg(long, short = 'a', env = "CONTAINERD_ADDRESS", default_value = "/run/containerd/containerd.sock")]
    pub(crate) address: PathBuf,
    /// containerd's namespace; Kubernetes uses k8s.io
    #[arg(long, short = 'n', env = "CONTAINERD_NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// The snapshotter that unpacks the image
    #[arg(long, env = "CONTAINERD_SNAPSHOTTER", default_value = "nydus")]
    pub(crate) snapshotter: String,
}

/// A connection to containerd in one namespace, and under one lease once there is one. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Containerd {
    channel: Channel,
    headers: Headers,
    snapshotter: String,
}

/// Puts namespace and lease on each request.
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

impl Containerd {
    /// Connects.
    pub(crate) async fn connect(args: &ContainerdArgs) -> anyhow::Result<Self> {
        let shown = args.address.display();
        let channel = tokio::time::timeout(CALL_DEADLINE, containerd_client::connect(&args.address))
            .await
            .with_context(|| format!("containerd at {shown} does not answer"))?
            .with_context(|| format!("cannot reach containerd at {shown}"))?;
        let namespace = args
            .namespace
            .parse()
            .with_context(|| format!("{:?} cannot be a namespace of containerd", args.namespace))?;
        let headers = Headers { namespace, lease: None };
        Ok(Self { channel, headers, snapshotter: args.snapshotter.clone() })
    }

    /// The snapshotter that was asked for.
    pub(crate) fn snapshotter(&self) -> &str {
        &self.snapshotter
    }
}

/// containerd's no, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub(crate) struct Refusal(Status);

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

/// Awaits a call of containerd, no longer than `deadline`.
async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => Ok(answer.map(tonic::Response::into_inner)?),
        Err(_) => {
            Err(Status::deadline_exceeded(format!("containerd did not answer within {deadline:?}")).into())
        }
    }
}

/// An answer where one status means "no".
fn unless<T>(code: Code, answer: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Refusal(status)) if status.code() == code => Ok(None),
        Err(refusal) => Err(refusal),
    }
}
