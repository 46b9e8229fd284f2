//! Writing a bootstrap: first every inode gets its place, then the bytes are made.

mod emit;
mod image;
mod place;
mod scan;

use crate::{BlobId, FormatError, Tree};

/// Makes a bootstrap from a tree. The same tree gives the same bytes.
#[derive(Debug)]
pub struct BootstrapWriter<'a> {
    tree: &'a Tree,
}

/// A finished bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenBootstrap {
    /// The bytes, a multiple of the block size.
    pub bytes: Vec<u8>,
    /// Ids of the blobs in it, in table order.
    pub blobs: Vec<BlobId>,
}

impl<'a> BootstrapWriter<'a> {
    /// A writer for `tree`.
    #[must_use]
    pub fn new(tree: &'a Tree) -> Self {
        Self { tree }
    }

    /// Places and writes everything that the root leads to.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] or [`FormatError::Inode`] where the tree does not fit the format.
    pub fn write(self) -> Result<WrittenBootstrap, FormatError> {
        let scan = scan::Scan::new(self.tree)?;
        let blobs = image::BlobTable::new(self.tree, &scan)?;
        let head = image::Head::new(blobs.kept.len(), image::prefetch(self.tree, &scan).len());
        let places = place::Places::new(&scan, head.root_offset())?;
        let bytes =
            emit::emit(&emit::Parts { tree: self.tree, scan: &scan, blobs: &blobs, head, places: &places })?;
        let ids = blobs.kept.iter().map(|blob| self.tree.blobs[*blob].id.clone()).collect();
        Ok(WrittenBootstrap { bytes, blobs: ids })
    }
}
