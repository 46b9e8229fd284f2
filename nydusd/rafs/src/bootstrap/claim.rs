//! Bytes that inodes claim as their own: what bounds a walk over a hostile image.

use super::View;
use super::inode::Inode;
use crate::layout::chunk_addr;
use crate::layout::inode::DataLayout;
use crate::{FileType, FormatError};

/// Bytes of a bootstrap that no inode has claimed. Every inode's record and content are its own, so a hostile image that
/// lets many inodes share bytes runs out of it before memory does.
pub(super) struct Unclaimed(u64);

impl Unclaimed {
    pub(super) fn all_of(view: View<'_>) -> Self {
        Self(view.bytes.len() as u64)
    }

    /// Takes what `inode` needs.
    pub(super) fn claim(&mut self, view: View<'_>, inode: &Inode) -> Result<(), FormatError> {
        let record = &inode.record;
        let content = match (record.file_type, record.layout) {
            (FileType::File, DataLayout::Chunked) => {
                view.chunk_count(record.size).saturating_mul(chunk_addr::LEN as u64)
            }
            (FileType::Directory | FileType::Symlink, _) => record.size,
            _ => 0,
        };
        let claim = content.saturating_add(record.len_with_xattrs());
        let left = self.0.checked_sub(claim);
        self.0 = left.ok_or_else(|| inode.fault("content", "overlaps that of other inodes"))?;
        Ok(())
    }
}
