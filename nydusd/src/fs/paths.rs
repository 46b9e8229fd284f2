//! From inode numbers back to paths.

use std::collections::{HashMap, HashSet};

use rafs::{FileType, Nid};

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
    let mut directories = vec![(image.root(), String::new())];
    // A broken image may name a directory twice; it is walked once.
    let mut seen = HashSet::from([image.root()]);
    let mut left = limit;
    while let Some((directory, path)) = directories.pop() {
        for entry in image.read_dir(directory, 0)? {
            if wanted.is_empty() || left == 0 {
                return Ok(paths);
            }
            left -= 1;
            let entry = entry?;
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let is_wanted = wanted.remove(&entry.nid);
            let is_directory = entry.file_type == FileType::Directory && seen.insert(entry.nid);
            if !is_wanted && !is_directory {
                continue;
            }
            let path = format!("{path}/{}", String::from_utf8_lossy(entry.name));
            if is_wanted {
                paths.insert(entry.nid, path.clone());
            }
            if is_directory {
                directories.push((entry.nid, path));
            }
        }
    }
    Ok(paths)
}
