//! Writing an OCI layout directory.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndex,
    ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest, Sha256};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An OCI layout directory with one tagged image.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The directory.
    pub dir: PathBuf,
}

/// A layer that lies among the blobs.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// `sha256:…` of the plain tar.
    pub diff_id: String,
}

/// Forms of a layer blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `tar+gzip`.
    Gzip,
    /// `tar+zstd`.
    Zstd,
    /// `tar`.
    Plain,
}

impl Layout {
    /// Starts a layout in `dir`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Stores a layer; `write` writes its tar.
    ///
    /// # Errors
    /// Where `write` fails or the blob cannot be written.
    pub fn add_layer(&self, form: Form, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Layer> {
        let mut blob = Hashed::new(tempfile::NamedTempFile::new_in(&self.dir)?);
        let diff_id = match form {
            Form::Plain => tar_into(&mut blob, write)?.0,
            Form::Gzip => {
                let (diff_id, encoder) = tar_into(GzEncoder::new(&mut blob, Compression::default()), write)?;
                encoder.finish()?;
                diff_id
            }
            Form::Zstd => {
                let (diff_id, encoder) = tar_into(zstd::Encoder::new(&mut blob, 3)?, write)?;
                encoder.finish()?;
                diff_id
            }
        };
        let media_type = match form {
            Form::Plain => MediaType::ImageLayer,
            Form::Gzip => MediaType::ImageLayerGzip,
            Form::Zstd => MediaType::ImageLayerZstd,
        };
        let (file, hex, size) = blob.finish();
        file.persist(self.blob(&hex)).context("name a blob")?;
        Ok(Layer { descriptor: descriptor(media_type, &hex, size)?, diff_id: format!("sha256:{diff_id}") })
    }

    /// Takes a layer over from another layout.
    ///
    /// # Errors
    /// Where the blob cannot be copied.
    pub fn copy_layer(&self, from: &Self, layer: &Layer) -> Result<()> {
        let hex = layer.descriptor.digest().digest();
        fs::hard_link(from.blob(hex), self.blob(hex)).with_context(|| format!("link blob {hex}"))
    }

    /// Writes configuration, manifest and index for `layers`, tagged `latest`.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn finish(&self, layers: &[Layer], args: &[&str]) -> Result<()> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = ImageConfigurationBuilder::default()
            .architecture(Arch::default())
            .os(Os::Linux)
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build()?)
            .config(
                ConfigBuilder::default()
                    .env(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
                    .cmd(args.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .build()?,
            )
            .build()?;
        let config = self.add_blob(MediaType::ImageConfig, config.to_string()?.as_bytes())?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers.iter().map(|layer| layer.descriptor.clone()).collect::<Vec<_>>())
            .build()?;
        let mut manifest = self.add_blob(MediaType::ImageManifest, manifest.to_string()?.as_bytes())?;
        manifest.set_annotations(Some(HashMap::from([(REF_NAME.to_owned(), "latest".to_owned())])));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()?;
        fs::write(self.dir.join("index.json"), index.to_string()?).context("write index.json")
    }

    /// The manifest of the first image.
    ///
    /// # Errors
    /// Where the layout is not whole.
    pub fn manifest(&self) -> Result<(Descriptor, ImageManifest)> {
        let index = ImageIndex::from_file(self.dir.join("index.json")).context("read index.json")?;
        let descriptor = index.manifests().first().context("the layout has no image")?.clone();
        let manifest =
            ImageManifest::from_file(self.blob(descriptor.digest().digest())).context("read manifest")?;
        Ok((descriptor, manifest))
    }

    /// Sum of the sizes of the layers.
    ///
    /// # Errors
    /// Where the layout is not whole.
    pub fn layer_bytes(&self) -> Result<u64> {
        Ok(self.manifest()?.1.layers().iter().map(Descriptor::size).sum())
    }

    /// Path of a blob.
    #[must_use]
    pub fn blob(&self, hex: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(hex)
    }

    fn add_blob(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let hex = hex::encode(Sha256::digest(bytes));
        fs::write(self.blob(&hex), bytes).with_context(|| format!("write blob {hex}"))?;
        descriptor(media_type, &hex, bytes.len() as u64)
    }
}

fn tar_into<W: Write>(sink: W, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<(String, W)> {
    let mut tar = Hashed::new(sink);
    write(&mut tar)?;
    let (sink, hex, _) = tar.finish();
    Ok((hex, sink))
}

fn descriptor(media_type: MediaType, hex: &str, size: u64) -> Result<Descriptor> {
    let digest = Sha256Digest::from_str(hex)?;
    Ok(DescriptorBuilder::default().media_type(media_type).digest(digest).size(size).build()?)
}

struct Hashed<W> {
    sink: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(sink: W) -> Self {
        Self { sink, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.sink, hex::encode(self.hash.finalize()), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.sink.write(buf)?;
        self.hash.update(&buf[..len]);
        self.size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Digest of all that a reader gives.
///
/// # Errors
/// Where it cannot be read.
pub fn sha256(reader: &mut impl Read) -> Result<String> {
    let mut hashed = Hashed::new(io::sink());
    io::copy(reader, &mut hashed)?;
    Ok(hashed.finish().1)
}

/// Digest of a file.
///
/// # Errors
/// Where it cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    sha256(&mut File::open(path).with_context(|| format!("open {}", path.display()))?)
}
