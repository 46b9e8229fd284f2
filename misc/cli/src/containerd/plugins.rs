//! What containerd says about itself.

use anyhow::Context;
use containerd_client::services::v1::{
    PluginsRequest, introspection_client::IntrospectionClient, snapshots::ListSnapshotsRequest,
    snapshots::snapshots_client::SnapshotsClient, version_client::VersionClient,
};

use super::{CALL_DEADLINE, Containerd, within};

/// A snapshotter as containerd knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plugin {
    /// Its name.
    pub(crate) name: String,
    /// Why containerd could not load it.
    pub(crate) problem: Option<String>,
    /// Keys of its configuration that matter to lazy pulls, from `exports`.
    pub(crate) exports: Vec<(String, String)>,
}

impl Containerd {
    /// Its version.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let mut client = VersionClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let answer =
            within(CALL_DEADLINE, client.version(())).await.context("containerd tells no version")?;
        Ok(answer.version)
    }

    /// Its snapshotters.
    pub(crate) async fn snapshotters(&self) -> anyhow::Result<Vec<Plugin>> {
        let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
        let mut client = IntrospectionClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let answer = within(CALL_DEADLINE, client.plugins(PluginsRequest { filters })).await;
        let plugins = answer.context("containerd does not list its plugins")?.plugins;
        let read = plugins.into_iter().map(|plugin| Plugin {
            name: plugin.id,
            problem: plugin.init_err.map(|status| status.message),
            exports: plugin.exports.into_iter().collect(),
        });
        Ok(read.collect())
    }

    /// Asks the snapshotter something small through containerd.
    pub(crate) async fn ping_snapshotter(&self) -> anyhow::Result<()> {
        let request = ListSnapshotsRequest {
            snapshotter: self.snapshotter.clone(),
            filters: vec!["name==shoal-doctor".to_owned()],
        };
        let mut client = SnapshotsClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let mut answers = within(CALL_DEADLINE, client.list(request)).await?;
        tokio::time::timeout(CALL_DEADLINE, answers.message()).await.context("no answer")??;
        Ok(())
    }
}
