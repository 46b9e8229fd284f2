//! Snapshots, and layers unpacked into them.

use std::collections::HashMap;

use anyhow::Context;
use containerd_client::{
    services::v1::{
        ApplyRequest,
        diff_client::DiffClient,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
            snapshots_client::SnapshotsClient,
        },
    },
    types::Mount,
};
use oci_spec::image::Descriptor;
use tonic::{Code, codegen::InterceptedService, transport::Channel};

use super::{APPLY_DEADLINE, CALL_DEADLINE, Containerd, Headers, Refusal, image::wire, unless, within};

/// What a snapshotter makes of a layer.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// It needs the layer's content here.
    Mounts(Vec<Mount>),
    /// It has the layer, or can read it where it is; or the key is taken.
    Exists,
}

impl Containerd {
    /// Asks for a place to unpack a layer on top of `parent`.
    pub(crate) async fn prepare(
        &self,
        key: &str,
        parent: &str,
        labels: HashMap<String, String>,
    ) -> Result<Prepared, Refusal> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let answer = within(CALL_DEADLINE, self.snapshots().prepare(request)).await;
        let answer = unless(Code::AlreadyExists, answer)?;
        Ok(answer.map_or(Prepared::Exists, |answer| Prepared::Mounts(answer.mounts)))
    }

    /// Whether a committed snapshot of that name exists.
    pub(crate) async fn has_snapshot(&self, name: &str) -> Result<bool, Refusal> {
        let request = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: name.to_owned() };
        let answer = within(CALL_DEADLINE, self.snapshots().stat(request)).await;
        Ok(unless(Code::NotFound, answer)?.is_some())
    }

    /// Unpacks a layer that stands in the content store, and checks what came out.
    pub(crate) async fn apply(
        &self,
        layer: &Descriptor,
        diff_id: &str,
        mounts: Vec<Mount>,
    ) -> anyhow::Result<()> {
        let request =
            ApplyRequest { diff: Some(wire(layer)), mounts, payloads: HashMap::new(), sync_fs: false };
        let mut client = DiffClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let answer = within(APPLY_DEADLINE, client.apply(request))
            .await
            .with_context(|| format!("cannot unpack layer {}", layer.digest()))?;
        let applied = answer.applied.map(|applied| applied.digest).unwrap_or_default();
        anyhow::ensure!(
            applied == diff_id,
            "layer {} unpacks to {applied}, but the image's configuration says {diff_id}",
            layer.digest()
        );
        Ok(())
    }

    /// Turns the active snapshot `key` into the committed `name`; fine where somebody else was faster.
    pub(crate) async fn commit(
        &self,
        name: &str,
        key: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), Refusal> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels,
        };
        let answer = within(CALL_DEADLINE, self.snapshots().commit(request)).await;
        match unless(Code::AlreadyExists, answer)? {
            Some(()) => Ok(()),
            None => self.remove_snapshot(key).await,
        }
    }

    /// Removes a snapshot; fine where there is none.
    pub(crate) async fn remove_snapshot(&self, key: &str) -> Result<(), Refusal> {
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        unless(Code::NotFound, within(CALL_DEADLINE, self.snapshots().remove(request)).await)?;
        Ok(())
    }

    fn snapshots(&self) -> SnapshotsClient<InterceptedService<Channel, Headers>> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }
}
