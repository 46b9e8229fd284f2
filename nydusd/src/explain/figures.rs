//! Sums over the chunks and reads of an image.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use nydusd_api::{ReasonFigures, SourceFigures, Waits};
use storage::{BackendRead, ChunkStory};

use super::micros;

/// Figures of chunks by source.
#[derive(Debug, Default)]
pub(super) struct Figures(BTreeMap<String, Source>);

#[derive(Debug, Default)]
struct Source {
    chunks: u64,
    bytes: u64,
    waits: Vec<Duration>,
}

impl Figures {
    /// Counts a chunk.
    pub(super) fn add(&mut self, source: String, story: &ChunkStory, waited: Option<Duration>) {
        let figures = self.0.entry(source).or_default();
        figures.chunks += 1;
        figures.bytes += u64::from(story.size);
        figures.waits.extend(waited);
    }

    /// What was counted.
    pub(super) fn told(self) -> Vec<SourceFigures> {
        let told = |(source, figures): (String, Source)| SourceFigures {
            source,
            chunks: figures.chunks,
            bytes: figures.bytes,
            waits: waits(figures.waits),
        };
        self.0.into_iter().map(told).collect()
    }
}

fn waits(mut waits: Vec<Duration>) -> Option<Waits> {
    waits.sort_unstable();
    let nth = |percent: usize| waits.get((waits.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let (p50, p90, max) = (nth(50)?, nth(90)?, nth(100)?);
    Some(Waits { p50_us: micros(p50), p90_us: micros(p90), max_us: micros(max) })
}

/// Why reads went as they did, the most frequent reason first.
pub(super) fn reasons(reads: &[Arc<BackendRead>]) -> Vec<ReasonFigures> {
    let mut counts: BTreeMap<&'static str, (String, u64)> = BTreeMap::new();
    let mut count = |kind, reason: String| {
        let (last, reads) = counts.entry(kind).or_default();
        (*last, *reads) = (reason, *reads + 1);
    };
    for read in reads {
        if let Some(detour) = read.way().detour {
            count(detour.why.kind(), detour.why.to_string());
        }
        if let Some(error) = read.progress().error {
            count("error", error.to_string());
        }
    }
    let mut told: Vec<_> = counts
        .into_iter()
        .map(|(kind, (reason, reads))| ReasonFigures { kind: kind.to_owned(), reason, reads })
        .collect();
    told.sort_by_key(|figures| std::cmp::Reverse(figures.reads));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_waits_that_were_seen() {
        assert_eq!(waits(Vec::new()), None);
        let told = waits((1..=10).rev().map(Duration::from_micros).collect()).unwrap();
        assert_eq!((told.p50_us, told.p90_us, told.max_us), (5, 9, 10));
        let told = waits(vec![Duration::from_micros(7)]).unwrap();
        assert_eq!((told.p50_us, told.p90_us, told.max_us), (7, 7, 7));
    }
}
