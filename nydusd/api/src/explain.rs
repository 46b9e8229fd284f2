//! Where the chunks of a mounted image came from, how long that took and why.

use serde::{Deserialize, Serialize};

use crate::encode_query;

/// Arguments of `GET /api/v1/explain`, which the original does not have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExplainRequest {
    /// The mountpoint that the image was mounted as.
    pub mountpoint: String,
    /// Tell of every chunk.
    pub chunks: bool,
    /// Tell of so many chunks, those that were waited for longest first.
    pub slowest: usize,
    /// Tell of the chunks of this file; symbolic links within the image are followed.
    pub path: Option<String>,
    /// Name a file that each chunk which is told of belongs to.
    pub paths: bool,
}

impl ExplainRequest {
    /// Path and query of the call.
    pub(crate) fn to_call(&self) -> String {
        let mut call = format!("/api/v1/explain?mountpoint={}", encode_query(&self.mountpoint));
        if let Some(path) = &self.path {
            call.push_str(&format!("&path={}", encode_query(path)));
        }
        call.push_str(&format!("&chunks={}&slowest={}&paths={}", self.chunks, self.slowest, self.paths));
        call
    }
}

/// Answer of `GET /api/v1/explain`.
///
/// A source is `cache` (there when the image was mounted), `shared` (came for another image of the daemon), `absent`
/// (not there), `forgotten` (came by a read that is not remembered any more), or where a read had it from: `p2p-here`,
/// `p2p-peers`, `p2p-origin`, `p2p-mixed` or `p2p` as the node's p2pd said, or the kind of the image's own backend, such
/// as `registry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The mountpoint that the image was mounted as.
    pub mountpoint: String,
    /// Time since it was mounted, in milliseconds.
    pub age_ms: u64,
    /// Reads of the backend since then.
    pub reads: u64,
    /// Those of them that are not remembered any more, the oldest.
    pub forgotten_reads: u64,
    /// The image's chunks by source.
    pub sources: Vec<SourceFigures>,
    /// Why reads went as they did, the most frequent first.
    pub reasons: Vec<ReasonFigures>,
    /// The chunks that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<ExplainedChunk>,
    /// Chunks that were asked for and are left out, because they are too many for one answer.
    #[serde(default)]
    pub left_out: u64,
}

/// Chunks of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFigures {
    /// The source.
    pub source: String,
    /// How many chunks.
    pub chunks: u64,
    /// Their length, uncompressed.
    pub bytes: u64,
    /// How long they took, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
}

/// How long chunks took from when they were first asked for until their bytes were checked, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Half of them took no longer.
    pub p50_us: u64,
    /// Nine of ten took no longer.
    pub p90_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// A reason and how often it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonFigures {
    /// One word for it: `away`, `refused`, `no-list`, `not-known-yet`, `failed`, `broke-off` or `distrusted` where the
    /// piece network gave nothing, `error` for a read that failed.
    pub kind: String,
    /// The last one's words.
    pub reason: String,
    /// Reads.
    pub reads: u64,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedChunk {
    /// Its blob.
    pub blob: String,
    /// Its number in it.
    pub chunk: u32,
    /// Where the bytes that hold it begin in the blob file, and how many they are; not known of a chunk that shares them
    /// with others before one of them was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<(u64, u64)>,
    /// Its length, uncompressed.
    pub size: u32,
    /// Where it came from.
    pub source: String,
    /// Whether anybody has read it since the image was mounted.
    pub is_read: bool,
    /// A file that it belongs to, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How it came, where that is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ExplainedRead>,
    /// Time from when it was first asked for until its bytes were checked, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_us: Option<u64>,
    /// Why it came from there, or did not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The read of the backend that brought a chunk, or did not. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRead {
    /// Its place in the blob file: where it begins, and how many bytes.
    pub range: (u64, u64),
    /// `demand`, `read-ahead`, `trace` or `background`.
    pub priority: String,
    /// Reads before it that were to bring the same and failed.
    pub attempt: u32,
    /// When its chunks were first asked for, since the image was mounted.
    pub asked_us: u64,
    /// How long it stood back before the backend was asked.
    pub queued_us: u64,
    /// How long the backend took to the first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u64>,
    /// And to the end; not there while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Bytes that came.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_is_asked_for_as_it_is() {
        let request =
            ExplainRequest { mountpoint: "/1".into(), path: Some("/a b&c".into()), ..Default::default() };
        let call = request.to_call();
        assert_eq!(call, "/api/v1/explain?mountpoint=/1&path=/a%20b%26c&chunks=false&slowest=0&paths=false");
    }
}
