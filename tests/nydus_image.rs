//! `nydus-image` as other converters call it: dictionaries of chunks, parents, and the way back to a tar.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "support/rafs_content.rs"]
mod rafs_content;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use rafs::{Bootstrap, Tree};
use serde_json::Value;
use tempfile::TempDir;

/// A directory for everything of one test.
struct Work(TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(TempDir::new().unwrap());
        fs::create_dir(work.path("blobs")).unwrap();
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let args = args.iter().map(|arg| arg.replace("DIR", self.0.path().to_str().unwrap()));
        let program = env!("CARGO_BIN_EXE_nydus-image");
        Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn refused(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(!out.status.success(), "{args:?}");
        String::from_utf8(out.stderr).unwrap()
    }

    fn tree(&self, bootstrap: &str) -> Tree {
        Bootstrap::open(fs::read(self.path(bootstrap)).unwrap()).unwrap().to_tree().unwrap()
    }

    fn listing(&self, bootstrap: &str) -> rafs_content::Listing {
        rafs_content::list(&self.tree(bootstrap), &self.path("blobs"))
    }

    fn blobs(&self, json: &str) -> Vec<String> {
        let summary: Value = serde_json::from_slice(&fs::read(self.path(json)).unwrap()).unwrap();
        summary["blobs"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// Builds directory `source`, made of these files, into `<source>.boot` and the blobs.
    fn create(&self, source: &str, files: &[(&str, &[u8])], flags: &[&str]) {
        for (name, content) in files {
            let path = self.path(source).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let boot = format!("DIR/{source}.boot");
        let (json, dir) = (format!("DIR/{source}.json"), format!("DIR/{source}"));
        let mut args = vec!["create", "--type", "directory", "--chunk-size", "0x10000", "--bootstrap", &boot];
        args.extend(["--blob-dir", "DIR/blobs", "--output-json", &json]);
        args.extend(flags);
        args.push(&dir);
        self.ok(&args);
    }
}

fn big() -> Vec<u8> {
    (0..50_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
}

#[test]
fn chunks_of_a_dictionary_are_used_and_the_new_blob_is_the_last() {
    let work = Work::new();
    let (old, big) = (work.path("old.json"), big());
    work.create("old", &[("big", &big)], &[]);
    let [dict] = work.blobs(old.to_str().unwrap()).try_into().unwrap();
    work.create("new", &[("again", &big), ("own", b"new")], &["--chunk-dict", "bootstrap=DIR/old.boot"]);
    let ids = work.blobs("new.json");
    assert_eq!((ids.len(), &ids[0]), (2, &dict));
    assert!(
        fs::metadata(work.path("blobs").join(&ids[1])).unwrap().len() < 10_000,
        "big is not stored again"
    );
    let listing = work.listing("new.boot");
    assert!(
        listing["/again"].ends_with(&big.escape_ascii().to_string()) && listing["/own"].ends_with("file new")
    );
    work.create("none", &[("again", &big)], &["--chunk-dict", "bootstrap=DIR/old.boot"]);
    assert_eq!(work.blobs("none.json"), [dict]);
}

#[test]
fn layers_with_a_dictionary_merge_into_an_image_that_names_its_blob() {
    let (work, big) = (Work::new(), big());
    work.create("old", &[("big", &big)], &[]);
    let [dict] = work.blobs("old.json").try_into().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("again", big.as_slice()), ("own", b"new")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    fs::write(work.path("layer.tar"), tar.into_inner().unwrap()).unwrap();
    let dictionary = ["--chunk-dict", "bootstrap=DIR/old.boot"];
    let create =
        ["create", "--type", "tar-rafs", "--blob", "DIR/layer.blob", "--bootstrap", "DIR/layer.boot"];
    work.ok(&[
        &create[..],
        &dictionary,
        &["--chunk-size", "0x10000", "--output-json", "DIR/layer.json", "DIR/layer.tar"],
    ]
    .concat());
    let ids = work.blobs("layer.json");
    fs::rename(work.path("layer.blob"), work.path("blobs").join(&ids[1])).unwrap();
    let merge = ["merge", "--bootstrap", "DIR/merged", "--output-json", "DIR/merged.json"];
    work.ok(&[&merge[..], &dictionary, &["DIR/layer.boot"]].concat());
    assert!(work.blobs("merged.json").contains(&dict));
    assert_eq!(work.listing("merged"), work.listing("layer.boot"));
}

#[test]
fn a_dictionary_that_does_not_fit_is_refused_by_name() {
    let work = Work::new();
    work.create("old", &[("a", b"a")], &[]);
    let create = [
        "create",
        "--type",
        "directory",
        "--bootstrap",
        "DIR/b",
        "--blob",
        "DIR/blob",
        "DIR/old",
        "--chunk-dict",
    ];
    let other_size = work.refused(&[&create[..], &["bootstrap=DIR/old.boot"]].concat());
    assert!(other_size.contains("old.boot") && other_size.contains("0x10000"), "{other_size}");
    let other_kind = work.refused(&[&create[..], &["sqlite=DIR/x"]].concat());
    assert!(other_kind.contains("bootstrap=FILE"), "{other_kind}");
}

#[test]
fn a_directory_goes_onto_its_parent() {
    let (work, big) = (Work::new(), big());
    work.create("low", &[("d/big", &big), ("d/gone", b"gone"), ("kept", b"kept")], &[]);
    let parent = ["--parent-bootstrap", "DIR/low.boot"];
    work.create("up", &[("d/.wh.gone", b""), ("d/copy", &big), ("new", b"new")], &parent);
    let listing = work.listing("up.boot");
    assert_eq!(listing.keys().collect::<Vec<_>>(), ["/d", "/d/big", "/d/copy", "/kept", "/new"]);
    assert!(listing["/kept"].ends_with("file kept"));
    let ids = work.blobs("up.json");
    assert_eq!(&ids[..1], work.blobs("low.json"));
    assert!(
        fs::metadata(work.path("blobs").join(&ids[1])).unwrap().len() < 10_000,
        "big is not stored again"
    );
}

/// Unpacks through a FIFO, as converters do.
fn unpack(work: &Work, boot: &str, flags: &[&str]) -> Vec<u8> {
    let fifo = work.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || {
            let mut tar = Vec::new();
            fs::File::open(fifo).unwrap().read_to_end(&mut tar).unwrap();
            tar
        }
    });
    work.ok(
        &[&["unpack", "--log-level", "warn", "--bootstrap", boot, "--output", "DIR/fifo"], flags].concat()
    );
    fs::remove_file(fifo).unwrap();
    reader.join().unwrap()
}

/// Builds a tar as one layer; gives its only blob's place.
fn build(work: &Work, tar: &Path, boot: &str) -> PathBuf {
    let tar = tar.to_str().unwrap();
    let out = ["--blob-dir", "DIR/blobs", "--bootstrap", boot, "--output-json", "DIR/build.json"];
    work.ok(&[&["create", "--type", "tar-rafs", "--compressor", "lz4_block"], &out[..], &[tar]].concat());
    work.path("blobs").join(&work.blobs("build.json")[0])
}

#[test]
fn an_unpacked_layer_gives_the_same_tree_again() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let work = Work::new();
    let mut tar = tar::Builder::new(Vec::new());
    let long = "long/".repeat(60) + "name";
    let entries: [(&str, tar::EntryType, &[u8]); 11] = [
        ("./", Directory, b""),
        ("d", Directory, b""),
        ("d/big", Regular, &big()),
        ("d/again", Link, b"d/big"),
        ("implied/empty", Regular, b""),
        (&long, Regular, b"deep"),
        ("link", Symlink, b"d/big"),
        ("pipe", Fifo, b""),
        ("c", Char, b""),
        ("b", Block, b""),
        ("d/.wh.below", Regular, b""),
    ];
    for (number, (path, kind, content)) in (0_u32..).zip(entries) {
        let (mtime, value) =
            (format!("{}.25", i64::from(number) - 3), [number.to_le_bytes().as_slice(), b"\n="].concat());
        let records = [("mtime", mtime.as_bytes()), ("SCHILY.xattr.user.x", &value)];
        let count = if kind == Regular || kind == Directory { 2 } else { 1 };
        tar.append_pax_extensions(records[..count].iter().copied()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o4751);
        header.set_uid(3_000_000_000);
        header.set_gid(number.into());
        header.set_size(0);
        if matches!(kind, Char | Block) {
            header.set_device_major(300).unwrap();
            header.set_device_minor(70_000).unwrap();
        }
        if matches!(kind, Link | Symlink) {
            tar.append_link(&mut header, path, std::str::from_utf8(content).unwrap()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content).unwrap();
        }
    }
    fs::write(work.path("one.tar"), tar.into_inner().unwrap()).unwrap();
    let blob = build(&work, &work.path("one.tar"), "DIR/one.boot");
    fs::write(work.path("two.tar"), unpack(&work, "DIR/one.boot", &["--blob", blob.to_str().unwrap()]))
        .unwrap();
    build(&work, &work.path("two.tar"), "DIR/two.boot");
    assert_eq!(work.listing("one.boot"), work.listing("two.boot"));
    let (one, two) = (work.tree("one.boot"), work.tree("two.boot"));
    assert_eq!(one.inode(Tree::ROOT).meta, two.inode(Tree::ROOT).meta);
    assert_eq!(two.find(b"d/big"), two.find(b"d/again"));
    assert!(two.find(b"d/.wh.below").is_some());
    assert!(!unpack(&work, "DIR/one.boot", &["--blob-dir", "DIR/blobs"]).is_empty());
}

#[test]
fn what_came_without_an_entry_goes_without_one() {
    let work = Work::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1);
    tar.append_data(&mut header, "implied/f", &b"f"[..]).unwrap();
    fs::write(work.path("one.tar"), tar.into_inner().unwrap()).unwrap();
    build(&work, &work.path("one.tar"), "DIR/one.boot");
    let back = unpack(&work, "DIR/one.boot", &["--blob-dir", "DIR/blobs"]);
    let mut back = tar::Archive::new(back.as_slice());
    let names: Vec<_> =
        back.entries().unwrap().map(|one| one.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, [Path::new("implied/f")]);
}

#[test]
fn what_cannot_be_unpacked_or_asked_for_is_refused_by_name() {
    let work = Work::new();
    work.create("a", &[("a", b"content")], &[]);
    let unpack = ["unpack", "--bootstrap", "DIR/a.boot", "--output", "DIR/out.tar"];
    let backend =
        work.refused(&[&unpack[..], &["--backend-type", "http-proxy", "--backend-config", "{}"]].concat());
    assert!(backend.contains("http-proxy") && !work.path("out.tar").exists(), "{backend}");
    let blob = work.path("blobs").join(&work.blobs("a.json")[0]);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let flipped = work.refused(&[&unpack[..], &["--blob-dir", "DIR/blobs"]].concat());
    assert!(
        flipped.contains("digest") && flipped.contains("\"a\"") || flipped.contains("entry a"),
        "{flipped}"
    );
    for command in ["compact", "optimize", "chunkdict", "export"] {
        assert!(work.refused(&[command]).contains(command));
    }
    for flag in ["--encrypt", "--batch-size=4096", "--fs-version=5", "--type=targz-ref", "--type=tar-tarfs"] {
        let said = work.refused(&["create", flag, "--bootstrap", "DIR/b", "--blob", "DIR/b", "DIR/a"]);
        let name = flag.split('=').next_back().unwrap();
        assert!(said.contains(name) || said.contains("--batch-size"), "{said}");
    }
}
