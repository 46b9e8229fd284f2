//! Everything that can be reached in a bootstrap, looked at once: for readers that take it as it is, such as a kernel.

use std::collections::HashSet;

use super::claim::Unclaimed;
use super::inode::Inode;
use super::{Extent, View};
use crate::{FileType, FormatError, Nid};

/// Looks at everything that can be reached from the root. Memory follows the number of inodes, which the bytes bound.
pub(super) fn check_all(view: View<'_>) -> Result<(), FormatError> {
    let mut check =
        Check { view, unclaimed: Unclaimed::all_of(view), seen: HashSet::new(), directories: Vec::new() };
    check.inode(view.image.root)?;
    while let Some(directory) = check.directories.pop() {
        check.directory(&directory)?;
    }
    Ok(())
}

struct Check<'a> {
    view: View<'a>,
    unclaimed: Unclaimed,
    seen: HashSet<Nid>,
    /// Those whose entries are still to be looked at.
    directories: Vec<Inode>,
}

impl Check<'_> {
    fn inode(&mut self, nid: Nid) -> Result<FileType, FormatError> {
        let inode = self.view.inode(nid)?;
        let file_type = inode.record.file_type;
        if !self.seen.insert(nid) {
            return match file_type {
                FileType::Directory => Err(inode.fault("directory", "is reached twice")),
                _ => Ok(file_type),
            };
        }
        self.unclaimed.claim(self.view, &inode)?;
        if inode.record.nlink == 0 {
            return Err(inode.fault("number of names", "is 0"));
        }
        for xattr in self.view.xattrs_of(&inode)? {
            xattr?;
        }
        match file_type {
            FileType::Directory => self.directories.push(inode),
            FileType::File => self.file(&inode)?,
            FileType::Symlink => {
                if self.view.link_target(nid)?.contains(&0) {
                    return Err(inode.fault("link target", "has a zero byte"));
                }
            }
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {}
        }
        Ok(file_type)
    }

    fn file(&self, inode: &Inode) -> Result<(), FormatError> {
        let extents = self.view.extents(inode.nid, 0, inode.record.size)?;
        // A kernel takes the size of chunks from here, and we from the superblock. Larger ones are for files that stand
        // in one run, which are then one chunk to it: it looks at the first index only.
        let (own, bits) = (inode.record.u & 0x1F, u32::from(self.view.image.block_bits));
        let follows = |pair: &[Extent]| {
            pair[0].blob == pair[1].blob && pair[0].offset + u64::from(pair[0].len) == pair[1].offset
        };
        let is_one = inode.record.size <= 1 << (own + bits) && extents.windows(2).all(follows);
        if inode.record.size > 0 && own + bits != self.view.image.chunk_bits && !is_one {
            return Err(inode.fault("chunk format", "has another chunk size than the image"));
        }
        Ok(())
    }

    fn directory(&mut self, inode: &Inode) -> Result<(), FormatError> {
        for entry in self.view.children_of(inode)? {
            let entry = entry?;
            if self.inode(entry.nid)? != entry.file_type {
                return Err(inode.fault("directory entry", "tells another type than the inode"));
            }
        }
        Ok(())
    }
}
