//! What a stored task is: a small file beside its pieces.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{PieceLayout, TaskId, Vouch};

mod places;

const VERSION: u32 = 1;
/// Largest file that is read.
const LARGEST: u64 = 4096;

/// What vouches for the pieces of a stored task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A list of piece digests.
    List {
        /// SHA-256 of the blob.
        blob: [u8; 32],
        /// BLAKE3 of the list.
        list: [u8; 32],
    },
    /// A list of chunks.
    Chunks {
        /// SHA-256 of the blob.
        blob: [u8; 32],
        /// BLAKE3 of the list.
        list: [u8; 32],
    },
    /// The SHA-256 of the whole.
    Whole {
        /// SHA-256 of the blob.
        blob: [u8; 32],
    },
    /// The word of an origin. Its address may hold a credential, so it is not written down.
    Url,
}

/// A task as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) task: TaskId,
    pub(super) layout: PieceLayout,
    pub(super) kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    task: String,
    len: u64,
    piece_size: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunks: Option<String>,
}

impl Meta {
    pub(super) fn new(vouch: Vouch<'_>, layout: PieceLayout) -> Self {
        let kept = match vouch {
            Vouch::List { blob, list } => Kept::List { blob: *blob, list: *list },
            Vouch::Chunks { blob, list } => Kept::Chunks { blob: *blob, list: *list },
            Vouch::Whole { blob } => Kept::Whole { blob: *blob },
            Vouch::Url(_) => Kept::Url,
        };
        Self { task: TaskId::of(vouch), layout, kept }
    }

    /// Writes it, durable on return.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let (blob, list, chunks) = match &self.kept {
            Kept::List { blob, list } => (Some(blob), Some(list), None),
            Kept::Chunks { blob, list } => (Some(blob), None, Some(list)),
            Kept::Whole { blob } => (Some(blob), None, None),
            Kept::Url => (None, None, None),
        };
        if self.layout.piece_size() == 0 {
            places::write(path, &self.layout)?;
        }
        let written = Written {
            version: VERSION,
            task: hex::encode(self.task.as_bytes()),
            len: self.layout.len(),
            piece_size: self.layout.piece_size(),
            blob: blob.map(hex::encode),
            list: list.map(hex::encode),
            chunks: chunks.map(hex::encode),
        };
        let mut file = File::create_new(path)?;
        file.write_all(&serde_json::to_vec(&written)?)?;
        file.sync_all()
    }

    /// Reads what [`Self::write`] wrote.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
        let written: Written = serde_json::from_slice(&bytes)?;
        written.check(path).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Written {
    fn check(&self, path: &Path) -> Option<Meta> {
        let task = TaskId::from_bytes(digest(&self.task)?);
        let layout = match self.piece_size {
            0 => places::read(path, self.len).ok()?,
            piece_size => PieceLayout::new(self.len, piece_size).ok()?,
        };
        let kept = match (self.blob.as_deref(), self.list.as_deref(), self.chunks.as_deref()) {
            (Some(blob), Some(list), None) => Kept::List { blob: digest(blob)?, list: digest(list)? },
            (Some(blob), None, Some(list)) => Kept::Chunks { blob: digest(blob)?, list: digest(list)? },
            (Some(blob), None, None) => Kept::Whole { blob: digest(blob)? },
            (None, None, None) => Kept::Url,
            _ => return None,
        };
        let named = match &kept {
            Kept::List { blob, list } => TaskId::of(Vouch::List { blob, list }) == task,
            Kept::Chunks { blob, list } => TaskId::of(Vouch::Chunks { blob, list }) == task,
            Kept::Whole { blob } => TaskId::of(Vouch::Whole { blob }) == task,
            Kept::Url => true,
        };
        (self.version == VERSION && named).then_some(Meta { task, layout, kept })
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_as_it_was_written_and_its_url_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let layout = PieceLayout::new(5 << 20, 1 << 20).unwrap();
        let (blob, list) = (&[1; 32], &[2; 32]);
        let uneven = PieceLayout::at(5 << 20, &[0..7, 4096..1 << 20]).unwrap();
        let url = "https://example.com/file?signature=secret";
        let tasks = [
            (Vouch::List { blob, list }, &layout),
            (Vouch::Chunks { blob, list }, &uneven),
            (Vouch::Whole { blob }, &layout),
            (Vouch::Url(url), &layout),
        ];
        for (number, (vouch, layout)) in tasks.into_iter().enumerate() {
            let (meta, path) = (Meta::new(vouch, layout.clone()), dir.path().join(number.to_string()));
            meta.write(&path).unwrap();
            assert_eq!(Meta::read(&path).unwrap(), meta);
            assert!(!std::fs::read_to_string(path).unwrap().contains("secret"));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let layout = PieceLayout::new(5 << 20, 1 << 20).unwrap();
        Meta::new(Vouch::Whole { blob: &[1; 32] }, layout).write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in
            [("\"version\":1", "\"version\":2"), ("0101", "0201"), ("1048576", "1048577"), ("{", "[")]
        {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert!(Meta::read(&path).is_err(), "{from}");
        }
    }
}
