//! Whole images: manifest in, manifest out.

mod error;
mod image;
mod layer;
mod location;
mod manifest;
mod pieces;
mod platform;
pub mod progress;
pub mod report;
mod source;
mod target;
mod work;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::ImageIndex;
use rafs::{Compressor, DigestAlgorithm};
use registry::{Client, ClientOptions};

pub use self::{
    error::ConvertError,
    progress::{Event, Progress, Silent},
    report::{ImageReport, LayerReport, Report},
};
use self::{
    image::Converter, location::Location, manifest::SourceImage, source::ImageSource, target::ImageTarget,
    work::Work,
};
use crate::{ChunkDict, PrefetchList, create::LayerOptions, layer::Position, pipeline::ChunkOptions};

/// What to convert, to where, and how.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// `REGISTRY/NAME:TAG`, `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`.
    pub source: String,
    /// The same forms.
    pub target: String,
    /// Which images of an index.
    pub platforms: Platforms,
    /// Bytes of a chunk, a power of two from 4 KiB to 16 MiB.
    pub chunk_size: u32,
    /// Compressor of chunks.
    pub compressor: Compressor,
    /// Digest of chunks.
    pub digest: DigestAlgorithm,
    /// File of absolute paths, one a line, in the order a start reads them.
    pub prefetch: Option<PathBuf>,
    /// Threads that compress; 0 is one a core.
    pub jobs: usize,
    /// How registries are reached.
    pub client: ClientOptions,
    /// Where temporary files go; the target's directory or the system's otherwise.
    pub work_dir: Option<PathBuf>,
}

impl ConvertOptions {
    /// Chunk size where the user chose none: small enough that a start does not fetch much it never reads.
    pub const DEFAULT_CHUNK_SIZE: u32 = 256 << 10;

    /// All but the directory for what is not finished, which is made when nothing is left to refuse.
    fn layer_options(&self) -> Result<LayerOptions, ConvertError> {
        if !self.chunk_size.is_power_of_two() || !(0x1000..=0x100_0000).contains(&self.chunk_size) {
            let problem = format!("{} is no power of two from 4 KiB to 16 MiB", self.chunk_size);
            return Err(ConvertError::image("chunk size", problem));
        }
        let prefetch = match &self.prefetch {
            None => PrefetchList::default(),
            Some(path) => {
                let read = std::fs::read(path);
                let what = format!("read prefetch list {}", path.display());
                PrefetchList::parse(&read.map_err(ConvertError::file(what))?)
            }
        };
        let jobs = match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        };
        let (chunk_size, compressor, digest) = (self.chunk_size, self.compressor, self.digest);
        let chunks = ChunkOptions { chunk_size, compressor, digest, jobs };
        Ok(LayerOptions {
            chunks,
            inline_bootstrap: true,
            toc: true,
            position: Position::Above(&[]),
            hide_whiteouts: false,
            dict: ChunkDict::default(),
            prefetch,
            spool_dir: PathBuf::new(),
        })
    }

    fn work_dir(&self, target: &Location) -> Result<Work, ConvertError> {
        let parent = match (&self.work_dir, target) {
            (Some(path), _) => path.clone(),
            // Beside its final place a finished blob only needs a new name.
            (None, Location::Directory { path, .. }) => path.clone(),
            (None, Location::Archive { path, .. }) => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => Path::new(".").to_owned(),
            },
            (None, Location::Registry(_)) => std::env::temp_dir(),
        };
        let what = format!("make a work directory in {}", parent.display());
        std::fs::create_dir_all(&parent).map_err(ConvertError::file(what.clone()))?;
        Work::create_in(&parent).map_err(ConvertError::file(what))
    }
}

/// Which images of an index are converted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Platforms {
    /// The one for this machine.
    #[default]
    Host,
    /// Every one.
    All,
    /// Those named as `os/arch[/variant]`.
    Listed(Vec<String>),
}

/// Converts an image. The target's tag is written last, so nothing half-done is ever tagged.
///
/// Dropping the future stops the work; temporary files go with it.
///
/// # Errors
/// [`ConvertError`] names the layer, and the entry in it, where there is one to blame.
pub async fn convert(options: ConvertOptions, progress: Arc<dyn Progress>) -> Result<Report, ConvertError> {
    let client = Client::new(options.client.clone()).map_err(ConvertError::registry("set up the client"))?;
    let (from, to) = (Location::parse(&options.source)?, Location::parse_target(&options.target)?);
    let source = ImageSource::open(from, &client)?;
    let (root, bytes) = source.root().await?;
    // Everything that can be refused is refused before anything is made.
    let (index, images) = read_images(&source, &root, bytes, &options.platforms).await?;
    let layer_options = options.layer_options()?;
    let work = options.work_dir(&to)?;
    let layer_options = LayerOptions { spool_dir: work.path().to_owned(), ..layer_options };
    let target = ImageTarget::open(to, &client, work.path())?;
    let converter = Converter::new(source, target, layer_options, work, progress);
    let mut reports = Vec::new();
    let mut manifests = Vec::new();
    for image in &images {
        let (descriptor, bytes, report) = converter.image(image).await?;
        reports.push(report);
        manifests.push((descriptor, bytes));
    }
    let (descriptor, bytes) = match (index, manifests.len()) {
        (Some(index), 2..) => {
            for (descriptor, bytes) in &manifests {
                converter.target().manifest(descriptor, bytes.clone()).await?;
            }
            manifest::new_index(&index, manifests.into_iter().map(|(descriptor, _)| descriptor).collect())?
        }
        // An index of one image is that image.
        _ => manifests.pop().expect("at least one image was selected"),
    };
    if !matches!(converter.target(), ImageTarget::Registry { .. }) {
        converter.target().manifest(&descriptor, bytes.clone()).await?;
    }
    converter.target().tag(&descriptor, bytes).await?;
    Ok(Report {
        source: options.source,
        target: options.target,
        digest: descriptor.digest().to_string(),
        media_type: descriptor.media_type().to_string(),
        images: reports,
    })
}

/// Reads manifests and configs of the wanted images.
async fn read_images(
    source: &ImageSource,
    root: &oci_spec::image::Descriptor,
    bytes: Vec<u8>,
    platforms: &Platforms,
) -> Result<(Option<ImageIndex>, Vec<SourceImage>), ConvertError> {
    let digest = root.digest().to_string();
    if manifest::is_image(root.media_type()) {
        let image = read_image(source, root.clone(), bytes).await?;
        platform::check(&image.platform, platforms, &format!("image {digest}"))?;
        return Ok((None, vec![image]));
    }
    if !manifest::is_index(root.media_type()) {
        let problem =
            format!("its media type {} is neither of a manifest nor of an index", root.media_type());
        return Err(ConvertError::image(digest, problem));
    }
    let what = format!("index {digest}");
    let index: ImageIndex = serde_json::from_slice(&bytes).map_err(ConvertError::json(what.clone()))?;
    let mut images = Vec::new();
    for descriptor in platform::select(&index, platforms, &what)? {
        let bytes = source.document(&descriptor).await?;
        images.push(read_image(source, descriptor, bytes).await?);
    }
    Ok((Some(index), images))
}

async fn read_image(
    source: &ImageSource,
    descriptor: oci_spec::image::Descriptor,
    manifest: Vec<u8>,
) -> Result<SourceImage, ConvertError> {
    let what = format!("manifest {}", descriptor.digest());
    let parsed: oci_spec::image::ImageManifest =
        serde_json::from_slice(&manifest).map_err(ConvertError::json(what))?;
    let config = source.document(parsed.config()).await?;
    SourceImage::new(descriptor, &manifest, &config)
}
