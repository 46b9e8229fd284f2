//! The summary that callers read.

use std::path::Path;

use anyhow::Context;
use rafs::{BlobId, Compressor};
use serde::Serialize;

/// What was made; the fields are those of the original.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    version: String,
    bootstrap: String,
    blobs: Vec<String>,
    external_bootstrap: String,
    external_blobs: Vec<String>,
    trace: Trace,
    fs_version: &'static str,
    compressor: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Trace {
    consumed_time: std::collections::BTreeMap<String, f64>,
    registered_events: std::collections::BTreeMap<String, u64>,
}

impl Summary {
    /// Of a bootstrap and the ids of the blobs in it, in table order.
    pub(crate) fn new(bootstrap: Option<&Path>, blobs: &[BlobId], compressor: Option<Compressor>) -> Self {
        Self {
            version: format!("v{}-{}", service::version::PACKAGE, service::version::COMMIT),
            bootstrap: bootstrap.map(|path| path.display().to_string()).unwrap_or_default(),
            blobs: blobs.iter().map(ToString::to_string).collect(),
            external_bootstrap: String::new(),
            external_blobs: Vec::new(),
            trace: Trace::default(),
            fs_version: "6",
            compressor: compressor.unwrap_or(Compressor::Zstd).name(),
        }
    }

    /// Of a bootstrap that was read or merged.
    pub(crate) fn of(bootstrap: &Path, tree: &rafs::Tree) -> Self {
        let ids: Vec<_> = tree.blobs.iter().map(|blob| blob.id.clone()).collect();
        Self::new(Some(bootstrap), &ids, tree.blobs.last().map(|blob| blob.compressor))
    }

    /// Writes it to the file that the caller named, if it named one.
    pub(crate) fn write(&self, to: Option<&Path>) -> anyhow::Result<()> {
        let Some(to) = to else { return Ok(()) };
        let json = serde_json::to_vec_pretty(self)?;
        std::fs::write(to, json).with_context(|| format!("write {}", to.display()))
    }
}
