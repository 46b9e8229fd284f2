//! OCI distribution client: what every part of Shoal uses to talk to a registry.
//!
//! Mirrors, private CAs and plain HTTP come from containerd's `certs.d/<host>/hosts.toml`, credentials from docker's
//! configuration files or from the caller. One [`Client`] serves any number of registries and keeps their connections,
//! tokens and redirects.

mod auth;
mod authorization;
mod blob;
mod challenge;
mod client;
mod content_range;
mod credentials;
mod distrust;
mod error;
mod exchange;
mod file;
mod forward;
mod guard;
mod hosts;
mod manifest;
mod mirror;
mod push;
mod reference;
mod relay;
mod response;
mod socket;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod transport;
mod web_file;

pub use authorization::Credential;
pub use blob::BlobStream;
pub use client::{Client, ClientOptions, OriginOptions, Scheme};
pub use error::{Asked, RegistryError};
pub use file::Rest;
pub use forward::Forward;
pub use manifest::Manifest;
pub use reference::{Reference, Repository, is_digest};
pub use relay::Relayed;
pub use socket::SocketMirror;
pub use transport::install_crypto_provider;
pub use web_file::{FileFacts, FileUrl};
