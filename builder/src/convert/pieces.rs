//! The list of a blob's pieces, made while the blob is written.

use std::io::{self, Write};

use p2p_pieces::{LayoutError, PieceList, PieceLister};

/// Writes through, and lists what went out.
#[derive(Debug)]
pub(super) struct ListingWriter<W> {
    inner: W,
    lister: PieceLister,
}

impl<W: Write> ListingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, lister: PieceLister::default() }
    }

    /// The list of all that was written.
    pub(super) fn finish(self) -> Result<PieceList, LayoutError> {
        self.lister.finish()
    }
}

impl<W: Write> Write for ListingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.lister.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
