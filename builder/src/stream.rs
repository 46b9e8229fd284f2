//! A layer's bytes: decompressed and hashed on a thread of their own.

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread::JoinHandle,
};

use sha2::{Digest, Sha256};

const BLOCK: usize = 256 << 10;
/// Blocks that go round: enough that neither side waits for the other's small delays.
const BLOCKS: usize = 6;

/// Reads a layer, whatever its compression: gzip of one or many members, zstd, or none. Like containerd, it believes
/// the first bytes and not the media type.
#[derive(Debug)]
pub(crate) struct LayerStream {
    full: Receiver<Vec<u8>>,
    spent: std::sync::mpsc::Sender<Vec<u8>>,
    block: Vec<u8>,
    position: usize,
    thread: Option<JoinHandle<io::Result<Digests>>>,
    /// What the thread left, once it ended well.
    digests: Option<Digests>,
}

/// What a layer turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digests {
    /// SHA-256 of the bytes as stored.
    pub(crate) stored: [u8; 32],
    /// Number of stored bytes.
    pub(crate) size: u64,
    /// SHA-256 of the uncompressed bytes: the layer's diff id.
    pub(crate) plain: [u8; 32],
}

impl LayerStream {
    /// Reads `stored` on a thread. `on_read` hears how many bytes came, and may end the work by an error.
    pub(crate) fn new<R, F>(stored: R, on_read: F) -> Self
    where
        R: Read + Send + 'static,
        F: FnMut(u64) -> io::Result<()> + Send + 'static,
    {
        let (full_to, full) = sync_channel(BLOCKS);
        let (spent, empty) = channel();
        for _ in 0..BLOCKS {
            spent.send(Vec::with_capacity(BLOCK)).expect("the receiver stands above");
        }
        let tap = Tap { inner: stored, sha256: Sha256::new(), size: 0, on_read };
        let thread = std::thread::spawn(move || run(tap, &full_to, &empty));
        Self { full, spent, block: Vec::new(), position: 0, thread: Some(thread), digests: None }
    }

    /// Reads to the end and gives the digests.
    ///
    /// # Errors
    /// Where the layer cannot be read or decompressed.
    pub(crate) fn finish(mut self) -> io::Result<Digests> {
        while self.refill() {}
        self.outcome()
    }

    /// Brings the next block; `false` at the end.
    fn refill(&mut self) -> bool {
        let Ok(next) = self.full.recv() else { return false };
        let last = std::mem::replace(&mut self.block, next);
        self.position = 0;
        // The thread may be done already.
        self.spent.send(last).ok();
        true
    }

    /// Joins the thread, whose sender is gone: at the end of the layer, or by an error.
    fn outcome(&mut self) -> io::Result<Digests> {
        if let Some(thread) = self.thread.take() {
            self.digests = Some(thread.join().expect("the reading thread does not panic")?);
        }
        self.digests.ok_or_else(|| io::Error::other("the layer failed before"))
    }
}

impl Read for LayerStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() {
            if !self.refill() {
                return self.outcome().map(|_| 0);
            }
        }
        let n = buf.len().min(self.block.len() - self.position);
        buf[..n].copy_from_slice(&self.block[self.position..self.position + n]);
        self.position += n;
        Ok(n)
    }
}

/// Hashes and counts stored bytes on their way.
struct Tap<R, F> {
    inner: R,
    sha256: Sha256,
    size: u64,
    on_read: F,
}

impl<R: Read, F: FnMut(u64) -> io::Result<()>> Read for Tap<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha256.update(&buf[..n]);
        self.size += n as u64;
        (self.on_read)(n as u64)?;
        Ok(n)
    }
}

fn run<R: Read, F: FnMut(u64) -> io::Result<()>>(
    mut tap: Tap<R, F>,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Digests> {
    let mut magic = Vec::new();
    tap.by_ref().take(4).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = magic == [0x28, 0xb5, 0x2f, 0xfd] || is_skippable(&magic);
    let plain = {
        let mut stored = BufReader::with_capacity(BLOCK, Cursor::new(magic).chain(&mut tap));
        let plain = if is_gzip {
            Some(send(flate2::bufread::MultiGzDecoder::new(&mut stored), full, empty)?)
        } else if is_zstd {
            Some(send(zstd::Decoder::with_buffer(&mut stored)?, full, empty)?)
        } else {
            send_plain(&mut stored, full, empty)?;
            None
        };
        if !stored.fill_buf()?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the compressed layer"));
        }
        plain
    };
    let stored = tap.sha256.finalize().into();
    Ok(Digests { stored, size: tap.size, plain: plain.unwrap_or(stored) })
}

/// zstd frames may begin with one that only holds a note.
fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

fn send(mut from: impl Read, full: &SyncSender<Vec<u8>>, empty: &Receiver<Vec<u8>>) -> io::Result<[u8; 32]> {
    let mut sha256 = Sha256::new();
    while let Some(block) = next_block(&mut from, empty)? {
        sha256.update(&block);
        full.send(block).map_err(|_| gone())?;
    }
    Ok(sha256.finalize().into())
}

fn send_plain(from: &mut impl Read, full: &SyncSender<Vec<u8>>, empty: &Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(block) = next_block(from, empty)? {
        full.send(block).map_err(|_| gone())?;
    }
    Ok(())
}

/// A whole block, except at the end; `None` behind it.
fn next_block(from: &mut impl Read, empty: &Receiver<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    let mut block = empty.recv().map_err(|_| gone())?;
    block.resize(BLOCK, 0);
    let mut len = 0;
    while len < BLOCK {
        match from.read(&mut block[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(len);
    Ok((len > 0).then_some(block))
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the layer is no longer wanted")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(stored: Vec<u8>) -> io::Result<(Vec<u8>, Digests)> {
        let mut stream = LayerStream::new(Cursor::new(stored), |_| Ok(()));
        let mut plain = Vec::new();
        stream.read_to_end(&mut plain)?;
        Ok((plain, stream.finish()?))
    }

    #[test]
    fn every_compression_gives_the_same_bytes_and_diff_id() {
        let plain = b"some layer ".repeat(100_000);
        let half = plain.len() / 2;
        let members = [gzip(&plain[..half]), gzip(&plain[half..])].concat();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for stored in [plain.clone(), gzip(&plain), members, zstd] {
            let sha256: [u8; 32] = Sha256::digest(&stored).into();
            let (got, digests) = read(stored.clone()).unwrap();
            assert!(got == plain);
            assert_eq!((digests.stored, digests.size), (sha256, stored.len() as u64));
            assert_eq!(digests.plain, <[u8; 32]>::from(Sha256::digest(&plain)));
        }
    }

    #[test]
    fn truncated_and_corrupt_gzip_is_an_error() {
        let whole = gzip(&b"some layer ".repeat(1000));
        assert!(read(whole[..whole.len() - 9].to_vec()).is_err());
        let mut corrupt = whole.clone();
        let at = corrupt.len() - 6;
        corrupt[at] ^= 1;
        assert!(read(corrupt).is_err());
        assert!(read([whole, b"garbage".to_vec()].concat()).is_err());
    }

    #[test]
    fn an_empty_layer_is_empty() {
        assert!(read(Vec::new()).unwrap().0.is_empty());
    }
}
