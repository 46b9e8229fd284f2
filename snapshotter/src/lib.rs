//! A containerd snapshotter that mounts RAFS v6 images lazily, and ordinary ones as overlayfs does.
//!
//! A call from containerd goes through [`service`] to [`snapshots`], which asks [`decide`] what to do and [`mounts`]
//! what to answer; [`meta`] remembers every snapshot, [`instance`] mounts lazy images in the one nydusd that [`daemon`]
//! keeps alive, [`cleanup`] sweeps up. [`run`] puts it together.

pub mod cleanup;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod decide;
pub mod error;
pub mod filter;
pub mod instance;
pub mod labels;
pub mod layout;
pub mod meta;
pub mod mounts;
pub mod nydusd_config;
pub mod overlay;
pub mod run;
pub mod service;
pub mod snapshots;
pub mod usage;
