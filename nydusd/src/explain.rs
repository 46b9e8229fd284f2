//! For each chunk of an image: where it came from, how long that took and why.

mod figures;
mod files;

use std::{collections::BinaryHeap, ops::Range, sync::Arc, time::Duration};

use nydusd_api::{ExplainRequest, ExplainedChunk, ExplainedRead, Explanation};
use storage::{
    BackendRead, Came, ChunkStory, Stories,
    backend::{Detour, Supply, Way},
};

use self::figures::{Figures, reasons};
use crate::{fs::FsError, mounts::Image};

/// Most chunks in one answer.
const MOST: usize = 100_000;

/// An image that cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such file.
    #[error("there is no file {0} in the image")]
    NoFile(String),
    /// The image cannot be walked.
    #[error(transparent)]
    Walk(#[from] FsError),
}

/// Tells what became of the chunks of `image`. Takes a while for a large one.
///
/// # Errors
/// [`ExplainError`].
pub fn explain(image: &Image, request: &ExplainRequest) -> Result<Explanation, ExplainError> {
    let rafs = image.rafs();
    let stories = rafs.stories();
    let own = own_source(image);
    let mut figures = Figures::default();
    stories.chunks().for_each(|story| figures.add(source(&story, &own), &story, waited(&story.came)));
    let (told, left_out) = match &request.path {
        Some(path) => {
            let spans = files::spans_of(rafs, path)?;
            bounded(spans.into_iter().flat_map(|(blob, range)| stories.touching(blob, &range)))
        }
        None if request.chunks => bounded(stories.chunks()),
        None => (slowest(&stories, request.slowest.min(MOST)), 0),
    };
    let mut names = if request.paths { files::names_of(rafs, &told)? } else { Default::default() };
    let blobs = rafs.blobs();
    let chunks = told.iter().map(|story| ExplainedChunk {
        blob: blobs.get(usize::from(story.blob.0)).map(|blob| blob.id.to_string()).unwrap_or_default(),
        file: request.path.clone().or_else(|| names.remove(&(story.blob, story.offset))),
        ..told_of(story, &own)
    });
    Ok(Explanation {
        mountpoint: image.mountpoint().to_string(),
        age_ms: u64::try_from(stories.age.as_millis()).unwrap_or(u64::MAX),
        reads: u64::from(stories.forgotten) + stories.reads.len() as u64,
        forgotten_reads: stories.forgotten.into(),
        sources: figures.told(),
        reasons: reasons(&stories.reads),
        chunks: chunks.collect(),
        left_out,
    })
}

/// The name of what the image's own backend is.
fn own_source(image: &Image) -> String {
    image.config().backend.to_json()["type"].as_str().unwrap_or("backend").to_owned()
}

/// As many as fit into an answer, and how many do not.
fn bounded(mut stories: impl Iterator<Item = ChunkStory>) -> (Vec<ChunkStory>, u64) {
    let told = stories.by_ref().take(MOST).collect();
    (told, stories.count() as u64)
}

/// The chunks that took longest, the longest first.
fn slowest(stories: &Stories<'_>, count: usize) -> Vec<ChunkStory> {
    // The shortest of them is on top.
    let mut longest = BinaryHeap::new();
    for (place, story) in stories.chunks().enumerate() {
        let Some(waited) = waited(&story.came) else { continue };
        longest.push((std::cmp::Reverse(waited), place));
        if longest.len() > count {
            longest.pop();
        }
    }
    let places: Vec<_> = longest.into_sorted_vec().into_iter().map(|(_, place)| place).collect();
    let mut found: Vec<_> = stories
        .chunks()
        .enumerate()
        .filter_map(|(place, story)| Some((places.iter().position(|at| *at == place)?, story)))
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, story)| story).collect()
}

/// How long a chunk took, where that is known.
const fn waited(came: &Came) -> Option<Duration> {
    match came {
        Came::By { waited, .. } | Came::Forgotten { waited } => Some(*waited),
        Came::Not { .. } | Came::Before | Came::ForAnother => None,
    }
}

/// Where the bytes of `stored` came from, by a read that went this way.
fn source_of(way: &Way, stored: &Range<u64>, own: &str) -> String {
    let from_network = way.detour.as_ref().is_none_or(|detour| stored.end <= detour.from);
    match way.network.filter(|_| from_network) {
        None => own.to_owned(),
        Some(Supply::Here) => "p2p-here".to_owned(),
        Some(Supply::Peers) => "p2p-peers".to_owned(),
        Some(Supply::Origin) => "p2p-origin".to_owned(),
        Some(Supply::Mixed) => "p2p-mixed".to_owned(),
        Some(Supply::Untold) => "p2p".to_owned(),
    }
}

fn source(story: &ChunkStory, own: &str) -> String {
    match (&story.came, &story.stored) {
        (Came::Not { .. }, _) => "absent".to_owned(),
        (Came::Before, _) => "cache".to_owned(),
        (Came::ForAnother, _) => "shared".to_owned(),
        (Came::Forgotten { .. }, _) => "forgotten".to_owned(),
        (Came::By { read, .. }, stored) => {
            source_of(&read.way(), stored.as_ref().unwrap_or(&read.range), own)
        }
    }
}

/// Why a chunk came from where it came from, or did not come.
fn reason(story: &ChunkStory) -> Option<String> {
    match &story.came {
        Came::Not { failed: Some(read) } => read.progress().error.map(|error| error.to_string()),
        Came::By { read, .. } => {
            let Detour { from, why } = read.way().detour?;
            let stored = story.stored.as_ref().unwrap_or(&read.range);
            match () {
                () if stored.end <= from => None,
                () if from > read.range.start => Some(format!("{why}, at byte {from} of the blob")),
                () => Some(why.to_string()),
            }
        }
        _ => None,
    }
}

fn told_of(story: &ChunkStory, own: &str) -> ExplainedChunk {
    let read = match &story.came {
        Came::By { read, .. } | Came::Not { failed: Some(read) } => Some(told_read(read)),
        _ => None,
    };
    ExplainedChunk {
        blob: String::new(),
        chunk: story.chunk.0,
        stored: story.stored.as_ref().map(|stored| (stored.start, stored.end - stored.start)),
        size: story.size,
        source: source(story, own),
        is_read: story.is_read,
        file: None,
        read,
        wait_us: waited(&story.came).map(micros),
        reason: reason(story),
    }
}

fn told_read(read: &Arc<BackendRead>) -> ExplainedRead {
    let progress = read.progress();
    ExplainedRead {
        range: (read.range.start, read.range.end - read.range.start),
        priority: read.priority.name().to_owned(),
        attempt: read.attempt,
        asked_us: micros(read.asked),
        queued_us: micros(read.queued),
        first_byte_us: progress.first.map(micros),
        took_us: progress.took.map(micros),
        bytes: progress.bytes,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use storage::backend::Why;

    use super::*;

    fn way(network: Option<Supply>, from: Option<u64>) -> Way {
        let detour = from.map(|from| Detour { from, why: Why::BrokeOff("silent".into()) });
        Way { network, detour }
    }

    #[test]
    fn what_came_before_the_network_broke_off_is_the_network_s() {
        let broken = way(Some(Supply::Peers), Some(100));
        assert_eq!(source_of(&broken, &(0..100), "registry"), "p2p-peers");
        assert_eq!(source_of(&broken, &(90..110), "registry"), "registry");
        assert_eq!(source_of(&way(Some(Supply::Here), None), &(90..110), "registry"), "p2p-here");
        assert_eq!(source_of(&way(None, None), &(0..1), "localfs"), "localfs");
    }
}
