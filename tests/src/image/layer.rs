//! A directory as a layer tar. An overlayfs upper directory becomes a layer: its whiteouts and opaque marks are written
//! as OCI wants them.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr, OsString},
    fmt::Write as _,
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};
use tar::{Builder, EntryType, Header};

/// Writes the tree below `root` as a tar, in order of names.
///
/// # Errors
/// Where something cannot be read or written.
pub fn write(root: &Path, out: &mut dyn Write) -> Result<()> {
    let mut tar = Packer { root, tar: Builder::new(out), links: HashMap::new() };
    tar.directory(Path::new(""))?;
    tar.tar.finish().context("finish tar")
}

/// Writes what an overlayfs upper directory changes.
struct Packer<'a> {
    root: &'a Path,
    tar: Builder<&'a mut dyn Write>,
    links: HashMap<(u64, u64), PathBuf>,
}

impl Packer<'_> {
    fn directory(&mut self, dir: &Path) -> Result<()> {
        let full = self.root.join(dir);
        let mut names: Vec<OsString> = fs::read_dir(&full)
            .with_context(|| format!("list {}", full.display()))?
            .map(|e| Ok(e?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let path = dir.join(name);
            self.entry(&path).with_context(|| format!("pack {}", path.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> Result<()> {
        let full = self.root.join(path);
        let meta = fs::symlink_metadata(&full)?;
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            let name = [b".wh.", path.file_name().unwrap_or_default().as_bytes()].concat();
            return self.marker(&path.with_file_name(OsStr::from_bytes(&name)));
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                let (first, mut header) = (first.clone(), header(&meta, EntryType::Link));
                header.set_size(0);
                return Ok(self.tar.append_link(&mut header, path, first)?);
            }
            self.links.insert((meta.dev(), meta.ino()), path.to_owned());
        }
        let xattrs = xattrs(&full)?;
        let opaque = xattrs.iter().any(|(name, value)| name == "trusted.overlay.opaque" && value == b"y");
        self.extensions(&meta, &xattrs)?;
        self.node(path, &full, &meta)?;
        if kind.is_dir() {
            if opaque {
                self.marker(&path.join(".wh..wh..opq"))?;
            }
            self.directory(path)?;
        }
        Ok(())
    }

    fn node(&mut self, path: &Path, full: &Path, meta: &Metadata) -> Result<()> {
        let kind = meta.file_type();
        if kind.is_file() {
            let mut header = header(meta, EntryType::Regular);
            header.set_size(meta.len());
            return Ok(self.tar.append_data(&mut header, path, File::open(full)?)?);
        }
        if kind.is_symlink() {
            let mut header = header(meta, EntryType::Symlink);
            return Ok(self.tar.append_link(&mut header, path, fs::read_link(full)?)?);
        }
        let mut header = if kind.is_dir() {
            header(meta, EntryType::Directory)
        } else if kind.is_fifo() {
            header(meta, EntryType::Fifo)
        } else if kind.is_socket() {
            return Ok(());
        } else {
            let entry_type = if kind.is_char_device() { EntryType::Char } else { EntryType::Block };
            let mut header = header(meta, entry_type);
            header.set_device_major(u32::try_from(major(meta.rdev()))?)?;
            header.set_device_minor(u32::try_from(minor(meta.rdev()))?)?;
            header
        };
        Ok(self.tar.append_data(&mut header, path, io::empty())?)
    }

    fn marker(&mut self, path: &Path) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0o644);
        Ok(self.tar.append_data(&mut header, path, io::empty())?)
    }

    fn extensions(&mut self, meta: &Metadata, xattrs: &[(String, Vec<u8>)]) -> Result<()> {
        let mut records = Vec::new();
        if meta.mtime_nsec() != 0 {
            let mut mtime = String::new();
            write!(mtime, "{}.{:09}", meta.mtime(), meta.mtime_nsec())?;
            records.push(("mtime".to_owned(), mtime.into_bytes()));
        }
        for (name, value) in xattrs.iter().filter(|(name, _)| !name.starts_with("trusted.overlay.")) {
            records.push((format!("SCHILY.xattr.{name}"), value.clone()));
        }
        Ok(self
            .tar
            .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?)
    }
}

fn header(meta: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// Extended attributes of a path, in order of names; symlinks are not followed.
///
/// # Errors
/// Where they cannot be read.
pub fn xattrs(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let names = crate::xattr::list(&path)?;
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = crate::xattr::get(&path, &CString::new(name)?)?;
        all.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    all.sort();
    Ok(all)
}
