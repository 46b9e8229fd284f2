//! nydusd's control socket: HTTP/1.1 with JSON on a unix socket, paths and bodies as in the original nydusd.
//!
//! Besides the socket, a caller that starts nydusd may hand over a mounted FUSE descriptor ([`mount_fuse`]): `nydusd fuse
//! --fuse-fd N --mountpoint DIR --apisock SOCK`, where descriptor N is inherited and DIR is already mounted with it. The
//! caller then owns the mount: nydusd does not unmount it when it ends.

mod client;
mod detach;
mod explain;
mod fuse_mount;
mod message;

use client::encode_query;
pub use client::{Client, ClientError};
pub use detach::detach;
pub use explain::{
    ExplainRequest, ExplainedChunk, ExplainedRead, Explanation, ReasonFigures, SourceFigures, Waits,
};
pub use fuse_mount::mount_fuse;
pub use message::{
    ApiError, BuildVersion, DaemonState, DaemonStatus, DataPath, FsType, MountRequest, MountedImage,
    TracedFile,
};
