//! Whole images: manifest in, manifest out.

pub mod progress;
pub mod report;

use std::{path::PathBuf, sync::Arc};

use rafs::{Compressor, DigestAlgorithm};
use registry::ClientOptions;

pub use progress::{Event, Progress, Silent};
pub use report::{ImageReport, LayerReport, Report};

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
    let _ = (options, progress);
    todo!("lands within the hour")
}

/// Why an image could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The registry failed us.
    #[error("{what}")]
    Registry {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: registry::RegistryError,
    },
}
