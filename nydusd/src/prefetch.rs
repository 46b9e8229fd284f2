//! From lists of files to ranges of blobs, fetched in the background.

use std::{collections::HashSet, ops::Range, sync::Arc};

use rafs::{BlobIndex, FileType, Nid};

use crate::{
    fs::{FsError, Rafs},
    mounts::Image,
};

/// Most inodes that one list may lead to; a list that wants more wants everything.
const MAX_INODES: usize = 1_000_000;

/// Starts to fetch what the image's own list names, then `files`, then everything where that is configured.
/// Blocks on nothing but the bootstrap.
pub(crate) fn start(image: &Arc<Image>, files: &[String]) {
    let rafs = image.rafs();
    let mut wanted = if image.config().prefetch.table { rafs.prefetch_table() } else { Vec::new() };
    for path in files {
        match find(rafs, path) {
            Ok(Some(nid)) => wanted.push(nid),
            Ok(None) => tracing::warn!(image = %image.mountpoint(), path, "a file to prefetch is not there"),
            Err(error) => tracing::warn!(image = %image.mountpoint(), path, %error, "not prefetched"),
        }
    }
    let mut ranges = ranges_of(rafs, wanted).unwrap_or_else(|error| {
        tracing::warn!(image = %image.mountpoint(), %error, "the list of files to prefetch is left out");
        Vec::new()
    });
    if image.config().prefetch.all {
        let whole = rafs.blobs().iter().zip(0u8..);
        ranges.extend(whole.map(|(blob, index)| (BlobIndex(index), 0..blob.uncompressed_size)));
    }
    if !ranges.is_empty() {
        rafs.prefetch(ranges);
    }
}

/// The inode at `path`; symbolic links are not followed.
fn find(rafs: &Rafs, path: &str) -> Result<Option<Nid>, FsError> {
    let mut at = rafs.root();
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        match rafs.lookup(at, name.as_bytes())? {
            Some(attributes) => at = attributes.nid,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Ranges of blobs that hold `wanted`: files in order, directories walked.
fn ranges_of(rafs: &Rafs, wanted: Vec<Nid>) -> Result<Vec<(BlobIndex, Range<u64>)>, FsError> {
    let mut ranges: Vec<(BlobIndex, Range<u64>)> = Vec::new();
    let mut seen = HashSet::new();
    // The next one stands last.
    let mut todo: Vec<Nid> = wanted.into_iter().rev().collect();
    while let Some(nid) = todo.pop() {
        if seen.len() >= MAX_INODES || !seen.insert(nid) {
            continue;
        }
        let attributes = rafs.attributes(nid)?;
        match attributes.file_type {
            FileType::File => {
                for span in rafs.plan(nid, 0, attributes.size)? {
                    push(&mut ranges, span.blob, span.offset..span.offset + u64::from(span.len));
                }
            }
            FileType::Directory => {
                let from = todo.len();
                for entry in rafs.read_dir(nid, 0)? {
                    let entry = entry?;
                    if !entry.is_dot() {
                        todo.push(entry.nid);
                    }
                }
                todo[from..].reverse();
            }
            _ => {}
        }
    }
    Ok(ranges)
}

/// Adds a range, to the last one where it goes on there.
fn push(ranges: &mut Vec<(BlobIndex, Range<u64>)>, blob: BlobIndex, range: Range<u64>) {
    match ranges.last_mut() {
        Some((last, before)) if *last == blob && before.end == range.start => before.end = range.end,
        _ => ranges.push((blob, range)),
    }
}
