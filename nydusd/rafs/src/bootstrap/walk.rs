//! The whole image as a tree, breadth first.

use std::collections::{BTreeMap, HashMap};

use super::View;
use super::claim::Unclaimed;
use super::inode::Inode;
use crate::layout::chunk_addr;
use crate::{ChunkRef, FileType, FormatError, InodeId, Kind, Meta, Nid, Tree};

pub(super) fn to_tree(view: View<'_>) -> Result<Tree, FormatError> {
    let mut walk = Walk {
        view,
        unclaimed: Unclaimed::all_of(view),
        tree: Tree { inodes: Vec::new(), ..Tree::new(view.image.summary.chunk_size) },
        ids: HashMap::new(),
        directories: Vec::new(),
    };
    walk.tree.blobs = walk.blobs()?;
    walk.add(view.image.root)?;
    let mut next = 0;
    while let Some((id, inode)) = walk.directories.get(next).copied() {
        walk.fill(id, &inode)?;
        next += 1;
    }
    walk.tree.prefetch = view.prefetch().filter_map(|nid| walk.ids.get(&nid).copied()).collect();
    Ok(walk.tree)
}

struct Walk<'a> {
    view: View<'a>,
    unclaimed: Unclaimed,
    tree: Tree,
    ids: HashMap<Nid, InodeId>,
    directories: Vec<(InodeId, Inode)>,
}

impl Walk<'_> {
    fn blobs(&self) -> Result<Vec<crate::Blob>, FormatError> {
        let mut blobs = self.view.image.blobs.clone();
        let mut known = vec![Vec::new(); blobs.len()];
        for record in self.view.chunk_records() {
            let (blob, number, chunk) = record?;
            known[usize::from(blob.0)].push((number, chunk));
        }
        for (blob, known) in blobs.iter_mut().zip(known) {
            blob.chunks = known.into_iter().collect();
        }
        Ok(blobs)
    }

    /// Adds an inode not seen before, and remembers a directory to be filled.
    fn add(&mut self, nid: Nid) -> Result<(InodeId, FileType), FormatError> {
        let inode = self.view.inode(nid)?;
        self.unclaimed.claim(self.view, &inode)?;
        let kind = self.kind(&inode)?;
        let file_type = kind.file_type();
        let meta = self.meta(&inode)?;
        let id = self.tree.add(crate::Inode { meta, kind });
        self.ids.insert(nid, id);
        if file_type == FileType::Directory {
            self.directories.push((id, inode));
        }
        Ok((id, file_type))
    }

    fn kind(&self, inode: &Inode) -> Result<Kind, FormatError> {
        Ok(match inode.record.file_type {
            FileType::Directory => Kind::Directory(BTreeMap::new()),
            FileType::File => Kind::File { size: inode.record.size, chunks: self.chunk_refs(inode)? },
            FileType::Symlink => Kind::Symlink(self.view.link_target(inode.nid)?),
            FileType::CharDevice => Kind::CharDevice(inode.record.u),
            FileType::BlockDevice => Kind::BlockDevice(inode.record.u),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
        })
    }

    fn chunk_refs(&self, inode: &Inode) -> Result<Vec<ChunkRef>, FormatError> {
        let count = self.view.chunk_count(inode.record.size);
        let (indexes, at) = self.view.chunk_indexes(inode, 0, count)?;
        let refs = indexes.chunks_exact(chunk_addr::LEN).map(|record| {
            let addr = self.view.chunk_addr(record, at)?;
            let known = self.tree.blobs[usize::from(addr.blob.0)].chunks.get(addr.chunk);
            let place = u64::from(addr.block) << self.view.image.block_bits;
            if known.is_some_and(|chunk| chunk.uncompressed_offset != place) {
                return Err(inode.fault("chunk index", "has another block than the chunk table"));
            }
            Ok(ChunkRef { blob: addr.blob, chunk: addr.chunk })
        });
        refs.collect()
    }

    fn meta(&self, inode: &Inode) -> Result<Meta, FormatError> {
        let record = &inode.record;
        let xattrs = self.view.xattrs_of(inode)?;
        let xattrs: Result<BTreeMap<_, _>, FormatError> =
            xattrs.map(|xattr| xattr.map(|found| (found.name(), found.value.to_vec()))).collect();
        Ok(Meta {
            permissions: record.permissions,
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime,
            mtime_nsec: record.mtime_nsec,
            xattrs: xattrs?,
        })
    }

    fn fill(&mut self, id: InodeId, inode: &Inode) -> Result<(), FormatError> {
        let mut children = BTreeMap::new();
        for entry in self.view.children_of(inode)? {
            let entry = entry?;
            let (child, file_type) = self.child(entry.nid)?;
            if file_type != entry.file_type {
                return Err(inode.fault("directory entry", "tells another type than the inode"));
            }
            children.insert(entry.name.to_vec(), child);
        }
        self.tree.inode_mut(id).kind = Kind::Directory(children);
        Ok(())
    }

    fn child(&mut self, nid: Nid) -> Result<(InodeId, FileType), FormatError> {
        let Some(&id) = self.ids.get(&nid) else {
            return self.add(nid);
        };
        let file_type = self.tree.inode(id).kind.file_type();
        if file_type == FileType::Directory {
            return Err(FormatError::Inode { what: "directory", nid: nid.0, problem: "is reached twice" });
        }
        Ok((id, file_type))
    }
}
