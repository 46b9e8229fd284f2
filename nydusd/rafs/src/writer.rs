//! Writing a bootstrap.

use crate::{FormatError, Tree};

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
}

impl<'a> BootstrapWriter<'a> {
    /// A writer for `tree`.
    #[must_use]
    pub fn new(tree: &'a Tree) -> Self {
        Self { tree }
    }

    /// Places and writes everything.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] or [`FormatError::Inode`] where the tree does not fit the format.
    pub fn write(self) -> Result<WrittenBootstrap, FormatError> {
        let _ = self.tree;
        todo!()
    }
}
