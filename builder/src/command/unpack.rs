//! `unpack`: a layer back to the tar that it came from.

use std::{fs::OpenOptions, io::BufWriter, path::PathBuf};

use anyhow::Context;
use builder::unpack::{Blobs, unpack};
use service::exit::UsageError;

use crate::cli::UnpackArgs;

pub(super) fn run(args: &UnpackArgs) -> anyhow::Result<()> {
    if let Some(backend) = &args.backend_type {
        let problem =
            format!("--backend-type {backend} is not supported: --blob or --blob-dir says where blobs are");
        return Err(UsageError(problem).into());
    }
    let tree = super::read_tree(&args.bootstrap)?;
    let path = |id: &rafs::BlobId| -> Option<PathBuf> {
        let directory = args.blob_dir.as_ref().map(|directory| directory.join(id.as_str()));
        directory.or_else(|| args.blob.clone())
    };
    if args.blob.is_some() && tree.blobs.len() > 1 {
        let problem =
            format!("--blob is one blob, and the bootstrap names {}: use --blob-dir", tree.blobs.len());
        return Err(UsageError(problem).into());
    }
    let blobs = Blobs::open(&tree, path)?;
    // A FIFO is there already, and its reader waits for the end.
    let out = OpenOptions::new().write(true).create(true).truncate(true).open(&args.output);
    let out = out.with_context(|| format!("open {}", args.output.display()))?;
    unpack(&tree, blobs, BufWriter::with_capacity(256 << 10, out))
        .with_context(|| format!("unpack into {}", args.output.display()))
}
