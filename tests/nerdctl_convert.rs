//! The calls that nerdctl's converter makes of `nydus-image`: flags, FIFOs, and what it reads of the results.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "support/rafs_content.rs"]
mod rafs_content;

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use rafs::{Bootstrap, Compressor, Tree, blob::read_toc};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const NYDUS_IMAGE: &str = env!("CARGO_BIN_EXE_nydus-image");
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits, and kills what takes too long.
fn wait(mut child: Child) -> ExitStatus {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let (done, finished) = channel();
    let waiter = thread::spawn(move || done.send(child.wait().unwrap()));
    let status = finished.recv_timeout(DEADLINE);
    if status.is_err() {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
    }
    waiter.join().unwrap().ok();
    status.expect("nydus-image ends in time")
}

/// Packs a layer through FIFOs, as nerdctl's converter does; gives the blob and how the program ended.
fn pack(tar: Vec<u8>, patterns: &str, flags: &[&str]) -> (Vec<u8>, ExitStatus) {
    let dir = TempDir::new().unwrap();
    let (blob, targz) = (dir.path().join("blob.rafs"), dir.path().join("blob.targz"));
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o640);
    nix::unistd::mkfifo(&blob, mode).unwrap();
    nix::unistd::mkfifo(&targz, mode).unwrap();
    let mut child = Command::new(NYDUS_IMAGE)
        .args(["create", "--log-level", "warn", "--prefetch-policy", "fs", "--blob"])
        .arg(&blob)
        .args(["--whiteout-spec", "none", "--fs-version", "6", "--type", "tar-rafs"])
        .args(["--blob-inline-meta", "--features", "blob-toc"])
        .args(flags)
        .arg(&targz)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(patterns.as_bytes()).unwrap();
    let out = blob.clone();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(out).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    });
    let to = targz.clone();
    let writer = thread::spawn(move || {
        // A builder that fails early closes its end: that is its answer, not an error here.
        File::create(to).unwrap().write_all(&tar).ok();
    });
    let status = wait(child);
    let_go(&writer, &targz);
    writer.join().unwrap();
    let_go(&reader, &blob);
    (reader.join().unwrap(), status)
}

/// Lets a thread go whose FIFO the program has never opened, or will only now come to open itself.
fn let_go<T>(thread: &thread::JoinHandle<T>, fifo: &Path) {
    while !thread.is_finished() {
        drop(File::options().read(true).write(true).open(fifo));
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// What the converter keeps of a layer: its blob under its digest, and its bootstrap in a file of that name.
fn store(blob: &[u8], blobs: &Path, bootstraps: &Path) -> PathBuf {
    let hex = hex::encode(Sha256::digest(blob));
    std::fs::write(blobs.join(&hex), blob).unwrap();
    let tail = &blob[blob.len() - blob.len().min(4096)..];
    let toc = read_toc(tail, blob.len() as u64).unwrap().expect("the blob has a table of contents");
    let boot = toc.iter().find(|entry| entry.name == "image.boot").unwrap();
    let begin = usize::try_from(boot.compressed_offset).unwrap();
    let stored = &blob[begin..begin + usize::try_from(boot.compressed_size).unwrap()];
    assert_eq!(boot.compressor, Compressor::Zstd);
    let plain = zstd::decode_all(stored).unwrap();
    assert_eq!(<[u8; 32]>::from(Sha256::digest(&plain)), boot.uncompressed_digest);
    let path = bootstraps.join(hex);
    std::fs::write(&path, plain).unwrap();
    path
}

/// Merges bootstraps; gives the merged tree and the blob ids of the JSON summary.
fn merge(bootstraps: &[PathBuf], work: &Path) -> (Tree, Vec<String>) {
    let (json, out) = (work.join("merge-output.json"), work.join("bootstrap"));
    let mut child = Command::new(NYDUS_IMAGE)
        .args(["merge", "--log-level", "warn", "--prefetch-policy", "fs", "--output-json"])
        .arg(&json)
        .arg("--bootstrap")
        .arg(&out)
        .args(bootstraps)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"/").unwrap();
    assert!(wait(child).success());
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(summary["fs_version"], "6");
    let blobs =
        summary["blobs"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    (Bootstrap::open(std::fs::read(out).unwrap()).unwrap().to_tree().unwrap(), blobs)
}

fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        if *kind == tar::EntryType::Link || *kind == tar::EntryType::Symlink {
            header.set_size(0);
            out.append_link(&mut header, path, std::str::from_utf8(content).unwrap()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            out.append_data(&mut header, path, *content).unwrap();
        }
    }
    out.into_inner().unwrap()
}

fn layers() -> [Vec<u8>; 3] {
    use tar::EntryType::{Directory, Link, Regular};
    let big: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let lower = tar(&[
        ("bin", Directory, b""),
        ("bin/big", Regular, &big),
        ("bin/again", Link, b"bin/big"),
        ("etc/gone", Regular, b"old"),
        ("etc/kept", Regular, b"kept"),
    ]);
    let upper = tar(&[("etc", Directory, b""), ("etc/.wh.gone", Regular, b""), ("etc/new", Regular, b"new")]);
    [lower, upper, tar(&[("empty", Directory, b"")])]
}

#[test]
fn the_probe_finds_the_tar_feature_on_stdout() {
    let out = Command::new(NYDUS_IMAGE).args(["create", "-h"]).output().unwrap();
    assert!(out.status.success());
    let help = String::from_utf8(out.stdout).unwrap();
    assert!(help.contains("--type") && help.contains("tar-rafs"));
    let out = Command::new(NYDUS_IMAGE).arg("--version").output().unwrap();
    let version = String::from_utf8(out.stdout).unwrap();
    let value = version.split("Version:").nth(1).unwrap().trim_start();
    assert!(value.starts_with('v'), "{version:?}");
}

#[test]
fn layers_packed_through_fifos_merge_into_the_image_that_they_stand_for() {
    for compressor in ["zstd", "lz4_block", "none"] {
        let dir = TempDir::new().unwrap();
        let (blobs, bootstraps) = (dir.path().join("blobs"), dir.path().join("bootstraps"));
        std::fs::create_dir(&blobs).unwrap();
        std::fs::create_dir(&bootstraps).unwrap();
        let mut paths = Vec::new();
        for layer in layers() {
            let (blob, status) = pack(layer, "/", &["--compressor", compressor, "--chunk-size", "0x10000"]);
            assert!(status.success());
            paths.push(store(&blob, &blobs, &bootstraps));
        }
        let (tree, ids) = merge(&paths, dir.path());
        let with_content: Vec<_> =
            paths[..2].iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 2, "the layer of directories has no blob");
        assert!(with_content.iter().all(|id| ids.contains(id)));
        let listing = rafs_content::list(&tree, &blobs);
        let names: Vec<_> = listing.keys().map(String::as_str).collect();
        assert_eq!(names, ["/bin", "/bin/again", "/bin/big", "/empty", "/etc", "/etc/kept", "/etc/new"]);
        assert!(listing["/etc/new"].ends_with("file new"));
        assert_eq!(listing["/bin/again"], listing["/bin/big"]);
        assert_eq!(tree.find(b"bin/again"), tree.find(b"bin/big"));
        assert!(tree.prefetch.is_empty(), "`/` is no hint");
    }
}

#[test]
fn a_layer_keeps_its_whiteouts_for_the_merge() {
    let dir = TempDir::new().unwrap();
    let [_, upper, _] = layers();
    let (blob, _) = pack(upper, "/", &[]);
    let path = store(&blob, dir.path(), dir.path());
    let boot = std::fs::read(&path).unwrap();
    let tree = Bootstrap::open(boot).unwrap().to_tree().unwrap();
    assert!(tree.find(b"etc/.wh.gone").is_some());
}

#[test]
fn the_same_layer_gives_the_same_blob() {
    let [lower, ..] = layers();
    assert!(pack(lower.clone(), "/", &[]).0 == pack(lower, "/", &[]).0);
}

#[test]
fn prefetch_patterns_put_chunks_first_and_into_the_table() {
    let dir = TempDir::new().unwrap();
    let [lower, ..] = layers();
    let (blob, status) = pack(lower, "/etc/kept\n/bin/big", &["--chunk-size", "0x10000"]);
    assert!(status.success());
    let path = store(&blob, dir.path(), dir.path());
    let tree = Bootstrap::open(std::fs::read(path).unwrap()).unwrap().to_tree().unwrap();
    assert_eq!(tree.prefetch, [tree.find(b"etc/kept").unwrap(), tree.find(b"bin/big").unwrap()]);
    let rafs::Kind::File { chunks, .. } = &tree.inode(tree.prefetch[0]).kind else { panic!("file") };
    assert_eq!(chunks[0].chunk.0, 0);
    let [plain, ..] = layers();
    assert_ne!(pack(plain, "/", &["--chunk-size", "0x10000"]).0, blob);
}

#[test]
fn a_bad_layer_ends_the_program_with_an_error_that_names_the_entry() {
    let [mut cut, ..] = layers();
    cut.truncate(100_000);
    assert!(!pack(cut, "/", &[]).1.success());
    let dir = TempDir::new().unwrap();
    let mut escaping = tar(&[("aa/evil", tar::EntryType::Regular, b"x")]);
    escaping[..7].copy_from_slice(b"../evil");
    escaping[148..156].fill(b' ');
    let sum: u32 = escaping[..512].iter().map(|b| u32::from(*b)).sum();
    escaping[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let source = dir.path().join("layer.tar");
    std::fs::write(&source, escaping).unwrap();
    let out = Command::new(NYDUS_IMAGE)
        .args(["create", "--type", "tar-rafs", "--blob-inline-meta", "--features", "blob-toc", "--blob"])
        .arg(dir.path().join("blob"))
        .arg(source)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let message = String::from_utf8(out.stderr).unwrap();
    assert!(message.contains("../evil"), "{message}");
    assert!(!dir.path().join("blob").exists());
}

#[test]
fn a_directory_builds_with_its_bootstrap_beside_the_blob() {
    let dir = TempDir::new().unwrap();
    let (source, blobs, boot) =
        (dir.path().join("source"), dir.path().join("blobs"), dir.path().join("boot"));
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::create_dir(&blobs).unwrap();
    std::fs::write(source.join("sub/a"), "hello").unwrap();
    std::fs::hard_link(source.join("sub/a"), source.join("b")).unwrap();
    std::os::unix::fs::symlink("b", source.join("l")).unwrap();
    let status = Command::new(NYDUS_IMAGE)
        .args(["create", "--type", "directory", "--bootstrap"])
        .arg(&boot)
        .arg("--blob-dir")
        .arg(&blobs)
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success());
    let tree = Bootstrap::open(std::fs::read(&boot).unwrap()).unwrap().to_tree().unwrap();
    let listing = rafs_content::list(&tree, &blobs);
    assert!(listing["/sub/a"].ends_with("file hello") && listing["/l"].ends_with("link to b"));
    assert_eq!(tree.find(b"sub/a"), tree.find(b"b"));
    let id = &tree.blobs[0].id;
    assert_eq!(id.as_str(), hex::encode(Sha256::digest(std::fs::read(blobs.join(id.as_str())).unwrap())));
    let check = Command::new(NYDUS_IMAGE).args(["check", "--bootstrap"]).arg(&boot).output().unwrap();
    assert!(check.status.success() && String::from_utf8(check.stdout).unwrap().contains(id.as_str()));
}
