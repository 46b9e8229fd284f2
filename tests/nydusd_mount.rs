//! nydusd as a process: what is seen in its mounts, what its API does, how it ends. Needs root and FUSE.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "nydusd/api.rs"]
mod api;
#[path = "nydusd/daemon.rs"]
mod daemon;
#[path = "nydusd/faults.rs"]
mod faults;
#[path = "nydusd/image.rs"]
mod image;
#[path = "nydusd/images.rs"]
mod images;
#[path = "nydusd/inodes.rs"]
mod inodes;
#[path = "nydusd/kernel.rs"]
mod kernel;
#[path = "nydusd/life.rs"]
mod life;
#[path = "nydusd/listing.rs"]
mod listing;
#[path = "nydusd/samples.rs"]
mod samples;
#[allow(unreachable_pub, reason = "shared with the tests' own library")]
#[path = "src/xattr.rs"]
mod xattr;
