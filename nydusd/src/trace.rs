//! Which files of an image are read, in order of their first touch.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nydusd_api::TracedFile;
use rafs::Nid;

use crate::fs::{FsError, Rafs, paths_of};

/// Most files that a trace holds; later ones are left out.
const MAX_FILES: usize = 100_000;
/// Most separate ranges of one file; beyond, the last one grows.
const MAX_RANGES: usize = 1024;

/// A trace of one image; off until started, and then one atomic load for each read.
#[derive(Debug, Default)]
pub struct Trace {
    on: AtomicBool,
    touched: Mutex<Touched>,
}

#[derive(Debug, Default)]
struct Touched {
    order: Vec<Nid>,
    ranges: HashMap<Nid, Vec<(u64, u64)>>,
}

impl Trace {
    /// Begins to record, and forgets what was recorded.
    pub fn start(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Touched::default();
        self.on.store(true, Ordering::Relaxed);
    }

    /// Notes a read.
    pub fn note(&self, nid: Nid, offset: u64, len: u64) {
        if self.on.load(Ordering::Relaxed) {
            self.touched.lock().unwrap_or_else(PoisonError::into_inner).add(nid, offset, len);
        }
    }

    /// What was recorded, with paths of `image`. A file with several names gets the first one in walk order.
    ///
    /// # Errors
    /// [`FsError::Format`] where the image cannot be walked.
    pub fn report(&self, image: &Rafs) -> Result<Vec<TracedFile>, FsError> {
        let (order, mut ranges) = {
            let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
            (touched.order.clone(), touched.ranges.clone())
        };
        let mut paths = paths_of(image, order.iter().copied().collect(), usize::MAX)?;
        let files = order.into_iter().filter_map(|nid| {
            let path = paths.remove(&nid)?;
            Some(TracedFile { path, ranges: ranges.remove(&nid)? })
        });
        Ok(files.collect())
    }
}

impl Touched {
    fn add(&mut self, nid: Nid, offset: u64, len: u64) {
        if !self.ranges.contains_key(&nid) {
            if self.order.len() >= MAX_FILES {
                return;
            }
            self.order.push(nid);
        }
        insert_range(self.ranges.entry(nid).or_default(), offset, len);
    }
}

/// Adds `len` bytes from `offset` on to sorted, separate ranges.
fn insert_range(ranges: &mut Vec<(u64, u64)>, offset: u64, len: u64) {
    let end = offset.saturating_add(len);
    let first = ranges.partition_point(|(start, len)| start + len < offset);
    let last = ranges.partition_point(|(start, _)| *start <= end);
    if first == last && ranges.len() >= MAX_RANGES && first > 0 {
        let (start, old) = &mut ranges[first - 1];
        *old = (*old).max(end - *start);
        return;
    }
    let start = ranges[first..last].first().map_or(offset, |(start, _)| offset.min(*start));
    let end = ranges[first..last].last().map_or(end, |(start, len)| end.max(start + len));
    ranges.splice(first..last, [(start, end - start)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Vec::new();
        for (offset, len) in [(10, 10), (40, 5), (20, 5), (0, 3), (24, 16)] {
            insert_range(&mut ranges, offset, len);
        }
        assert_eq!(ranges, [(0, 3), (10, 35)]);
    }

    #[test]
    fn a_range_within_another_changes_nothing() {
        let mut ranges = vec![(0, 100)];
        insert_range(&mut ranges, 10, 5);
        assert_eq!(ranges, [(0, 100)]);
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let mut ranges = Vec::new();
        for i in 0..5000 {
            insert_range(&mut ranges, i * 10, 1);
        }
        assert_eq!(ranges.len(), MAX_RANGES);
        assert_eq!(
            ranges.last(),
            Some(&((MAX_RANGES as u64 - 1) * 10, 4999 * 10 + 1 - (MAX_RANGES as u64 - 1) * 10))
        );
    }

    #[test]
    fn nothing_is_noted_before_the_start() {
        let trace = Trace::default();
        trace.note(Nid(1), 0, 1);
        trace.start();
        trace.note(Nid(2), 0, 1);
        assert_eq!(trace.touched.lock().unwrap().order, [Nid(2)]);
    }
}
