//! Extended attributes of an inode.

use super::View;
use super::inode::Inode;
use crate::layout::range;
use crate::layout::xattr::{Xattrs, area_len};
use crate::{FormatError, Nid};

impl<'a> View<'a> {
    pub(super) fn xattrs_of(self, inode: &Inode) -> Result<Xattrs<'a>, FormatError> {
        let at = inode.offset + inode.record.len;
        let area = range(self.bytes, "extended attributes", at, area_len(inode.record.xattr_count))?;
        Xattrs::parse(area, at)
    }

    #[allow(clippy::type_complexity, reason = "pairs of name and value need no name of their own")]
    pub(super) fn xattrs(self, nid: Nid) -> Result<Vec<(Vec<u8>, &'a [u8])>, FormatError> {
        let inode = self.inode(nid)?;
        self.xattrs_of(&inode)?.map(|xattr| xattr.map(|found| (found.name(), found.value))).collect()
    }

    pub(super) fn xattr(self, nid: Nid, name: &[u8]) -> Result<Option<&'a [u8]>, FormatError> {
        let inode = self.inode(nid)?;
        for xattr in self.xattrs_of(&inode)? {
            let found = xattr?;
            if found.is_named(name) {
                return Ok(Some(found.value));
            }
        }
        Ok(None)
    }
}
