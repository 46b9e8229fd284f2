//! What a mounted tree looks like, in the form of the expected listings of the samples.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fmt::Write,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::xattr;

/// One object for each path, sorted as a walk by names.
pub(crate) fn list(root: &Path, with_times: bool) -> Vec<Value> {
    let mut listing = Listing { entries: Vec::new(), links: HashMap::new(), with_times };
    listing.add(root, b"/");
    listing.walk(root, b"");
    listing.entries
}

struct Listing {
    entries: Vec<Value>,
    links: HashMap<u64, String>,
    with_times: bool,
}

impl Listing {
    fn walk(&mut self, dir: &Path, shown: &[u8]) {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let shown = [shown, b"/", name.as_bytes()].concat();
            self.add(&path, &shown);
            if path.symlink_metadata().unwrap().is_dir() {
                self.walk(&path, &shown);
            }
        }
    }

    fn add(&mut self, path: &Path, shown: &[u8]) {
        let meta = path.symlink_metadata().unwrap();
        let shown = python_text(shown);
        let mut entry = Map::new();
        let mut set = |key: &str, value: Value| drop(entry.insert(key.into(), value));
        set("mode", format!("{:o}", meta.mode()).into());
        set("uid", meta.uid().into());
        set("gid", meta.gid().into());
        if self.with_times && shown != "/" {
            set("mtime_ns", json!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec()));
        }
        if !meta.is_dir() {
            set("nlink", meta.nlink().into());
            set("size", meta.len().into());
        }
        if meta.is_file() {
            set("sha256", hex::encode(Sha256::digest(fs::read(path).unwrap())).into());
            if meta.nlink() > 1 {
                set(
                    "link_group",
                    self.links.entry(meta.ino()).or_insert_with(|| shown.clone()).clone().into(),
                );
            }
        }
        if meta.is_symlink() {
            set("target", python_text(fs::read_link(path).unwrap().as_os_str().as_bytes()).into());
        }
        if meta.file_type().is_char_device() || meta.file_type().is_block_device() {
            let rdev = meta.rdev();
            set("rdev", format!("{}:{}", nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev)).into());
        }
        let xattrs = xattrs(path);
        if !xattrs.is_empty() {
            set("xattrs", Value::Object(xattrs));
        }
        set("path", shown.into());
        self.entries.push(Value::Object(entry));
    }
}

fn xattrs(path: &Path) -> Map<String, Value> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let names = xattr::list(&path).unwrap();
    let names = names.split_inclusive(|byte| *byte == 0).map(|name| CStr::from_bytes_with_nul(name).unwrap());
    names
        .map(|name| (name.to_str().unwrap().into(), hex::encode(xattr::get(&path, name).unwrap()).into()))
        .collect()
}

/// Bytes as Python writes them with `surrogateescape`, here as a visible escape: JSON text cannot hold half a pair.
fn python_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "<dc{byte:02x}>").unwrap();
        }
    }
    text
}

/// An expected listing, with the same escapes.
pub(crate) fn expected(gzipped: &Path) -> Vec<Value> {
    use std::io::Read;
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(gzipped).unwrap()).read_to_string(&mut text).unwrap();
    let visible = |line: &str| {
        let mut parts = line.split("\\udc");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            write!(whole, "<dc{}>{}", &part[..2], &part[2..]).unwrap();
        }
        whole
    };
    text.lines().map(|line| serde_json::from_str(&visible(line)).unwrap()).collect()
}
