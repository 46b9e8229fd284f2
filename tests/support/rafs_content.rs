//! Reads whole images: every path with what it holds, fetched chunk by chunk and checked.

use std::{collections::BTreeMap, path::Path};

use rafs::{Compressor, Decoder, Kind, Tree};

/// What a path is, in one line: type, permissions, owner, time, and content, target or device.
pub(crate) type Listing = BTreeMap<String, String>;

/// Every path of an image whose blobs stand in `blobs` under their ids. Names of one inode share a line.
pub(crate) fn list(tree: &Tree, blobs: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut todo = vec![(String::new(), Tree::ROOT)];
    while let Some((path, id)) = todo.pop() {
        for (name, child) in tree.children(id).into_iter().flatten() {
            let path = format!("{path}/{}", name.escape_ascii());
            listing.insert(path.clone(), describe(tree, *child, blobs));
            todo.push((path, *child));
        }
    }
    listing
}

fn describe(tree: &Tree, id: rafs::InodeId, blobs: &Path) -> String {
    let inode = tree.inode(id);
    let meta = &inode.meta;
    let what = match &inode.kind {
        Kind::Directory(_) => "directory".to_owned(),
        Kind::File { .. } => format!("file {}", content(tree, id, blobs).escape_ascii()),
        Kind::Symlink(target) => format!("link to {}", target.escape_ascii()),
        other => format!("{other:?}"),
    };
    let xattrs: Vec<_> = meta
        .xattrs
        .iter()
        .map(|(name, value)| format!(" {}={}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    let nsec = meta.mtime_nsec;
    format!(
        "{:o} {}:{} {}.{nsec:09} {what}{}",
        meta.permissions,
        meta.uid,
        meta.gid,
        meta.mtime,
        xattrs.concat()
    )
}

/// Content of a file, every chunk's digest checked.
pub(crate) fn content(tree: &Tree, id: rafs::InodeId, blobs: &Path) -> Vec<u8> {
    let Kind::File { size, chunks } = &tree.inode(id).kind else { panic!("no file") };
    let mut content = Vec::new();
    for at in chunks {
        let blob = &tree.blobs[usize::from(at.blob.0)];
        let chunk = blob.chunks.get(at.chunk).unwrap();
        let file = std::fs::read(blobs.join(blob.id.as_str())).unwrap();
        let begin = usize::try_from(chunk.compressed_offset).unwrap();
        let stored = &file[begin..begin + chunk.compressed_size as usize];
        let mut plain = vec![0; chunk.uncompressed_size as usize];
        let how = if chunk.is_compressed { blob.compressor } else { Compressor::None };
        Decoder::default().decode(how, stored, &mut plain).unwrap();
        assert_eq!(blob.digest_algorithm.digest(&plain), chunk.digest);
        content.extend_from_slice(&plain);
    }
    assert_eq!(content.len() as u64, *size);
    content
}
