//! Linux mounts what the writer makes, and shows what the reader reads.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "format/listing.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod listing;
#[path = "format/random.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod random;
#[path = "format/stored.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod stored;
#[path = "src/xattr.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where else it belongs")]
mod xattr;

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use listing::{Entry, Listing, assert_same};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rafs::{Bootstrap, BootstrapWriter, Compressor, Tree};
use sha2::{Digest as _, Sha256};
use stored::StoredBlob;

/// A mount that ends with its owner, on loop devices where files cannot be mounted.
struct Mount {
    at: PathBuf,
    loops: Vec<PathBuf>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        umount2(&self.at, MntFlags::MNT_DETACH).unwrap();
        self.loops.iter().for_each(detach);
    }
}

fn detach(device: &PathBuf) {
    Command::new("losetup").arg("-d").arg(device).status().unwrap();
}

fn mount_erofs(source: &Path, devices: &[PathBuf], at: &Path) -> nix::Result<()> {
    let options: Vec<_> = devices.iter().map(|device| format!("device={}", device.display())).collect();
    mount(Some(source), at, Some("erofs"), MsFlags::MS_RDONLY, Some(options.join(",").as_str()))
}

/// Mounts a bootstrap, by files or else by loop devices. `None`: this kernel has no EROFS.
fn mounted(source: &Path, devices: &[PathBuf], at: &Path) -> Option<Mount> {
    let (error, at) = match mount_erofs(source, devices, at) {
        Ok(()) => return Some(Mount { at: at.to_owned(), loops: Vec::new() }),
        Err(error) => (error, at.to_owned()),
    };
    if error == Errno::ENODEV {
        eprintln!("skipped: this kernel has no EROFS");
        return None;
    }
    assert_eq!(error, Errno::ENOTBLK, "EROFS refuses {}", source.display());
    eprintln!("EROFS does not mount files here: taking loop devices");
    let attach = |file: &Path| {
        let made =
            Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(file).output().unwrap();
        PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
    };
    let loops: Vec<_> =
        std::iter::once(source).chain(devices.iter().map(PathBuf::as_path)).map(attach).collect();
    mount_erofs(&loops[0], &loops[1..], &at).unwrap();
    Some(Mount { at, loops })
}

/// Moves the test's thread to mounts of its own. False: not allowed to.
fn own_mounts() -> bool {
    if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNS).is_err() {
        eprintln!("skipped: only root can mount");
        return false;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    true
}

fn list(at: &Path) -> Listing {
    let (mut listing, mut first) = (Listing::new(), HashMap::new());
    let mut ahead = vec![(at.to_owned(), Vec::new())];
    while let Some((file, path)) = ahead.pop() {
        let shown = if path.is_empty() { b"/".to_vec() } else { path.clone() };
        if fs::symlink_metadata(&file).unwrap().is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            let child = |name: &std::ffi::OsString| {
                (file.join(name), [&path, b"/".as_slice(), name.as_bytes()].concat())
            };
            ahead.extend(names.iter().rev().map(child));
        }
        listing.insert(shown.clone(), entry(&file, &shown, &mut first));
    }
    listing
}

fn entry(file: &Path, path: &[u8], first: &mut HashMap<u64, Vec<u8>>) -> Entry {
    let stat = fs::symlink_metadata(file).unwrap();
    let is_device = matches!(stat.mode() & 0o170_000, 0o020_000 | 0o060_000);
    let links = u32::try_from(stat.nlink()).unwrap();
    let linked = stat.is_file() && links > 1;
    Entry {
        mode: stat.mode(),
        uid: stat.uid(),
        gid: stat.gid(),
        mtime_ns: (path != b"/")
            .then(|| i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec())),
        nlink: (!stat.is_dir()).then_some(links),
        size: (!stat.is_dir()).then_some(stat.size()),
        rdev: is_device.then(|| (libc::major(stat.rdev()), libc::minor(stat.rdev()))),
        target: stat.is_symlink().then(|| fs::read_link(file).unwrap().as_os_str().as_bytes().to_vec()),
        sha256: stat.is_file().then(|| hex::encode(Sha256::digest(fs::read(file).unwrap()))),
        link_group: linked.then(|| first.entry(stat.ino()).or_insert_with(|| path.to_vec()).clone()),
        xattrs: xattrs(file),
    }
}

fn xattrs(file: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let file = CString::new(file.as_os_str().as_bytes()).unwrap();
    let names = xattr::list(&file).unwrap();
    let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| (name.to_vec(), xattr::get(&file, &CString::new(name).unwrap()).unwrap_or_default()))
        .collect()
}

/// Linux gives `user.` attributes of files and directories only.
fn as_shown(mut listing: Listing) -> Listing {
    for entry in listing.values_mut() {
        let has_user = matches!(entry.mode & 0o170_000, 0o040_000 | 0o100_000);
        entry.xattrs.retain(|name, _| has_user || !name.starts_with(b"user."));
    }
    listing
}

/// Writes, mounts and compares. False: cannot be tried here.
fn kernel_agrees(tree: &Tree, blob: impl Fn(&Bootstrap<Vec<u8>>, u8) -> StoredBlob) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let written = BootstrapWriter::new(tree).write().unwrap();
    let source = directory.path().join("bootstrap");
    fs::write(&source, &written.bytes).unwrap();
    let bootstrap = Bootstrap::open(written.bytes).unwrap();
    let count = u8::try_from(bootstrap.blobs().len()).unwrap();
    let mut blobs: Vec<_> = (0..count).map(|index| blob(&bootstrap, index)).collect();
    let device = |(number, blob): (usize, &mut StoredBlob)| {
        let path = directory.path().join(format!("device-{number}"));
        fs::write(&path, blob.image()).unwrap();
        path
    };
    let devices: Vec<_> = blobs.iter_mut().enumerate().map(device).collect();
    let at = directory.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let Some(mount) = mounted(&source, &devices, &at) else { return false };
    assert_same(&as_shown(list(&mount.at)), &as_shown(listing::read(&bootstrap, &mut blobs)));
    true
}

#[test]
fn linux_shows_random_trees_as_the_reader_does() {
    if !own_mounts() {
        return;
    }
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    let cases = (random::steps(50), any::<bool>());
    runner
        .run(&cases, |(steps, raw)| {
            let compressor = if raw { Compressor::None } else { Compressor::Zstd };
            let image = random::image(&steps, compressor);
            kernel_agrees(&image.tree, |bootstrap, index| {
                StoredBlob::open(bootstrap, index, image.blob.clone())
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn linux_shows_rewritten_samples_as_the_reader_does() {
    if !own_mounts() {
        return;
    }
    for sample in ["zstd", "mib", "layers"] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(sample);
        let tree = Bootstrap::open(fs::read(golden.join("bootstrap")).unwrap()).unwrap().to_tree().unwrap();
        kernel_agrees(&tree, |bootstrap, index| {
            let id = bootstrap.blobs()[usize::from(index)].id.as_str();
            StoredBlob::open(bootstrap, index, fs::read(golden.join(id)).unwrap())
        });
    }
}
