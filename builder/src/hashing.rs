//! Hashing on the way.

use std::io::{self, BufWriter, Write};

use sha2::{Digest, Sha256};

/// Writes through, hashing and counting what went out.
#[derive(Debug)]
pub(crate) struct HashingWriter<W: Write> {
    inner: BufWriter<Hashed<W>>,
}

#[derive(Debug)]
struct Hashed<W> {
    inner: W,
    sha256: Sha256,
    len: u64,
}

impl<W: Write> HashingWriter<W> {
    /// A writer to `inner`. Small writes are gathered.
    pub(crate) fn new(inner: W) -> Self {
        Self { inner: BufWriter::with_capacity(256 << 10, Hashed { inner, sha256: Sha256::new(), len: 0 }) }
    }

    /// SHA-256 and length of all written so far.
    ///
    /// # Errors
    /// Where gathered bytes cannot be written.
    pub(crate) fn state(&mut self) -> io::Result<([u8; 32], u64)> {
        self.inner.flush()?;
        let hashed = self.inner.get_ref();
        Ok((hashed.sha256.clone().finalize().into(), hashed.len))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.sha256.update(&buf[..n]);
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
