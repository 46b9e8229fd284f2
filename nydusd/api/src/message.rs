//! Bodies of requests and answers.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Body of `POST /api/v1/mount?mountpoint=M`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Kind of file system.
    pub fs_type: FsType,
    /// Path of the bootstrap file.
    pub source: String,
    /// nydusd configuration, v1 or v2, as JSON text.
    pub config: String,
    /// Files to fetch ahead of use, besides the image's own list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_files: Option<Vec<String>>,
    /// Directory at which the kernel's own EROFS driver is to show the image, where the machine and the image allow it;
    /// an absolute path. It is made if it is not there, must be empty (an image that a dead daemon left there is taken
    /// away), and goes when the image is unmounted. Whether it did, [`MountedImage`] tells. Not known to the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_mountpoint: Option<PathBuf>,
}

/// One entry of the answer of `GET /api/v1/mount`, which the original does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// The mountpoint it was mounted as.
    pub mountpoint: String,
    /// Who answers readers.
    pub data_path: DataPath,
    /// Where readers find it.
    pub path: PathBuf,
}

/// Who answers readers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPath {
    /// The kernel's EROFS driver; the daemon gives it bytes of blobs.
    Erofs,
    /// The daemon, through FUSE.
    Fuse,
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Erofs => "erofs",
            Self::Fuse => "fuse",
        })
    }
}

/// Kinds of file systems that the original can mount; this daemon serves `rafs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// A RAFS image.
    Rafs,
    /// A directory of the host; not served here.
    #[serde(rename = "passthroughfs")]
    Passthrough,
}

/// Answer of `GET /api/v1/daemon`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The `--id` it was started with.
    pub id: Option<String>,
    /// What was built.
    pub version: BuildVersion,
    /// The `--supervisor` it was started with.
    pub supervisor: Option<String>,
    /// Where it is in its life.
    pub state: DaemonState,
    /// One entry for each mounted image: mountpoint to backend, as the original shows it.
    pub backend_collection: serde_json::Value,
}

/// Version as the original tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildVersion {
    /// Version of the package.
    pub package_ver: String,
    /// Commit it was built from.
    pub git_commit: String,
    /// When it was built.
    pub build_time: String,
    /// `debug` or `release`.
    pub profile: String,
    /// Compiler.
    pub rustc: String,
}

/// Life of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DaemonState {
    /// Started, nothing mounted.
    Init,
    /// Mounted, not yet serving.
    Ready,
    /// Serving.
    Running,
    /// Ended.
    Stopped,
    /// None of these.
    Unknown,
}

/// Body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Kind of error: `UNDEFINED`, `UNSUPPORTED`, `INVALID_ARGUMENT` …
    pub code: String,
    /// What is wrong.
    pub message: String,
}

/// A file that was read while a trace ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedFile {
    /// Path below the image's root, with a slash before it.
    pub path: String,
    /// What was read, merged and sorted: offset and length in bytes.
    pub ranges: Vec<(u64, u64)>,
}
