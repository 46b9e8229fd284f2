//! OCI distribution client: what every part of Shoal uses to talk to a registry.
//!
//! Mirrors, private CAs and plain HTTP come from containerd's `certs.d/<host>/hosts.toml`, credentials from docker's
//! configuration files or from the caller. One [`Client`] serves any number of registries and keeps their connections,
//! tokens and redirects.
#![allow(clippy::todo, reason = "interfaces stand before their bodies")]

mod client;
mod error;
mod reference;

pub use client::{BlobStream, Client, ClientOptions, Credential, Manifest};
pub use error::RegistryError;
pub use reference::{Reference, Repository};
