//! nydusd's control socket: HTTP/1.1 with JSON on a unix socket, paths and bodies as in the original nydusd.
//!
//! Besides the socket, a caller that starts nydusd may hand over a mounted FUSE descriptor: `nydusd fuse --fuse-fd N
//! --mountpoint DIR --apisock SOCK`, where descriptor N is inherited and DIR is already mounted with it. The caller then
//! owns the mount: nydusd does not unmount it when it ends.
#![allow(clippy::todo, reason = "interfaces stand before their bodies")]

mod client;
mod message;

pub use client::{Client, ClientError};
pub use message::{ApiError, BuildVersion, DaemonState, DaemonStatus, FsType, MountRequest};
