//! What a conversion made.

use serde::Serialize;

/// A finished conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The source as the user named it.
    pub source: String,
    /// The target as the user named it.
    pub target: String,
    /// Digest of what the target's tag now names.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// The images behind it, in the order of the source's index.
    pub images: Vec<ImageReport>,
}

/// One image of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageReport {
    /// `os/arch[/variant]`.
    pub platform: String,
    /// Digest of the source's manifest.
    pub source_digest: String,
    /// Digest of the manifest made.
    pub digest: String,
    /// Sum of the source's layers in bytes, as stored.
    pub source_size: u64,
    /// Sum of the blobs in bytes.
    pub blobs_size: u64,
    /// Size of the bootstrap layer in bytes, as stored.
    pub bootstrap_size: u64,
    /// Layers, lowest first.
    pub layers: Vec<LayerReport>,
}

/// One layer of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// Digest of the source layer.
    pub source_digest: String,
    /// Its stored size in bytes.
    pub source_size: u64,
    /// Digest of the blob made, `sha256:<hex>`.
    pub digest: String,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Chunks in the blob.
    pub chunks: u32,
    /// Whether the blob was sent; `false` where the target had it.
    pub sent: bool,
}
