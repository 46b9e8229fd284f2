//! Room that a directory takes.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::meta::Usage;

/// Counts a directory and what is in it; a file with several names counts once. What vanishes meanwhile does not count.
///
/// # Errors
/// Where the directory cannot be read.
pub fn of_directory(root: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut pending: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let Some(found) = unless_gone(fs::symlink_metadata(&path))? else { continue };
        if found.is_dir() {
            let Some(entries) = unless_gone(fs::read_dir(&path))? else { continue };
            for entry in entries {
                pending.extend(unless_gone(entry)?.map(|entry| entry.path()));
            }
        } else if found.nlink() > 1 && !linked.insert((found.dev(), found.ino())) {
            continue;
        }
        usage.inodes += 1;
        usage.bytes =
            usage.bytes.saturating_add(i64::try_from(found.blocks()).unwrap_or(i64::MAX).saturating_mul(512));
    }
    Ok(usage)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = of_directory(dir.path()).unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let usage = of_directory(dir.path()).unwrap();
        assert_eq!(usage.inodes, empty.inodes + 1);
        assert!((100_000..200_000).contains(&(usage.bytes - empty.bytes)), "{usage:?}");
    }

    #[test]
    fn missing_directory_takes_no_room() {
        assert_eq!(of_directory(Path::new("/nonexistent/for/sure")).unwrap(), Usage::default());
    }
}
