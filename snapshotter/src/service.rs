//! containerd's snapshots API: requests in, calls on [`Snapshots`], answers and status codes out.

use std::{collections::HashMap, pin::Pin};

use containerd_snapshots as grpc;
use futures_util::{Stream, stream};
use service::causes::in_one_line;
use tonic_09::{Code, Status};
use tracing::{debug, warn};

use crate::{
    decide::Refusal,
    error::SnapshotError,
    labels::Labels,
    meta::{Kind, MetaError, NewSnapshot, Record},
    mounts::Mount,
    snapshots::Snapshots,
};

/// Serves snapshots to containerd.
#[derive(Debug)]
pub struct Service(pub Snapshots);

/// A failed call, on its way out.
#[derive(Debug)]
pub struct Failure(SnapshotError);

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Self(error)
    }
}

impl From<Failure> for Status {
    fn from(Failure(error): Failure) -> Self {
        let (code, text) = (code(&error), in_one_line(&error));
        match code {
            Code::Internal | Code::Unavailable => warn!(error = text, "call failed"),
            _ => debug!(?code, text, "call answered with a code"),
        }
        Self::new(code, text)
    }
}

/// The code that containerd's own snapshotters answer with.
fn code(error: &SnapshotError) -> Code {
    match error {
        SnapshotError::RemoteLayer { .. } => Code::AlreadyExists,
        SnapshotError::EmptyKey | SnapshotError::UpdateField { .. } | SnapshotError::Filter(_) => {
            Code::InvalidArgument
        }
        SnapshotError::Committed { .. } => Code::FailedPrecondition,
        SnapshotError::Refused(Refusal::NoReference { .. } | Refusal::NoBootstrap { .. }) => {
            Code::FailedPrecondition
        }
        SnapshotError::Meta(MetaError::Exists { .. }) => Code::AlreadyExists,
        SnapshotError::Meta(MetaError::NotFound { .. }) => Code::NotFound,
        SnapshotError::Meta(MetaError::ParentNotCommitted { .. }) => Code::InvalidArgument,
        SnapshotError::Meta(MetaError::NotActive { .. } | MetaError::HasChildren { .. }) => {
            Code::FailedPrecondition
        }
        SnapshotError::Meta(
            MetaError::Open { .. }
            | MetaError::Newer { .. }
            | MetaError::Query { .. }
            | MetaError::Labels { .. }
            | MetaError::Directories { .. },
        ) => Code::Internal,
        SnapshotError::Image { .. } => Code::Unavailable,
        SnapshotError::Usage { .. } => Code::Internal,
    }
}

type Answer<T> = Result<T, Failure>;

#[grpc::tonic::async_trait]
impl grpc::Snapshotter for Service {
    type Error = Failure;
    type InfoStream = Pin<Box<dyn Stream<Item = Answer<grpc::Info>> + Send>>;

    async fn stat(&self, key: String) -> Answer<grpc::Info> {
        Ok(info(self.0.stat(&key).await?))
    }

    async fn update(&self, info: grpc::Info, fieldpaths: Option<Vec<String>>) -> Answer<grpc::Info> {
        let fields = fieldpaths.unwrap_or_default();
        Ok(self::info(self.0.update(&info.name, labels(info.labels), &fields).await?))
    }

    async fn usage(&self, key: String) -> Answer<grpc::Usage> {
        let usage = self.0.usage(&key).await?;
        Ok(grpc::Usage { inodes: usage.inodes, size: usage.bytes })
    }

    async fn mounts(&self, key: String) -> Answer<Vec<grpc::api::types::Mount>> {
        Ok(vec![mount(self.0.mounts(&key).await?)])
    }

    async fn prepare(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Answer<Vec<grpc::api::types::Mount>> {
        Ok(vec![mount(self.0.make(new(Kind::Active, key, parent, labels)).await?)])
    }

    async fn view(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Answer<Vec<grpc::api::types::Mount>> {
        Ok(vec![mount(self.0.make(new(Kind::View, key, parent, labels)).await?)])
    }

    async fn commit(&self, name: String, key: String, labels: HashMap<String, String>) -> Answer<()> {
        Ok(self.0.commit(&name, &key, &self::labels(labels)).await?)
    }

    async fn remove(&self, key: String) -> Answer<()> {
        Ok(self.0.remove(&key).await?)
    }

    async fn clear(&self) -> Answer<()> {
        Ok(self.0.cleanup().await?)
    }

    async fn list(&self, _snapshotter: String, filters: Vec<String>) -> Answer<Self::InfoStream> {
        // A copy of one instant: whoever reads slowly or calls meanwhile meets no lock.
        let records = self.0.list(&filters).await?;
        Ok(Box::pin(stream::iter(records.into_iter().map(|record| Ok(info(record))))))
    }
}

fn new(kind: Kind, name: String, parent: String, labels: HashMap<String, String>) -> NewSnapshot {
    let parent = Some(parent).filter(|parent| !parent.is_empty());
    NewSnapshot { name, parent, kind, labels: self::labels(labels) }
}

fn labels(labels: HashMap<String, String>) -> Labels {
    Labels(labels.into_iter().collect())
}

fn info(record: Record) -> grpc::Info {
    grpc::Info {
        kind: match record.kind {
            Kind::View => grpc::Kind::View,
            Kind::Active => grpc::Kind::Active,
            Kind::Committed => grpc::Kind::Committed,
        },
        name: record.name,
        parent: record.parent.unwrap_or_default(),
        labels: record.labels.0.into_iter().collect(),
        created_at: record.created,
        updated_at: record.updated,
    }
}

fn mount(mount: Mount) -> grpc::api::types::Mount {
    grpc::api::types::Mount {
        r#type: mount.fs_type.into(),
        source: mount.source,
        target: String::new(),
        options: mount.options,
    }
}

/// Serves until `end`, then finishes the calls under way.
///
/// # Errors
/// Where the socket fails.
pub async fn serve(
    service: Service,
    listener: tokio::net::UnixListener,
    end: tokio_util::sync::CancellationToken,
) -> Result<(), tonic_09::transport::Error> {
    tonic_09::transport::Server::builder()
        .add_service(grpc::server(std::sync::Arc::new(service)))
        .serve_with_incoming_shutdown(
            tokio_stream::wrappers::UnixListenerStream::new(listener),
            end.cancelled(),
        )
        .await
}
