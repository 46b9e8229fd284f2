//! What a conversion tells while it runs.

/// Something that happened. Layers are named by the digest of the source layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A layer is taken up.
    LayerStarted {
        /// Digest of the source layer.
        layer: &'a str,
        /// Its stored size in bytes.
        size: u64,
    },
    /// That many more stored bytes of a layer were read.
    LayerRead {
        /// Digest of the source layer.
        layer: &'a str,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// A layer is converted and stands in the target.
    LayerDone {
        /// Digest of the source layer.
        layer: &'a str,
        /// Hex SHA-256 of its blob.
        blob: &'a str,
        /// Size of the blob in bytes.
        size: u64,
        /// Whether it was sent; `false` where the target had it.
        sent: bool,
    },
    /// An image's manifest stands in the target.
    ImageDone {
        /// `os/arch[/variant]`.
        platform: &'a str,
        /// Digest of the manifest.
        digest: &'a str,
    },
}

/// Receives events, from several threads at once.
pub trait Progress: Send + Sync {
    /// Something happened. Must return at once.
    fn event(&self, event: Event<'_>);
}

/// Ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}
