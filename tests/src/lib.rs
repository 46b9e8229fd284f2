//! Harness of the end-to-end tests, the demo and the benchmarks.
//!
//! Everything here runs real programs (containerd, runc, a registry, our own binaries) in a directory of its own, and
//! every process, mount and directory has a guard that ends it.

pub mod bench;
pub mod blob;
pub mod cache;
pub mod command;
pub mod containerd;
pub mod cri;
pub mod daemon;
pub mod http;
pub mod image;
pub mod network;
pub mod node;
pub mod nydusd;
pub mod p2pd;
pub mod programs;
pub mod reader_bed;
pub mod registry;
pub mod relay;
pub mod scratch;
pub mod snapshotter;
pub mod swarm_bed;
pub mod tree;
pub mod xattr;
