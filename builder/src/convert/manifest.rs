//! Manifests, indexes and configs: what is read, what is made.

use std::{collections::HashMap, io::Write};

use flate2::{Compression, write::GzEncoder};
use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageIndex, ImageManifest, ImageManifestBuilder, MediaType,
};
use p2p_pieces::PieceList;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::ConvertError;
use crate::create::BuiltLayer;

/// Annotation that names an image in `index.json`.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const BLOB: &str = "application/vnd.oci.image.layer.nydus.blob.v1";
const NYDUS_ARTIFACT: &str = "application/vnd.nydus.image.manifest.v1+json";
const NYDUS_FEATURE: &str = "nydus.remoteimage.v1";
const IS_BLOB: &str = "containerd.io/snapshot/nydus-blob";
const IS_BOOTSTRAP: &str = "containerd.io/snapshot/nydus-bootstrap";
const FS_VERSION: &str = "containerd.io/snapshot/nydus-fs-version";
const SOURCE_DIGEST: &str = "containerd.io/snapshot/nydus-source-digest";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Layers that are tars, compressed or not. Foreign ones are missing: their bytes may not be passed on.
const LAYERS: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    DOCKER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

pub(super) fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || media_type.as_ref() == DOCKER_INDEX
}

pub(super) fn is_image(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest || media_type.as_ref() == DOCKER_MANIFEST
}

/// JSON with sorted keys: annotations are hash maps, and output must be reproducible.
pub(super) fn to_bytes(document: &impl Serialize, what: &str) -> Result<Vec<u8>, ConvertError> {
    let value = serde_json::to_value(document).map_err(ConvertError::json(what))?;
    serde_json::to_vec(&value).map_err(ConvertError::json(what))
}

/// One image of the source.
#[derive(Debug, Clone)]
pub(super) struct SourceImage {
    pub(super) descriptor: Descriptor,
    pub(super) manifest: ImageManifest,
    pub(super) config: Value,
    pub(super) diff_ids: Vec<String>,
    pub(super) platform: String,
}

impl SourceImage {
    /// Checks that this is an image whose every layer can be converted.
    pub(super) fn new(descriptor: Descriptor, manifest: &[u8], config: &[u8]) -> Result<Self, ConvertError> {
        let digest = descriptor.digest().to_string();
        let manifest = parse_manifest(&digest, manifest)?;
        let what = format!("config {}", manifest.config().digest());
        let config: Value = serde_json::from_slice(config).map_err(ConvertError::json(what.clone()))?;
        let ids = config.pointer("/rootfs/diff_ids").and_then(Value::as_array);
        let diff_ids: Option<Vec<_>> =
            ids.map(|ids| ids.iter().map(|id| id.as_str().map(str::to_owned)).collect()).unwrap_or_default();
        let diff_ids =
            diff_ids.ok_or_else(|| ConvertError::image(what.clone(), "it has no rootfs.diff_ids"))?;
        if diff_ids.len() != manifest.layers().len() {
            let problem = format!("{} diff ids for {} layers", diff_ids.len(), manifest.layers().len());
            return Err(ConvertError::image(what, problem));
        }
        let field = |name| config.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let names =
            [field("os").or(Some("linux")), field("architecture").or(Some("unknown")), field("variant")];
        let platform = names.into_iter().flatten().collect::<Vec<_>>().join("/");
        Ok(Self { descriptor, manifest, config, diff_ids, platform })
    }

    fn is_docker(&self) -> bool {
        self.descriptor.media_type().as_ref() == DOCKER_MANIFEST
    }

    /// The config for the converted layers.
    pub(super) fn new_config(&self, diff_ids: &[String]) -> Result<Vec<u8>, ConvertError> {
        // Not read into a typed config and written again: that would drop every field it does not know.
        let mut config = self.config.clone();
        let what = format!("config of {}", self.descriptor.digest());
        let fields =
            config.as_object_mut().ok_or_else(|| ConvertError::image(what.clone(), "it is no object"))?;
        fields.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
        let history = fields.entry("history").or_insert_with(|| json!([]));
        if history.is_null() {
            *history = json!([]);
        }
        let history =
            history.as_array_mut().ok_or_else(|| ConvertError::image(what.clone(), "history is no list"))?;
        history.push(json!({ "created_by": "Nydus Converter", "comment": "Nydus Bootstrap Layer" }));
        to_bytes(&config, &what)
    }

    /// The manifest of the converted image, and its descriptor.
    pub(super) fn new_manifest(
        &self,
        config: &[u8],
        blobs: &[(String, u64)],
        bootstrap: &[u8],
    ) -> Result<(Descriptor, Vec<u8>), ConvertError> {
        let blob_type = MediaType::Other(BLOB.into());
        let bootstrap_type = match self.is_docker() {
            true => MediaType::Other(DOCKER_GZIP.into()),
            false => MediaType::ImageLayerGzip,
        };
        let mut layers: Vec<_> = blobs
            .iter()
            .map(|(hex, size)| described(&blob_type, *size, hex, &[(IS_BLOB, "true")]))
            .collect::<Result<_, _>>()?;
        layers.push(described(
            &bootstrap_type,
            bootstrap.len() as u64,
            &hex::encode(Sha256::digest(bootstrap)),
            &[(IS_BOOTSTRAP, "true"), (FS_VERSION, "6")],
        )?);
        let config_type = self.manifest.config().media_type();
        let config_hex = hex::encode(Sha256::digest(config));
        let mut annotations = self.manifest.annotations().clone().unwrap_or_default();
        annotations.insert(SOURCE_DIGEST.into(), self.descriptor.digest().to_string());
        annotations.insert(FS_VERSION.into(), "6".into());
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(self.descriptor.media_type().clone())
            .config(described(config_type, config.len() as u64, &config_hex, &[])?)
            .layers(layers)
            .annotations(annotations)
            .build()
            .expect("all required fields are set");
        let bytes = to_bytes(&manifest, "manifest")?;
        let hex = hex::encode(Sha256::digest(&bytes));
        let mut descriptor = described(self.descriptor.media_type(), bytes.len() as u64, &hex, &[])?;
        descriptor.set_platform(self.descriptor.platform().clone());
        Ok((descriptor, bytes))
    }
}

fn parse_manifest(digest: &str, bytes: &[u8]) -> Result<ImageManifest, ConvertError> {
    let what = format!("manifest {digest}");
    let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(ConvertError::json(what.clone()))?;
    for layer in manifest.layers() {
        let has = |key| layer.annotations().as_ref().is_some_and(|all| all.contains_key(key));
        if has(IS_BOOTSTRAP) || has(IS_BLOB) || layer.media_type().as_ref() == BLOB {
            return Err(ConvertError::image(
                what,
                "it is a Nydus image already; convert the image it was made from",
            ));
        }
        if !LAYERS.contains(&layer.media_type().as_ref()) {
            let problem =
                format!("its media type {} is none of a layer that can be converted", layer.media_type());
            return Err(ConvertError::image(format!("layer {} of {what}", layer.digest()), problem));
        }
        super::source::sha256_hex(layer)?;
    }
    Ok(manifest)
}

/// Whether an entry of an index is an image to convert: neither a Nydus one nor something about an image.
pub(super) fn is_plain_image(descriptor: &Descriptor) -> bool {
    let is_nydus = descriptor.artifact_type().as_ref().is_some_and(|kind| kind.as_ref() == NYDUS_ARTIFACT)
        || descriptor.platform().as_ref().is_some_and(|platform| {
            platform.os_features().as_ref().is_some_and(|all| all.iter().any(|one| one == NYDUS_FEATURE))
        });
    let is_about =
        descriptor.annotations().as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    is_image(descriptor.media_type()) && !is_nydus && !is_about
}

/// The index of converted images, and its descriptor.
pub(super) fn new_index(
    source: &ImageIndex,
    manifests: Vec<Descriptor>,
) -> Result<(Descriptor, Vec<u8>), ConvertError> {
    let mut index = source.clone();
    let media_type = source.media_type().clone().unwrap_or(MediaType::ImageIndex);
    index.set_media_type(Some(media_type.clone())).set_manifests(manifests).set_subject(None);
    let bytes = to_bytes(&index, "index")?;
    let hex = hex::encode(Sha256::digest(&bytes));
    Ok((described(&media_type, bytes.len() as u64, &hex, &[])?, bytes))
}

fn described(
    media_type: &MediaType,
    size: u64,
    hex: &str,
    annotations: &[(&str, &str)],
) -> Result<Descriptor, ConvertError> {
    let digest: oci_spec::image::Digest = format!("sha256:{hex}").parse().expect("a digest of our making");
    let builder = DescriptorBuilder::default().media_type(media_type.clone()).size(size).digest(digest);
    let annotations: HashMap<_, _> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let builder = if annotations.is_empty() { builder } else { builder.annotations(annotations) };
    builder.build().map_err(|error| ConvertError::image("descriptor", error.to_string()))
}

/// The layer that carries the bootstrap, and the compressed form's diff id.
pub(super) fn bootstrap_layer(
    bootstrap: &[u8],
    layers: &[(&BuiltLayer, &PieceList)],
) -> std::io::Result<(Vec<u8>, String)> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut directory = tar::Header::new_ustar();
    directory.set_entry_type(tar::EntryType::Directory);
    directory.set_mode(0o755);
    append(&mut tar, directory, "image/", &[])?;
    append(&mut tar, file_header(), "image/image.boot", bootstrap)?;
    let mut seen = std::collections::HashSet::new();
    for (layer, pieces) in layers.iter().filter(|(layer, _)| seen.insert(layer.sha256)) {
        let name = hex::encode(layer.sha256);
        if !layer.blob_meta.is_empty() {
            append(&mut tar, file_header(), &format!("image/{name}.blob.meta"), &layer.blob_meta)?;
        }
        append(&mut tar, file_header(), &format!("image/{name}.pieces"), &pieces.encode())?;
    }
    let tar = tar.into_inner()?;
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&tar)?;
    Ok((gzip.finish()?, diff_id))
}

fn file_header() -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o444);
    header
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    mut header: tar::Header,
    name: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    header.set_size(bytes.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, name, bytes)
}
