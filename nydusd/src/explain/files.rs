//! From chunks to files, and from a file to its chunks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use rafs::{BlobIndex, FileType, Nid};
use storage::ChunkStory;

use super::ExplainError;
use crate::fs::{FsError, Rafs, walk};

/// Symbolic links that are followed on the way to one file.
const LINKS: u32 = 40;

/// For each of these chunks, by blob and place, the first file in walk order that it belongs to.
pub(super) fn names_of(
    rafs: &Rafs,
    chunks: &[ChunkStory],
) -> Result<BTreeMap<(BlobIndex, u64), String>, FsError> {
    let mut wanted: BTreeSet<_> = chunks.iter().map(|story| (story.blob, story.offset)).collect();
    let mut names = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(names);
    }
    walk(rafs, usize::MAX, |nid, file_type, path| {
        if file_type != FileType::File {
            return Ok(true);
        }
        for span in rafs.plan(nid, 0, u64::MAX)? {
            let (from, to) = ((span.blob, span.offset), (span.blob, span.offset + u64::from(span.len)));
            let found: Vec<_> = wanted.range(from..to).copied().collect();
            for chunk in found {
                wanted.remove(&chunk);
                names.insert(chunk, path());
            }
        }
        Ok(!wanted.is_empty())
    })?;
    Ok(names)
}

/// Where the bytes of the file at `path` stand.
pub(super) fn spans_of(rafs: &Rafs, path: &str) -> Result<Vec<(BlobIndex, Range<u64>)>, ExplainError> {
    let file = find(rafs, path)?.ok_or_else(|| ExplainError::NoFile(path.to_owned()))?;
    let spans = rafs.plan(file, 0, u64::MAX)?;
    Ok(spans.into_iter().map(|span| (span.blob, span.offset..span.offset + u64::from(span.len))).collect())
}

/// The file at `path`, whose symbolic links are followed within the image.
fn find(rafs: &Rafs, path: &str) -> Result<Option<Nid>, FsError> {
    let mut todo: VecDeque<Vec<u8>> = names(path.as_bytes()).collect();
    let mut above = vec![rafs.root()];
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        let at = *above.last().expect("the root stays");
        if name == b".." {
            above.truncate((above.len() - 1).max(1));
            continue;
        }
        if rafs.attributes(at)?.file_type != FileType::Directory {
            return Ok(None);
        }
        let Some(entry) = rafs.lookup(at, &name)? else { return Ok(None) };
        if entry.file_type != FileType::Symlink {
            above.push(entry.nid);
            continue;
        }
        links += 1;
        if links > LINKS {
            return Ok(None);
        }
        let target = rafs.link_target(entry.nid)?;
        if target.first() == Some(&b'/') {
            above.truncate(1);
        }
        names(&target).collect::<Vec<_>>().into_iter().rev().for_each(|name| todo.push_front(name));
    }
    let file = *above.last().expect("the root stays");
    Ok((rafs.attributes(file)?.file_type == FileType::File).then_some(file))
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}
