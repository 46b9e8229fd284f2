//! A merged tree without what is no longer used.

use std::collections::{HashMap, VecDeque};

use rafs::{Blob, BlobIndex, ChunkRef, Kind, Tree};

/// Drops blobs that no file uses, orders the others by first use (breadth first), and forgets chunks that no file uses.
/// Inodes that no name leads to are left to the writer, which passes them over.
pub(super) fn compact(mut tree: Tree) -> Tree {
    let mut order: HashMap<BlobIndex, BlobIndex> = HashMap::new();
    let mut blobs = std::mem::take(&mut tree.blobs);
    let mut used: Vec<Vec<bool>> = blobs.iter().map(|blob| vec![false; blob.chunks.len()]).collect();
    let mut todo = VecDeque::from([Tree::ROOT]);
    let mut seen = vec![false; tree.inodes.len()];
    while let Some(directory) = todo.pop_front() {
        let below: Vec<_> = tree.children(directory).into_iter().flatten().map(|(_, id)| *id).collect();
        for id in below {
            if std::mem::replace(&mut seen[id.0 as usize], true) {
                continue;
            }
            match &mut tree.inode_mut(id).kind {
                Kind::Directory(_) => todo.push_back(id),
                Kind::File { chunks, .. } => {
                    chunks.iter_mut().for_each(|chunk| use_chunk(chunk, &blobs, &mut order, &mut used))
                }
                _ => {}
            }
        }
    }
    // What no name leads to still counts blobs the old way; without chunks it cannot disagree.
    for (inode, _) in tree.inodes.iter_mut().zip(&seen).filter(|(_, seen)| !**seen) {
        if let Kind::File { size, chunks } = &mut inode.kind {
            (*size, *chunks) = (0, Vec::new());
        }
    }
    for (blob, used) in blobs.iter_mut().zip(&used) {
        blob.chunks.retain(|place| used[place]);
    }
    let mut blobs: Vec<_> = blobs.into_iter().map(Some).collect();
    let mut old: Vec<_> = order.into_iter().collect();
    old.sort_by_key(|(_, new)| *new);
    for (old, _) in old {
        tree.blobs.push(blobs[usize::from(old.0)].take().expect("each blob has one new place"));
    }
    tree
}

fn use_chunk(
    chunk: &mut ChunkRef,
    blobs: &[Blob],
    order: &mut HashMap<BlobIndex, BlobIndex>,
    used: &mut [Vec<bool>],
) {
    let blob = usize::from(chunk.blob.0);
    if let Some(place) = blobs[blob].chunks.position(chunk.chunk) {
        used[blob][place] = true;
    }
    let next = BlobIndex(u8::try_from(order.len()).expect("at most 254 blobs"));
    chunk.blob = *order.entry(chunk.blob).or_insert(next);
}
