//! Where the page cache keeps a file: reading warm pages is fast where they follow one another in memory.
#![allow(unsafe_code, reason = "page frames are told of mapped files only, and mapping is unsafe by nature")]

use std::{fs::File, hint::black_box, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;

const PAGE: usize = 4096;
/// Bits of an entry of `/proc/self/pagemap` that hold the page frame, and the one that says that there is one.
const FRAME: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// The share of a file's pages, in percent, that stand directly behind their predecessor in memory.
///
/// # Errors
/// Where the kernel does not tell.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn share_in_order(path: &Path) -> Result<f64> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    // SAFETY: read-only, and the file is an image's, which nobody changes.
    let map = unsafe { Mmap::map(&file) }?;
    map.iter().step_by(PAGE).for_each(|byte| {
        black_box(*byte);
    });
    let pages = map.len().div_ceil(PAGE);
    let mut entries = vec![0; pages * 8];
    let first = map.as_ptr().addr() / PAGE * 8;
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, first as u64)?;
    let entries = entries.as_chunks::<8>().0.iter().map(|entry| u64::from_ne_bytes(*entry));
    let frames: Vec<_> = entries.filter(|entry| entry & PRESENT != 0).map(|entry| entry & FRAME).collect();
    ensure!(frames.len() == pages && frames[0] != 0, "the kernel hides where pages are (this needs root)");
    let in_order = frames.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    Ok(in_order as f64 * 100.0 / pages as f64)
}
