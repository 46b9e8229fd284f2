//! `check` and `inspect`: what a bootstrap says.

use std::io::Write;

use serde_json::json;
use service::exit::UsageError;

use crate::{
    cli::{CheckArgs, InspectArgs},
    output::Summary,
};

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let tree = super::read_tree(&args.bootstrap)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "RAFS filesystem metadata is valid, referenced data blobs: ")?;
    for (index, blob) in tree.blobs.iter().enumerate() {
        writeln!(
            out,
            "\t {index}: {}, compressed data size {:#x}, compressed file size {:#x}, uncompressed file size {:#x}, \
             chunks: {:#x}, features: {:#x}",
            blob.id,
            blob.ci.offset,
            blob.compressed_size,
            blob.uncompressed_size,
            blob.chunk_count,
            blob.features,
        )?;
    }
    Summary::of(&args.bootstrap, &tree).write(args.output_json.as_deref())
}

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    // A caller passes "-R blobs" as one argument, blank included.
    if args.request.trim() != "blobs" {
        return Err(UsageError(format!("no request {:?}: there is \"blobs\"", args.request)).into());
    }
    let tree = super::read_tree(&args.bootstrap)?;
    let blobs: Vec<_> = tree
        .blobs
        .iter()
        .map(|blob| {
            json!({
                "blob_id": blob.id.as_str(),
                "readahead_offset": 0,
                "readahead_size": 0,
                "decompressed_size": blob.uncompressed_size,
                "compressed_size": blob.compressed_size,
            })
        })
        .collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::Value::from(blobs))?;
    Ok(())
}
