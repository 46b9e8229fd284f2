//! What to do with a snapshot request: labels and parents in, action out. Touches nothing.

use crate::{
    labels::Labels,
    meta::{Content, Kind, Record, SnapshotId},
};

/// What a Prepare, View or Mounts asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// A layer that stays in the registry: note it and tell containerd that it is there.
    Remote {
        /// Its chain id.
        chain_id: String,
    },
    /// A directory tree put together from these.
    Mount(Stack),
}

/// What lies below a snapshot's own directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// Ordinary layers, nearest first.
    pub layers: Vec<SnapshotId>,
    /// The lazy image at the bottom: the layer that holds its bootstrap.
    pub image: Option<SnapshotId>,
}

/// A request that cannot be served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// Without the image's name nobody knows where to read the layer.
    #[error(
        "layer {chain_id} is lazy, but the puller did not tell the image's name (label \
         containerd.io/snapshot/cri.image-ref): pull with `shoal pull`, or have containerd send snapshot annotations"
    )]
    NoReference {
        /// The layer.
        chain_id: String,
    },
    /// Only the image as a whole has a tree.
    #[error(
        "snapshot {name:?} is a lazy layer without its image's bootstrap: only whole images can be mounted; pull \
         them with `shoal pull`, CRI, nerdctl or containerd's transfer service"
    )]
    NoBootstrap {
        /// The layer.
        name: String,
    },
}

/// Decides on a snapshot of `kind` with `labels` that stands on `parents` (nearest first).
///
/// # Errors
/// [`Refusal`].
pub fn decide(kind: Kind, labels: &Labels, parents: &[Record]) -> Result<Action, Refusal> {
    let unpacked = labels.chain_id().filter(|_| kind == Kind::Active);
    if let Some(chain_id) = unpacked.filter(|_| labels.is_blob()) {
        let chain_id = chain_id.to_owned();
        return match labels.image_reference() {
            Some(_) => Ok(Action::Remote { chain_id }),
            None => Err(Refusal::NoReference { chain_id }),
        };
    }
    let stack = stack(parents);
    match parents.iter().find(|parent| parent.content == Content::Remote) {
        // The differ unpacks the bootstrap above the image's layers; whoever else comes wants to see files.
        Some(layer) if stack.image.is_none() && unpacked.is_none() => {
            Err(Refusal::NoBootstrap { name: layer.name.clone() })
        }
        _ => Ok(Action::Mount(stack)),
    }
}

/// A bootstrap describes the image whole, so nothing below it counts; remote layers have no files of their own.
fn stack(parents: &[Record]) -> Stack {
    let mut stack = Stack::default();
    for parent in parents {
        match parent.content {
            Content::Files if parent.labels.is_bootstrap() => {
                stack.image = Some(parent.id);
                break;
            }
            Content::Files => stack.layers.push(parent.id),
            Content::Remote => {}
        }
    }
    stack
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        labels::{IMAGE_REF, NYDUS_BLOB, NYDUS_BOOTSTRAP, SNAPSHOT_REF},
        meta::testing::record,
    };

    fn plain(id: i64) -> Record {
        record(id, &format!("plain{id}"))
    }

    fn blob(id: i64) -> Record {
        Record { content: Content::Remote, ..record(id, &format!("blob{id}")) }
    }

    fn bootstrap(id: i64) -> Record {
        Record { labels: [(NYDUS_BOOTSTRAP, "true")].into(), ..record(id, "bootstrap") }
    }

    fn mount(layers: &[i64], image: Option<i64>) -> Result<Action, Refusal> {
        let layers = layers.iter().copied().map(SnapshotId).collect();
        Ok(Action::Mount(Stack { layers, image: image.map(SnapshotId) }))
    }

    #[test]
    fn blob_layer_that_is_unpacked_stays_in_the_registry() {
        let labels = [(SNAPSHOT_REF, "sha256:c"), (NYDUS_BLOB, "true"), (IMAGE_REF, "host/app:1")].into();
        let action = decide(Kind::Active, &labels, &[blob(1)]).unwrap();
        assert_eq!(action, Action::Remote { chain_id: "sha256:c".into() });
    }

    #[test]
    fn blob_layer_without_image_reference_is_refused_at_pull() {
        let labels = [(SNAPSHOT_REF, "sha256:c"), (NYDUS_BLOB, "true")].into();
        let refusal = decide(Kind::Active, &labels, &[]).unwrap_err();
        assert!(refusal.to_string().contains("shoal pull"));
    }

    #[test]
    fn already_exists_is_never_decided_without_a_snapshot_ref() {
        let labels = [(NYDUS_BLOB, "true"), (IMAGE_REF, "host/app:1")].into();
        assert_eq!(decide(Kind::Active, &labels, &[]), mount(&[], None));
        let labels = [(SNAPSHOT_REF, "sha256:c"), (NYDUS_BLOB, "true"), (IMAGE_REF, "host/app:1")].into();
        assert_eq!(decide(Kind::View, &labels, &[]), mount(&[], None));
    }

    #[test]
    fn bootstrap_is_unpacked_into_a_directory_of_its_own() {
        let labels = [(SNAPSHOT_REF, "sha256:c"), (NYDUS_BOOTSTRAP, "true")].into();
        assert_eq!(decide(Kind::Active, &labels, &[blob(2), blob(1)]), mount(&[], None));
    }

    #[test]
    fn container_stands_on_the_nearest_bootstrap() {
        let parents = [bootstrap(3), blob(2), blob(1)];
        assert_eq!(decide(Kind::Active, &Labels::default(), &parents), mount(&[], Some(3)));
        assert_eq!(decide(Kind::View, &Labels::default(), &parents), mount(&[], Some(3)));
    }

    #[test]
    fn ordinary_layers_stack_above_the_bootstrap() {
        let parents = [plain(5), plain(4), bootstrap(3), blob(2), plain(1)];
        assert_eq!(decide(Kind::Active, &Labels::default(), &parents), mount(&[5, 4], Some(3)));
        let unpacking = [(SNAPSHOT_REF, "sha256:c")].into();
        assert_eq!(decide(Kind::Active, &unpacking, &parents), mount(&[5, 4], Some(3)));
    }

    #[test]
    fn plain_image_is_all_its_layers() {
        assert_eq!(decide(Kind::Active, &Labels::default(), &[plain(2), plain(1)]), mount(&[2, 1], None));
        assert_eq!(decide(Kind::View, &Labels::default(), &[]), mount(&[], None));
    }

    #[test]
    fn lazy_layer_without_bootstrap_cannot_be_mounted() {
        let refused = Err(Refusal::NoBootstrap { name: "blob2".into() });
        assert_eq!(decide(Kind::View, &Labels::default(), &[blob(2), blob(1)]), refused);
        assert_eq!(decide(Kind::Active, &Labels::default(), &[plain(3), blob(2)]), refused);
    }
}
