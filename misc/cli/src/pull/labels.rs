//! Names and labels that containerd, its garbage collector and snapshotters agree on.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};

/// The chain id that a layer stands for.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Annotations of a layer that become labels of its snapshot.
const INHERITED: &str = "containerd.io/snapshot/";
/// Says that a layer is a lazy blob.
const NYDUS_BLOB: &str = "containerd.io/snapshot/nydus-blob";
/// Longest key and value together that containerd stores.
const MAX_LABEL: usize = 4096;

/// What all layers of one image have in common.
#[derive(Debug, Clone)]
pub(super) struct ImageNames {
    /// The full reference.
    pub(super) reference: String,
    /// Digest of the platform's manifest.
    pub(super) manifest: String,
}

/// Whether only a snapshotter that knows lazy layers can use this one.
pub(super) fn is_lazy(layer: &Descriptor) -> bool {
    layer.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(NYDUS_BLOB))
}

/// Chain ids of layers, lowest first.
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            Some(parent) => format!("sha256:{}", hex::encode(Sha256::digest(format!("{parent} {diff_id}")))),
            None => diff_id.clone(),
        };
        chain.push(id);
    }
    chain
}

/// A key for the active snapshot that will become `chain_id`, unlike any other, in containerd's own form.
pub(super) fn extract_key(chain_id: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let salt = format!("{now:?} {} {chain_id}", std::process::id());
    let salt = hex::encode(&Sha256::digest(salt)[..2]);
    format!("extract-{}-{salt} {chain_id}", now.subsec_nanos())
}

/// Labels of the snapshot of the lowest of `layers`, which are those from it upwards.
pub(super) fn snapshot_labels(
    names: &ImageNames,
    layers: &[Descriptor],
    chain_id: &str,
) -> HashMap<String, String> {
    let Some(layer) = layers.first() else { return HashMap::new() };
    let annotations = layer.annotations().iter().flatten();
    let mut labels: HashMap<String, String> = annotations
        .filter(|(key, _)| key.starts_with(INHERITED))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let upwards_key = "containerd.io/snapshot/cri.image-layers";
    let own = [
        (SNAPSHOT_REF, chain_id.to_owned()),
        ("containerd.io/snapshot/cri.image-ref", names.reference.clone()),
        ("containerd.io/snapshot/cri.manifest-digest", names.manifest.clone()),
        ("containerd.io/snapshot/cri.layer-digest", layer.digest().to_string()),
        (upwards_key, upwards(layers, MAX_LABEL - upwards_key.len())),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// Digests of layers, as many as fit into `room`.
fn upwards(layers: &[Descriptor], room: usize) -> String {
    let mut list = String::new();
    for layer in layers {
        let digest = layer.digest().to_string();
        if list.len() + digest.len() + 1 > room {
            break;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&digest);
    }
    list
}

/// Labels of a manifest: what it keeps alive.
pub(super) fn manifest_gc_labels(config: &Descriptor, layers: &[Descriptor]) -> HashMap<String, String> {
    let layers =
        layers.iter().enumerate().map(|(i, layer)| (format!("containerd.io/gc.ref.content.l.{i}"), layer));
    std::iter::once(("containerd.io/gc.ref.content.config".to_owned(), config))
        .chain(layers)
        .map(|(key, blob)| (key, blob.digest().to_string()))
        .collect()
}

/// Label of an index: the manifest that was chosen.
pub(super) fn index_gc_labels(position: usize, manifest: &str) -> HashMap<String, String> {
    [(format!("containerd.io/gc.ref.content.m.{position}"), manifest.to_owned())].into()
}

/// Label of a configuration: the snapshot of the top layer.
pub(super) fn config_gc_labels(snapshotter: &str, chain_id: &str) -> HashMap<String, String> {
    [(format!("containerd.io/gc.ref.snapshot.{snapshotter}"), chain_id.to_owned())].into()
}

/// Label of a layer that was unpacked: the digest of what came out, which commit and convert ask for.
pub(super) fn uncompressed(diff_id: &str) -> HashMap<String, String> {
    [("containerd.io/uncompressed".to_owned(), diff_id.to_owned())].into()
}

/// Label of a blob: where it can be had again.
pub(super) fn source_label(host: &str, repository: &str) -> (String, String) {
    (format!("containerd.io/distribution.source.{host}"), repository.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(number: u32, annotations: serde_json::Value) -> Descriptor {
        let value = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": format!("sha256:{number:064x}"),
            "size": 7,
            "annotations": annotations,
        });
        serde_json::from_value(value).unwrap()
    }

    fn names() -> ImageNames {
        ImageNames { reference: "example.com/app:1".into(), manifest: format!("sha256:{:064x}", 99) }
    }

    #[test]
    fn chain_ids_hash_the_parent_with_the_next_layer() {
        let ids = chain_ids(&["sha256:aa".into(), "sha256:bb".into()]);
        let second = format!("sha256:{}", hex::encode(Sha256::digest("sha256:aa sha256:bb")));
        assert_eq!(ids, ["sha256:aa".to_owned(), second]);
    }

    #[test]
    fn keys_have_containerds_form_and_differ() {
        let (one, two) = (extract_key("sha256:aa"), extract_key("sha256:aa"));
        assert_ne!(one, two);
        let (head, chain_id) = one.split_once(' ').unwrap();
        let parts: Vec<&str> = head.split('-').collect();
        assert_eq!((parts[0], parts.len(), parts[2].len(), chain_id), ("extract", 3, 4, "sha256:aa"));
        assert!(parts[1].parse::<u64>().is_ok());
    }

    #[test]
    fn a_snapshot_gets_the_cri_labels_and_the_inherited_annotations_only() {
        let annotations = json!({"containerd.io/snapshot/nydus-blob": "true", "org.example": "no"});
        let layers = [layer(1, annotations), layer(2, json!({}))];
        let labels = snapshot_labels(&names(), &layers, "sha256:c");
        let mut keys: Vec<&str> = labels.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "containerd.io/snapshot.ref",
                "containerd.io/snapshot/cri.image-layers",
                "containerd.io/snapshot/cri.image-ref",
                "containerd.io/snapshot/cri.layer-digest",
                "containerd.io/snapshot/cri.manifest-digest",
                "containerd.io/snapshot/nydus-blob",
            ]
        );
        assert_eq!(labels["containerd.io/snapshot.ref"], "sha256:c");
        assert_eq!(labels["containerd.io/snapshot/cri.image-ref"], "example.com/app:1");
        assert_eq!(labels["containerd.io/snapshot/cri.image-layers"].split(',').count(), 2);
    }

    #[test]
    fn an_annotation_cannot_replace_what_the_pull_knows() {
        let lie = json!({"containerd.io/snapshot/cri.image-ref": "evil.example/x"});
        let labels = snapshot_labels(&names(), &[layer(1, lie)], "sha256:c");
        assert_eq!(labels["containerd.io/snapshot/cri.image-ref"], "example.com/app:1");
    }

    #[test]
    fn the_list_of_layers_fits_a_label_of_containerd() {
        let layers: Vec<Descriptor> = (0..200).map(|number| layer(number, json!({}))).collect();
        let labels = snapshot_labels(&names(), &layers, "sha256:c");
        let (key, value) = labels.get_key_value("containerd.io/snapshot/cri.image-layers").unwrap();
        assert!(key.len() + value.len() <= MAX_LABEL);
        assert!(value.split(',').all(|digest| digest.len() == 71));
        assert!(value.len() > MAX_LABEL - 200);
    }

    #[test]
    fn a_manifest_keeps_its_configuration_and_layers() {
        let labels = manifest_gc_labels(&layer(9, json!({})), &[layer(1, json!({})), layer(2, json!({}))]);
        assert_eq!(labels.len(), 3);
        assert_eq!(labels["containerd.io/gc.ref.content.config"], format!("sha256:{:064x}", 9));
        assert_eq!(labels["containerd.io/gc.ref.content.l.1"], format!("sha256:{:064x}", 2));
    }
}
