//! Labels of snapshots: what containerd, the converter and the puller tell about a layer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Chain id of the layer that is being unpacked; only the client's unpacker sends it.
pub const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Reference of the image that is being pulled.
pub const IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
/// Digest of the layer's blob.
pub const LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";
/// Put by the converter on layers that are blobs of an image.
pub const NYDUS_BLOB: &str = "containerd.io/snapshot/nydus-blob";
/// Put by the converter on the last layer, which holds the image's bootstrap.
pub const NYDUS_BOOTSTRAP: &str = "containerd.io/snapshot/nydus-bootstrap";

const STARGZ_REFERENCE: &str = "containerd.io/snapshot/remote/stargz.reference";
const STARGZ_DIGEST: &str = "containerd.io/snapshot/remote/stargz.digest";
const PULL_USER: &str = "containerd.io/snapshot/pullusername";
const PULL_SECRET: &str = "containerd.io/snapshot/pullsecret";

/// All labels of one snapshot; those that mean nothing here are kept as they are.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Chain id of the layer that is being unpacked.
    #[must_use]
    pub fn chain_id(&self) -> Option<&str> {
        self.get(SNAPSHOT_REF).filter(|chain| !chain.is_empty())
    }

    /// Whether the layer is a blob of an image, to be read only when it is needed.
    #[must_use]
    pub fn is_blob(&self) -> bool {
        self.get(NYDUS_BLOB) == Some("true")
    }

    /// Whether the layer holds an image's bootstrap.
    #[must_use]
    pub fn is_bootstrap(&self) -> bool {
        self.get(NYDUS_BOOTSTRAP) == Some("true")
    }

    /// Reference of the image, as the puller knows it.
    #[must_use]
    pub fn image_reference(&self) -> Option<&str> {
        self.get(IMAGE_REF).or_else(|| self.get(STARGZ_REFERENCE)).filter(|text| !text.is_empty())
    }

    /// Digest of the layer's blob.
    #[must_use]
    pub fn layer_digest(&self) -> Option<&str> {
        self.get(LAYER_DIGEST).or_else(|| self.get(STARGZ_DIGEST))
    }

    /// User and secret that came with the pull. An empty user goes with a bearer token.
    #[must_use]
    pub fn credential(&self) -> Option<(&str, &str)> {
        let secret = self.get(PULL_SECRET).filter(|secret| !secret.is_empty())?;
        Some((self.get(PULL_USER).unwrap_or_default(), secret))
    }
}

impl std::fmt::Debug for Labels {
    /// Hides the secret: labels end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.iter().map(|(key, value)| match key.as_str() {
            PULL_SECRET => (key, "***"),
            _ => (key, value.as_str()),
        });
        f.debug_map().entries(shown).finish()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Labels {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_not_shown_by_debug() {
        let labels = Labels::from([(PULL_SECRET, "hunter2"), (PULL_USER, "me")]);
        assert!(!format!("{labels:?}").contains("hunter2"));
        assert_eq!(labels.credential(), Some(("me", "hunter2")));
    }

    #[test]
    fn stargz_reference_stands_in_for_the_missing_image_reference() {
        let labels = Labels::from([(STARGZ_REFERENCE, "host/app:1")]);
        assert_eq!(labels.image_reference(), Some("host/app:1"));
        let both = Labels::from([(STARGZ_REFERENCE, "host/app:1"), (IMAGE_REF, "host/app:2")]);
        assert_eq!(both.image_reference(), Some("host/app:2"));
    }
}
