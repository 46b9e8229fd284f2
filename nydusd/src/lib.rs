//! nydusd, the read path of Shoal: serves RAFS v6 images by FUSE and fetches their data when it is read.
//!
//! A read(2) of a file comes to a [`fuse`] worker, which finds the image by the inode number ([`mounts`]) and asks it
//! where the bytes stand ([`fs`]). What the cache holds is answered at once; the rest waits in a task for `storage`.

pub mod backends;
pub mod cli;
pub mod config;
mod control;
pub mod counters;
pub mod daemon;
pub mod events;
pub mod explain;
pub mod fs;
pub mod fuse;
pub mod kernel;
mod memory;
pub mod mounts;
mod prefetch;
pub mod run;
pub mod trace;
