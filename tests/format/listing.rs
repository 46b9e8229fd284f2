//! What a tree looks like, path by path: as a reader gives it, as a mount shows it, as a sample's list expects it.

use std::collections::{BTreeMap, HashMap};

use rafs::{Attributes, Bootstrap, FileType, Nid};
use sha2::{Digest as _, Sha256};

use super::stored::StoredBlob;

/// Everything of a path that a user can see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// None for the root, whose time samples do not keep.
    pub(crate) mtime_ns: Option<i128>,
    /// None for directories.
    pub(crate) nlink: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) rdev: Option<(u32, u32)>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) sha256: Option<String>,
    /// The first path of a file with several.
    pub(crate) link_group: Option<Vec<u8>>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(crate) type Listing = BTreeMap<Vec<u8>, Entry>;

/// Reads a sample's list: gzipped JSON lines.
pub(crate) fn expected(gz: &[u8]) -> Listing {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(gz), &mut text).unwrap();
    // Bytes that are no UTF-8 stand as lone surrogates, which no JSON reader takes: put them in a private range.
    text.replace("\\udc", "\\ue0").lines().map(expected_entry).collect()
}

fn expected_entry(line: &str) -> (Vec<u8>, Entry) {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| line.get(key).map(|value| value.as_str().unwrap());
    let number = |key: &str| line.get(key).map(|value| value.as_u64().unwrap());
    let small = |key: &str| number(key).map(|value| u32::try_from(value).unwrap());
    let entry = Entry {
        mode: u32::from_str_radix(text("mode").unwrap(), 8).unwrap(),
        uid: small("uid").unwrap(),
        gid: small("gid").unwrap(),
        mtime_ns: line.get("mtime_ns").map(|value| value.as_i64().unwrap().into()),
        nlink: small("nlink"),
        size: number("size"),
        rdev: text("rdev").map(|rdev| {
            let (major, minor) = rdev.split_once(':').unwrap();
            (major.parse().unwrap(), minor.parse().unwrap())
        }),
        target: text("target").map(bytes),
        sha256: text("sha256").map(String::from),
        link_group: text("link_group").map(bytes),
        xattrs: line.get("xattrs").map_or_else(BTreeMap::new, |xattrs| {
            let hex = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
            xattrs.as_object().unwrap().iter().map(|(name, value)| (bytes(name), hex(value))).collect()
        }),
    };
    (bytes(text("path").unwrap()), entry)
}

fn bytes(text: &str) -> Vec<u8> {
    let mut to = Vec::new();
    for c in text.chars() {
        match u32::from(c).checked_sub(0xE000).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => to.push(byte),
            None => to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    to
}

/// Lists a bootstrap by the calls that a file system makes.
pub(crate) fn read(bootstrap: &Bootstrap<Vec<u8>>, blobs: &mut [StoredBlob]) -> Listing {
    let mut reading = Reading { bootstrap, blobs, listing: Listing::new(), first: HashMap::new() };
    reading.walk(bootstrap.root(), Vec::new());
    reading.listing
}

struct Reading<'a> {
    bootstrap: &'a Bootstrap<Vec<u8>>,
    blobs: &'a mut [StoredBlob],
    listing: Listing,
    first: HashMap<Nid, Vec<u8>>,
}

impl Reading<'_> {
    fn walk(&mut self, nid: Nid, path: Vec<u8>) {
        let attributes = self.bootstrap.attributes(nid).unwrap();
        assert_eq!(attributes.nid, nid);
        let shown = if path.is_empty() { b"/".to_vec() } else { path.clone() };
        let entry = self.entry(&attributes, &shown);
        self.listing.insert(shown, entry);
        if attributes.file_type != FileType::Directory {
            return;
        }
        for entry in self.bootstrap.read_dir(nid, 0).unwrap() {
            let entry = entry.unwrap();
            let found = self.bootstrap.lookup(nid, entry.name).unwrap();
            assert_eq!(found, Some((entry.nid, entry.file_type)), "lookup and read_dir agree");
            let next = self.bootstrap.read_dir(nid, entry.next_cookie).unwrap().next();
            assert!(
                next.is_none_or(|next| next.unwrap().name > entry.name),
                "a cookie goes on behind its entry"
            );
            if !matches!(entry.name, b"." | b"..") {
                self.walk(entry.nid, [&path, b"/".as_slice(), entry.name].concat());
            }
        }
        assert_eq!(self.bootstrap.lookup(nid, b"no such name").unwrap(), None);
    }

    fn entry(&mut self, at: &Attributes, path: &[u8]) -> Entry {
        let is_file = at.file_type == FileType::File;
        let is_device = matches!(at.file_type, FileType::CharDevice | FileType::BlockDevice);
        let seconds = i128::from(at.mtime) * 1_000_000_000;
        let linked = is_file && at.nlink > 1;
        let not_directory = at.file_type != FileType::Directory;
        let link = at.file_type == FileType::Symlink;
        let xattrs = self.bootstrap.xattrs(at.nid).unwrap();
        for (name, value) in &xattrs {
            assert_eq!(self.bootstrap.xattr(at.nid, name).unwrap(), Some(*value));
        }
        Entry {
            mode: type_bits(at.file_type) | u32::from(at.permissions),
            uid: at.uid,
            gid: at.gid,
            mtime_ns: (path != b"/").then(|| seconds + i128::from(at.mtime_nsec)),
            nlink: not_directory.then_some(at.nlink),
            size: not_directory.then_some(at.size),
            rdev: is_device.then_some((at.rdev >> 8 & 0xFFF, at.rdev & 0xFF | at.rdev >> 12 & 0xF_FF00)),
            target: link.then(|| self.bootstrap.link_target(at.nid).unwrap()),
            sha256: is_file.then(|| self.content_sha256(at)),
            link_group: linked.then(|| self.first.entry(at.nid).or_insert_with(|| path.to_vec()).clone()),
            xattrs: xattrs.into_iter().map(|(name, value)| (name, value.to_vec())).collect(),
        }
    }

    fn content_sha256(&mut self, at: &Attributes) -> String {
        let mut hash = Sha256::new();
        let mut len = 0;
        for extent in self.bootstrap.extents(at.nid, 0, u64::MAX).unwrap() {
            hash.update(self.blobs[usize::from(extent.blob.0)].extent(&extent));
            len += u64::from(extent.len);
        }
        assert_eq!(len, at.size);
        hex::encode(hash.finalize())
    }
}

pub(crate) fn type_bits(file_type: FileType) -> u32 {
    match file_type {
        FileType::Fifo => 0o010_000,
        FileType::CharDevice => 0o020_000,
        FileType::Directory => 0o040_000,
        FileType::BlockDevice => 0o060_000,
        FileType::File => 0o100_000,
        FileType::Symlink => 0o120_000,
        FileType::Socket => 0o140_000,
    }
}

/// Fails naming the first path that differs.
pub(crate) fn assert_same(got: &Listing, expected: &Listing) {
    for (path, entry) in expected {
        assert_eq!(got.get(path), Some(entry), "{}", path.escape_ascii());
    }
    if let Some(path) = got.keys().find(|path| !expected.contains_key(*path)) {
        panic!("{} is not expected", path.escape_ascii());
    }
}
