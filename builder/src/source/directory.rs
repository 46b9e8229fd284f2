//! A directory on disk.

use std::{
    collections::{HashMap, VecDeque},
    fs::{File, Metadata},
    io::{ErrorKind, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rafs::Meta;

use super::{Entry, EntryKind, Source};
use crate::BuildError;

/// Reads a directory, breadth first and sorted by name: all children of a directory, then those of each below it.
#[derive(Debug)]
pub struct DirectorySource {
    root: PathBuf,
    /// Directories whose children are still to come, as paths below the root.
    directories: VecDeque<PathBuf>,
    /// Children that are still to come, as paths below the root.
    children: VecDeque<PathBuf>,
    /// First name of each file with several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    /// The file whose content is wanted.
    open: Option<(PathBuf, File)>,
    is_begun: bool,
}

impl DirectorySource {
    /// A reader of `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            directories: VecDeque::from([PathBuf::new()]),
            children: VecDeque::new(),
            links: HashMap::new(),
            open: None,
            is_begun: false,
        }
    }

    fn next_path(&mut self) -> Result<Option<PathBuf>, BuildError> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Ok(Some(PathBuf::new()));
        }
        while self.children.is_empty() {
            let Some(directory) = self.directories.pop_front() else { return Ok(None) };
            let full = self.root.join(&directory);
            let what = || format!("directory {}", full.display());
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&full).map_err(BuildError::read(what()))? {
                names.push(entry.map_err(BuildError::read(what()))?.file_name());
            }
            names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            self.children.extend(names.into_iter().map(|name| directory.join(name)));
        }
        Ok(self.children.pop_front())
    }

    fn kind(&mut self, path: &Path, full: &Path, found: &Metadata) -> Result<EntryKind, BuildError> {
        let kind = found.file_type();
        if kind.is_dir() {
            if !path.as_os_str().is_empty() {
                self.directories.push_back(path.to_owned());
            }
            return Ok(EntryKind::Directory);
        }
        if found.nlink() > 1 {
            let place = (found.dev(), found.ino());
            if let Some(first) = self.links.get(&place) {
                return Ok(EntryKind::HardLink(first.as_os_str().as_bytes().to_vec()));
            }
            self.links.insert(place, path.to_owned());
        }
        let what = || BuildError::read(full.display().to_string());
        Ok(if kind.is_symlink() {
            EntryKind::Symlink(std::fs::read_link(full).map_err(what())?.into_os_string().into_vec())
        } else if kind.is_char_device() {
            EntryKind::CharDevice(rdev(found))
        } else if kind.is_block_device() {
            EntryKind::BlockDevice(rdev(found))
        } else if kind.is_fifo() {
            EntryKind::Fifo
        } else if kind.is_socket() {
            EntryKind::Socket
        } else {
            self.open = Some((full.to_owned(), File::open(full).map_err(what())?));
            EntryKind::File(found.len())
        })
    }
}

impl Source for DirectorySource {
    fn next_entry(&mut self) -> Result<Option<Entry>, BuildError> {
        self.open = None;
        let Some(path) = self.next_path()? else { return Ok(None) };
        let full = self.root.join(&path);
        let found = std::fs::symlink_metadata(&full).map_err(BuildError::read(full.display().to_string()))?;
        let kind = self.kind(&path, &full, &found)?;
        let is_root = path.as_os_str().is_empty();
        let meta = Meta {
            permissions: u16::try_from(found.mode() & 0o7777).expect("12 bits fit"),
            uid: found.uid(),
            gid: found.gid(),
            // Making the directory gave it its time; kept, no two builds would be alike.
            mtime: if is_root { 0 } else { found.mtime() },
            mtime_nsec: if is_root { 0 } else { u32::try_from(found.mtime_nsec()).unwrap_or(0) },
            xattrs: xattrs(&full)?,
        };
        Ok(Some(Entry { path: path.into_os_string().into_vec(), meta, kind }))
    }

    fn read_content(&mut self, buf: &mut [u8]) -> Result<(), BuildError> {
        let (path, file) = self.open.as_mut().expect("content is read of files only");
        file.read_exact(buf).map_err(BuildError::read(path.display().to_string()))
    }
}

fn rdev(found: &Metadata) -> u32 {
    // Linux hands device numbers of 12 and 20 bits to user space in the encoding of the format.
    u32::try_from(found.rdev() & 0xffff_ffff).expect("masked to 32 bits")
}

fn xattrs(path: &Path) -> Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>, BuildError> {
    match super::xattr::read_all(path) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(std::collections::BTreeMap::new()),
        Err(source) => Err(BuildError::Read { what: format!("attributes of {}", path.display()), source }),
    }
}
