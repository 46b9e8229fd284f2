//! Converting whole images between OCI layouts: what comes out, that it is reproducible, and what is refused.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "support/rafs_content.rs"]
mod rafs_content;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use builder::{
    ConvertOptions, Platforms, Report,
    convert::{ConvertError, Silent},
};
use rafs::{Bootstrap, Compressor, DigestAlgorithm, Tree};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const OCI: &str = "application/vnd.oci.image";
const DOCKER: &str = "application/vnd.docker";

/// A layout that images are put into.
struct Layout {
    dir: TempDir,
}

/// A layer: media type, stored bytes, plain bytes.
struct Layer {
    media_type: String,
    stored: Vec<u8>,
    plain: Vec<u8>,
}

impl Layout {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.path().join("source/blobs/sha256")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = sha256(bytes);
        std::fs::write(self.path("source/blobs/sha256").join(&hex), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    }

    /// Puts an image; gives the descriptor of its manifest.
    fn image(&self, layers: &[Layer], architecture: &str, is_docker: bool) -> Value {
        let diff_ids: Vec<_> =
            layers.iter().map(|layer| format!("sha256:{}", sha256(&layer.plain))).collect();
        let config = json!({
            "os": "linux", "architecture": architecture, "config": { "Cmd": ["/bin/sh"], "Healthcheck": { "Test": ["NONE"] } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": [{ "created_by": "test" }],
        });
        let (manifest_type, config_type) = match is_docker {
            true => (
                format!("{DOCKER}.distribution.manifest.v2+json"),
                format!("{DOCKER}.container.image.v1+json"),
            ),
            false => (format!("{OCI}.manifest.v1+json"), format!("{OCI}.config.v1+json")),
        };
        let config = self.put(&config_type, config.to_string().as_bytes());
        let layers: Vec<_> = layers.iter().map(|layer| self.put(&layer.media_type, &layer.stored)).collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
        self.put(&manifest_type, manifest.to_string().as_bytes())
    }

    fn tag(&self, mut descriptor: Value, tag: &str) {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        std::fs::write(self.path("source/index.json"), index.to_string()).unwrap();
    }

    fn options(&self, target: &str) -> ConvertOptions {
        ConvertOptions {
            source: format!("oci:{}:v1", self.path("source").display()),
            target: target.replace("DIR", self.dir.path().to_str().unwrap()),
            platforms: Platforms::All,
            chunk_size: 0x1_0000,
            compressor: Compressor::Zstd,
            digest: DigestAlgorithm::Blake3,
            prefetch: None,
            jobs: 2,
            client: registry::ClientOptions::default(),
            work_dir: None,
        }
    }

    fn convert(&self, options: ConvertOptions) -> Result<Report, ConvertError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(builder::convert(options, Arc::new(Silent)))
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A document of a layout by its descriptor.
fn follow(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    read_json(&layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap()))
}

/// The merged tree of a converted image.
fn image_tree(layout: &Path, manifest: &Value) -> Tree {
    let digest = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    let stored = std::fs::read(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&stored[..]));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == Path::new("image/image.boot") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return Bootstrap::open(bytes).unwrap().to_tree().unwrap();
        }
    }
    panic!("no bootstrap");
}

/// Every file of a layout with its digest.
fn files(layout: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        all.insert(
            path.display().to_string().replace(layout.to_str().unwrap(), ""),
            sha256(&std::fs::read(path).unwrap()),
        );
    }
    all.insert("index.json".into(), sha256(&std::fs::read(layout.join("index.json")).unwrap()));
    all
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_mtime(1_600_000_000);
        header.set_uid(1000);
        header.set_gid(1000);
        if matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink) {
            header.set_size(0);
            out.append_link(&mut header, path, std::str::from_utf8(content).unwrap()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            out.append_data(&mut header, path, *content).unwrap();
        }
    }
    out.into_inner().unwrap()
}

fn layers() -> Vec<Layer> {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let big: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    let one = tar_of(&[
        ("usr", Directory, b""),
        ("usr/big", Regular, &big),
        ("usr/twin", Link, b"usr/big"),
        ("usr/lib", Directory, b""),
        ("lib", Symlink, b"usr/lib"),
        ("opt/a", Regular, b"a"),
        ("opt/b", Regular, b"b"),
    ]);
    let two = tar_of(&[
        ("opt/.wh.a", Regular, b""),
        ("usr/more", Regular, &big[..70_000]),
        ("usr/lib/so", Regular, b"so"),
    ]);
    let three = tar_of(&[("opt/.wh..wh..opq", Regular, b""), ("opt/c", Regular, b"c")]);
    let zstd = zstd::encode_all(&two[..], 3).unwrap();
    vec![
        Layer { media_type: format!("{OCI}.layer.v1.tar+gzip"), stored: gzip(&one), plain: one },
        Layer { media_type: format!("{OCI}.layer.v1.tar+zstd"), stored: zstd, plain: two },
        Layer { media_type: format!("{OCI}.layer.v1.tar"), stored: three.clone(), plain: three },
        Layer {
            media_type: format!("{OCI}.layer.v1.tar+gzip"),
            stored: gzip(&[0; 1024]),
            plain: vec![0; 1024],
        },
    ]
}

fn one_image() -> Layout {
    let layout = Layout::new();
    layout.tag(layout.image(&layers(), "amd64", false), "v1");
    layout
}

#[test]
fn an_image_of_gzip_zstd_and_plain_layers_keeps_its_tree() {
    let layout = one_image();
    let report = layout.convert(layout.options("oci:DIR/out:v2")).unwrap();
    let out = layout.path("out");
    let index = read_json(&out.join("index.json"));
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "v2");
    let manifest = follow(&out, &index["manifests"][0]);
    assert_eq!(index["manifests"][0]["digest"], report.digest.as_str());
    let listing = rafs_content::list(&image_tree(&out, &manifest), &out.join("blobs/sha256"));
    let names: Vec<_> = listing.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["/lib", "/opt", "/opt/c", "/usr", "/usr/big", "/usr/lib", "/usr/lib/so", "/usr/more", "/usr/twin"]
    );
    assert!(listing["/lib"].ends_with("link to usr/lib") && listing["/opt/c"].ends_with("file c"));
    assert_eq!(listing["/usr/big"], listing["/usr/twin"]);
    assert!(listing["/usr/big"].starts_with("755 1000:1000 1600000000.000000000 file"));
}

#[test]
fn manifest_and_config_tell_what_snapshotters_look_for() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let out = layout.path("out");
    let manifest = follow(&out, &read_json(&out.join("index.json"))["manifests"][0]);
    let made = manifest["layers"].as_array().unwrap();
    assert_eq!(made.len(), 5);
    for blob in &made[..4] {
        assert_eq!(blob["mediaType"], "application/vnd.oci.image.layer.nydus.blob.v1");
        assert_eq!(blob["annotations"]["containerd.io/snapshot/nydus-blob"], "true");
    }
    assert_eq!(made[4]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(made[4]["annotations"]["containerd.io/snapshot/nydus-bootstrap"], "true");
    assert_eq!(made[4]["annotations"]["containerd.io/snapshot/nydus-fs-version"], "6");
    let config = follow(&out, &manifest["config"]);
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert!(diff_ids[..4].iter().zip(made).all(|(id, layer)| *id == layer["digest"]));
    assert_eq!(config["config"]["Healthcheck"]["Test"][0], "NONE", "fields that OCI does not know stay");
    assert_eq!(config["history"][1]["comment"], "Nydus Bootstrap Layer");
}

#[test]
fn the_same_image_gives_the_same_bytes_whatever_the_threads() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let again = ConvertOptions { jobs: 5, ..layout.options("oci:DIR/again") };
    layout.convert(again).unwrap();
    assert_eq!(files(&layout.path("out")), files(&layout.path("again")));
}

#[test]
fn blobs_that_the_target_has_are_not_sent_again() {
    let layout = one_image();
    let first = layout.convert(layout.options("oci:DIR/out:a")).unwrap();
    let second = layout.convert(layout.options("oci:DIR/out:b")).unwrap();
    assert!(first.images[0].layers[..3].iter().all(|layer| layer.sent));
    assert!(second.images[0].layers.iter().all(|layer| !layer.sent));
    assert_eq!(read_json(&layout.path("out/index.json"))["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn nothing_but_the_image_is_left_in_the_target() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(layout.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
}

#[test]
fn archives_are_read_and_written() {
    let layout = one_image();
    let direct = layout.convert(layout.options("oci:DIR/out")).unwrap();
    layout.convert(layout.options("oci-archive:DIR/out.tar:v1")).unwrap();
    let mut source = tar::Builder::new(std::fs::File::create(layout.path("source.tar")).unwrap());
    source.append_dir_all(".", layout.path("source")).unwrap();
    source.into_inner().unwrap();
    let from_archive = ConvertOptions {
        source: format!("oci-archive:{}:v1", layout.path("source.tar").display()),
        ..layout.options("oci:DIR/third")
    };
    assert_eq!(layout.convert(from_archive).unwrap().digest, direct.digest);
    let mut packed = tar::Archive::new(std::fs::File::open(layout.path("out.tar")).unwrap());
    packed.unpack(layout.path("unpacked")).unwrap();
    let index = read_json(&layout.path("unpacked/index.json"));
    assert_eq!(index["manifests"][0]["digest"], direct.digest.as_str());
}

#[test]
fn of_an_index_the_wanted_platforms_are_converted() {
    let layout = Layout::new();
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let mut image = layout.image(&layers(), architecture, true);
        image["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifests.push(image);
    }
    let list = format!("{DOCKER}.distribution.manifest.list.v2+json");
    let index = json!({ "schemaVersion": 2, "mediaType": list, "manifests": manifests });
    layout.tag(layout.put(&list, index.to_string().as_bytes()), "v1");
    let all = layout.convert(layout.options("oci:DIR/all")).unwrap();
    assert_eq!((all.images.len(), all.media_type.as_str()), (2, list.as_str()));
    let one = |name: &str| ConvertOptions {
        platforms: Platforms::Listed(vec![name.into()]),
        ..layout.options("oci:DIR/one")
    };
    let arm = layout.convert(one("linux/arm64/v8")).unwrap();
    assert_eq!(arm.media_type, format!("{DOCKER}.distribution.manifest.v2+json"));
    assert_eq!(arm.digest, all.images[1].digest);
    let manifest = follow(&layout.path("one"), &read_json(&layout.path("one/index.json"))["manifests"][0]);
    assert_eq!(manifest["layers"][4]["mediaType"], format!("{DOCKER}.image.rootfs.diff.tar.gzip"));
    let error = layout.convert(one("linux/riscv64")).unwrap_err().to_string();
    assert!(error.contains("linux/riscv64") && error.contains("linux/amd64"), "{error}");
}

#[test]
fn listed_files_come_first_and_stand_in_the_prefetch_table() {
    let layout = one_image();
    let list = layout.path("list");
    std::fs::write(&list, "/usr/more\n/lib/so\t0 2\n/no/such\n").unwrap();
    let options = ConvertOptions { prefetch: Some(list), ..layout.options("oci:DIR/out") };
    layout.convert(options.clone()).unwrap();
    layout.convert(ConvertOptions { target: options.target.replace("out", "again"), ..options }).unwrap();
    let out = layout.path("out");
    assert_eq!(files(&out), files(&layout.path("again")));
    let manifest = follow(&out, &read_json(&out.join("index.json"))["manifests"][0]);
    let tree = image_tree(&out, &manifest);
    assert_eq!(tree.prefetch, [tree.find(b"usr/more").unwrap(), tree.find(b"usr/lib/so").unwrap()]);
    let listing = rafs_content::list(&tree, &out.join("blobs/sha256"));
    layout.convert(layout.options("oci:DIR/plain")).unwrap();
    let plain = layout.path("plain");
    let manifest = follow(&plain, &read_json(&plain.join("index.json"))["manifests"][0]);
    assert_eq!(rafs_content::list(&image_tree(&plain, &manifest), &plain.join("blobs/sha256")), listing);
}

/// Converts an image with one bad layer; gives the whole message, and checks that nothing is tagged.
fn refused(layer: Layer) -> String {
    let layout = Layout::new();
    layout.tag(layout.image(&[layer], "amd64", false), "v1");
    let error = layout.convert(layout.options("oci:DIR/out")).unwrap_err();
    assert!(!layout.path("out/index.json").exists());
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    message
}

#[test]
fn bad_layers_are_refused_with_layer_and_entry_named() {
    let plain = tar_of(&[("some/file", tar::EntryType::Regular, &[7; 50_000])]);
    let kind = || format!("{OCI}.layer.v1.tar+gzip");
    let mut cut = gzip(&plain);
    cut.truncate(cut.len() - 20);
    let layer = format!("layer sha256:{}", sha256(&cut));
    let message = refused(Layer { media_type: kind(), stored: cut, plain: plain.clone() });
    assert!(message.contains(&layer), "{message}");

    let stored = plain[..20_000].to_vec();
    let message = refused(Layer { media_type: kind(), stored: gzip(&stored), plain: stored });
    assert!(message.contains("some/file"), "{message}");

    let message = refused(Layer { media_type: kind(), stored: gzip(&plain), plain: b"another".to_vec() });
    assert!(message.contains("digest") && message.contains(&sha256(b"another")), "{message}");

    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned();
    let message = refused(Layer { media_type: foreign.clone(), stored: gzip(&plain), plain: plain.clone() });
    assert!(message.contains(&foreign), "{message}");

    let mut escaping = tar_of(&[("aa/evil", tar::EntryType::Regular, b"x")]);
    escaping[..7].copy_from_slice(b"../evil");
    escaping[148..156].fill(b' ');
    let sum: u32 = escaping[..512].iter().map(|b| u32::from(*b)).sum();
    escaping[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let message = refused(Layer { media_type: kind(), stored: gzip(&escaping), plain: escaping });
    assert!(message.contains("../evil") && message.contains("layer sha256:"), "{message}");
}

#[test]
fn a_layer_of_other_bytes_than_its_digest_is_refused() {
    let layout = one_image();
    let layer = &layers()[2];
    let path = layout.path("source/blobs/sha256").join(sha256(&layer.stored));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 1;
    bytes[at] = 1;
    std::fs::write(&path, bytes).unwrap();
    let error = layout.convert(layout.options("oci:DIR/out")).unwrap_err();
    assert!(error.to_string().contains(&sha256(&layer.stored)), "{error}");
    assert!(!layout.path("out/index.json").exists());
}

#[test]
fn a_nydus_image_is_refused_in_clear_words() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out:v1")).unwrap();
    let again = ConvertOptions {
        source: format!("oci:{}:v1", layout.path("out").display()),
        ..layout.options("oci:DIR/twice")
    };
    let error = layout.convert(again).unwrap_err().to_string();
    assert!(error.contains("Nydus image already"), "{error}");
}
