//! From inode numbers and places in blobs back to paths.

use std::collections::{HashMap, HashSet};

use rafs::{BlobIndex, FileType, Nid};

use super::{FsError, Rafs};

/// Paths of `wanted` inodes, by one walk that ends when all are found or `limit` entries of directories were looked at.
/// A file with several names gets the first one in walk order.
///
/// # Errors
/// [`FsError::Format`] where the image cannot be walked.
pub(crate) fn paths_of(
    image: &Rafs,
    mut wanted: HashSet<Nid>,
    limit: usize,
) -> Result<HashMap<Nid, String>, FsError> {
    let mut paths = HashMap::with_capacity(wanted.len());
    if wanted.remove(&image.root()) {
        paths.insert(image.root(), "/".to_owned());
    }
    if wanted.is_empty() {
        return Ok(paths);
    }
    walk(image, limit, |nid, _, path| {
        if wanted.remove(&nid) {
            paths.insert(nid, path());
        }
        Ok(!wanted.is_empty())
    })?;
    Ok(paths)
}

/// Path of a file that has byte `offset` of a blob's uncompressed image in it; `None` where none of the first `limit`
/// entries of directories has. A chunk that several files share is that of the first one in walk order.
///
/// # Errors
/// [`FsError::Format`] where the image cannot be walked.
pub(crate) fn path_at(
    image: &Rafs,
    blob: BlobIndex,
    offset: u64,
    limit: usize,
) -> Result<Option<String>, FsError> {
    let mut found = None;
    walk(image, limit, |nid, file_type, path| {
        if file_type != FileType::File {
            return Ok(true);
        }
        let spans = image.plan(nid, 0, u64::MAX)?;
        let holds = |span: &super::Span| {
            // Behind a chunk's bytes its last block goes on with zeros.
            let end = (span.offset + u64::from(span.len)).next_multiple_of(rafs::BLOCK_SIZE);
            span.blob == blob && (span.offset..end).contains(&offset)
        };
        if spans.iter().any(holds) {
            found = Some(path());
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// Hands each entry below the root to `visit` (inode, type, and what makes its path), until that says `false` or `limit`
/// entries were looked at.
pub(crate) fn walk(
    image: &Rafs,
    limit: usize,
    mut visit: impl FnMut(Nid, FileType, &dyn Fn() -> String) -> Result<bool, FsError>,
) -> Result<(), FsError> {
    let mut directories = vec![(image.root(), String::new())];
    // A broken image may name a directory twice; it is walked once.
    let mut seen = HashSet::from([image.root()]);
    let mut left = limit;
    while let Some((directory, path)) = directories.pop() {
        for entry in image.read_dir(directory, 0)? {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let entry = entry?;
            if entry.is_dot() {
                continue;
            }
            let path = || format!("{path}/{}", String::from_utf8_lossy(entry.name));
            if !visit(entry.nid, entry.file_type, &path)? {
                return Ok(());
            }
            if entry.file_type == FileType::Directory && seen.insert(entry.nid) {
                directories.push((entry.nid, path()));
            }
        }
    }
    Ok(())
}
