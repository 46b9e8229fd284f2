//! Why an image could not be converted.

use std::io;

use crate::BuildError;

/// A failed conversion: which image or layer, why.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A source or target that is none.
    #[error("{text:?} is neither REGISTRY/NAME:TAG nor oci:DIR[:TAG] nor oci-archive:FILE[:TAG]")]
    Location {
        /// The text.
        text: String,
        /// Why it is no reference.
        #[source]
        source: registry::RegistryError,
    },
    /// A target that cannot be named so.
    #[error(
        "{text:?} names its image by digest; a target has a tag, and its digest follows from its content"
    )]
    TargetDigest {
        /// The text.
        text: String,
    },
    /// The registry failed us.
    #[error("{what}")]
    Registry {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: registry::RegistryError,
    },
    /// An image that is not what it should be, or that cannot be converted.
    #[error("{what}: {problem}")]
    Image {
        /// The index, manifest, config or blob.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// JSON that cannot be read or made.
    #[error("{what}")]
    Json {
        /// The index, manifest or config.
        what: String,
        /// Why it failed.
        #[source]
        source: serde_json::Error,
    },
    /// A layer that cannot be converted.
    #[error("layer {layer}")]
    Layer {
        /// Digest of the source layer.
        layer: String,
        /// Why it failed.
        #[source]
        source: BuildError,
    },
    /// Layers that cannot be merged.
    #[error("merge the layers of {image}")]
    Merge {
        /// Digest of the source manifest.
        image: String,
        /// Why it failed.
        #[source]
        source: BuildError,
    },
    /// A file that cannot be read or written.
    #[error("{what}")]
    File {
        /// What was done to which file.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The work was stopped.
    #[error("stopped")]
    Stopped,
}

impl ConvertError {
    /// Whether the caller asked for what cannot be, before anything was done.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Location { .. } | Self::TargetDigest { .. })
    }

    /// For `map_err`: a file that cannot be read or written.
    pub(super) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what: what.into(), source }
    }

    /// For `map_err`: a failing registry.
    pub(super) fn registry(what: impl Into<String>) -> impl FnOnce(registry::RegistryError) -> Self {
        move |source| Self::Registry { what: what.into(), source }
    }

    /// For `map_err`: JSON that cannot be read or made.
    pub(super) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { what: what.into(), source }
    }

    /// An image that is not what it should be.
    pub(super) fn image(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Image { what: what.into(), problem: problem.into() }
    }
}
