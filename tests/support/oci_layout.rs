//! OCI layouts made by hand, and what a conversion made of them.

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

pub(crate) const OCI: &str = "application/vnd.oci.image";
pub(crate) const DOCKER: &str = "application/vnd.docker";

/// A layout that images are put into.
pub(crate) struct Layout {
    pub(crate) dir: TempDir,
}

/// A layer: media type, stored bytes, plain bytes.
pub(crate) struct Layer {
    pub(crate) media_type: String,
    pub(crate) stored: Vec<u8>,
    pub(crate) plain: Vec<u8>,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.path().join("source/blobs/sha256")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = sha256(bytes);
        std::fs::write(self.path("source/blobs/sha256").join(&hex), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    }

    /// Puts an image; gives the descriptor of its manifest.
    pub(crate) fn image(&self, layers: &[Layer], architecture: &str, is_docker: bool) -> Value {
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

    pub(crate) fn tag(&self, mut descriptor: Value, tag: &str) {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        std::fs::write(self.path("source/index.json"), index.to_string()).unwrap();
    }

    pub(crate) fn options(&self, target: &str) -> ConvertOptions {
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

    pub(crate) fn convert(&self, options: ConvertOptions) -> Result<Report, ConvertError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(builder::convert(options, Arc::new(Silent)))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A document of a layout by its descriptor.
pub(crate) fn follow(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    read_json(&layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap()))
}

/// The merged tree of a converted image.
pub(crate) fn image_tree(layout: &Path, manifest: &Value) -> Tree {
    let mut files = bootstrap_files(layout, manifest);
    Bootstrap::open(files.remove("image/image.boot").unwrap()).unwrap().to_tree().unwrap()
}

/// The files in a converted image's last layer.
pub(crate) fn bootstrap_files(layout: &Path, manifest: &Value) -> BTreeMap<String, Vec<u8>> {
    let digest = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    let stored = std::fs::read(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&stored[..]));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    files
}

/// Every file of a layout with its digest.
pub(crate) fn files(layout: &Path) -> BTreeMap<String, String> {
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

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
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

pub(crate) fn layers() -> Vec<Layer> {
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

/// A layout with the image of [`layers`] as `v1`.
pub(crate) fn one_image() -> Layout {
    let layout = Layout::new();
    layout.tag(layout.image(&layers(), "amd64", false), "v1");
    layout
}
