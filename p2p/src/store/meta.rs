//! What a stored task is: a small file beside its pieces.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{PieceLayout, TaskId, Vouch};

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
    /// The SHA-256 of the whole.
    Whole {
        /// SHA-256 of the blob.
        blob: [u8; 32],
    },
    /// The word of an origin. Its address may hold a credential, so it is not written down.
    Url,
}

/// A task as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Meta {
    pub(super) fn new(vouch: Vouch<'_>, layout: PieceLayout) -> Self {
        let kept = match vouch {
            Vouch::List { blob, list } => Kept::List { blob: *blob, list: *list },
            Vouch::Whole { blob } => Kept::Whole { blob: *blob },
            Vouch::Url(_) => Kept::Url,
        };
        Self { task: TaskId::of(vouch), layout, kept }
    }

    /// Writes it, durable on return.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let (blob, list) = match &self.kept {
            Kept::List { blob, list } => (Some(hex::encode(blob)), Some(hex::encode(list))),
            Kept::Whole { blob } => (Some(hex::encode(blob)), None),
            Kept::Url => (None, None),
        };
        let written = Written {
            version: VERSION,
            task: hex::encode(self.task.as_bytes()),
            len: self.layout.len(),
            piece_size: self.layout.piece_size(),
            blob,
            list,
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
        written.check().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Written {
    fn check(&self) -> Option<Meta> {
        let task = TaskId::from_bytes(digest(&self.task)?);
        let layout = PieceLayout::new(self.len, self.piece_size).ok()?;
        let digests = (self.blob.as_deref().map(digest), self.list.as_deref().map(digest));
        let kept = match digests {
            (Some(blob), Some(list)) => Kept::List { blob: blob?, list: list? },
            (Some(blob), None) => Kept::Whole { blob: blob? },
            (None, None) => Kept::Url,
            (None, Some(_)) => return None,
        };
        let named = match &kept {
            Kept::List { blob, list } => TaskId::of(Vouch::List { blob, list }) == task,
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
        let url = "https://example.com/file?signature=secret";
        for (number, vouch) in
            [Vouch::List { blob, list }, Vouch::Whole { blob }, Vouch::Url(url)].into_iter().enumerate()
        {
            let (meta, path) = (Meta::new(vouch, layout), dir.path().join(number.to_string()));
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
