//! Everything that can be seen of a tree: to hold two mounts of one image against each other.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::image::layer::xattrs;

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Kind of file.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Bytes of a file or of a link's target; directories have none of their own.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// What a symbolic link says.
    pub target: Option<PathBuf>,
    /// First path of the same file, where its link count says that there are several.
    pub same_as: Option<PathBuf>,
    /// Link count; directories have none to compare.
    pub links: u64,
    /// Device number.
    pub device: u64,
    /// Extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Digest of the bytes.
    pub sha256: Option<String>,
}

/// All paths below a directory, itself included.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Reads a tree with all its bytes.
///
/// # Errors
/// Where something cannot be read.
pub fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        // overlayfs lists names that a layer takes away from a directory of its own, but does not find them.
        let found = fs::symlink_metadata(&full);
        if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        let entry = found.map_err(Into::into).and_then(|meta| entry(&full, &path, &meta, &mut first));
        let entry = entry.with_context(|| format!("look at {}", full.display()))?;
        if entry.kind == "directory" {
            let mut names = Vec::new();
            for child in fs::read_dir(&full).with_context(|| format!("list {}", full.display()))? {
                names.push(path.join(child?.file_name()));
            }
            // The last is opened next, so that links are met in order of paths.
            names.sort();
            open.extend(names.into_iter().rev());
        }
        tree.insert(path, entry);
    }
    Ok(tree)
}

fn entry(
    full: &Path,
    path: &Path,
    meta: &Metadata,
    first: &mut BTreeMap<(u64, u64), PathBuf>,
) -> Result<Entry> {
    let kind = meta.file_type();
    let linked = !kind.is_dir() && meta.nlink() > 1;
    let target = if kind.is_symlink() { Some(fs::read_link(full)?) } else { None };
    let xattrs = xattrs(full)?;
    Ok(Entry {
        kind: match () {
            () if kind.is_dir() => "directory",
            () if kind.is_file() => "file",
            () if kind.is_symlink() => "link",
            () if kind.is_char_device() => "character device",
            () if kind.is_block_device() => "block device",
            () if kind.is_fifo() => "pipe",
            () => "socket",
        },
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        size: if kind.is_dir() { 0 } else { meta.len() },
        mtime: (meta.mtime(), meta.mtime_nsec()),
        target,
        same_as: linked
            .then(|| first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.to_owned()).clone()),
        links: if kind.is_dir() { 0 } else { meta.nlink() },
        device: if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 },
        xattrs,
        sha256: if kind.is_file() { Some(digest(full)?) } else { None },
    })
}

fn digest(path: &Path) -> Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// What differs, a line for each path; at most `limit`.
#[must_use]
pub fn differences(expected: &Tree, found: &Tree, limit: usize) -> Vec<String> {
    let mut paths: Vec<_> = expected.keys().chain(found.keys()).collect();
    paths.sort_by_key(|path| path.as_os_str().as_bytes());
    paths.dedup();
    let differing = paths.into_iter().filter(|path| expected.get(*path) != found.get(*path));
    differing
        .map(|path| format!("{}:\n  {:?}\n  {:?}", path.display(), expected.get(path), found.get(path)))
        .take(limit)
        .collect()
}
