//! The unit that goes round in a pipeline: many small chunks or a few large ones, so that handing over costs little.

use std::ops::Range;

use rafs::{Digest, DigestAlgorithm, Encoder};

use super::Known;

/// Enough to make handing over cheap, little enough to keep memory small.
const BATCH_SIZE: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    plain: Box<[u8]>,
    used: usize,
    ends: Vec<usize>,
    packed: Vec<u8>,
    pub(super) chunks: Vec<Encoded>,
}

/// A chunk as a worker leaves it.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) digest: Digest,
    pub(super) len: u32,
    stored: Stored,
}

#[derive(Debug)]
enum Stored {
    Raw(Range<usize>),
    Compressed(Range<usize>),
    /// The blob has it: not even compressed.
    Known,
}

impl Batch {
    pub(super) fn new(chunk_size: u32) -> Self {
        let plain = vec![0; BATCH_SIZE.max(chunk_size as usize)].into();
        Self { number: 0, plain, used: 0, ends: Vec::new(), packed: Vec::new(), chunks: Vec::new() }
    }

    pub(super) fn room(&self) -> usize {
        self.plain.len() - self.used
    }

    /// Where the next chunk's bytes go.
    pub(super) fn next_chunk(&mut self, len: usize) -> &mut [u8] {
        &mut self.plain[self.used..self.used + len]
    }

    /// Takes the bytes just put there.
    pub(super) fn push(&mut self, len: usize) {
        self.used += len;
        self.ends.push(self.used);
    }

    pub(super) fn encode(&mut self, encoder: &mut Encoder, algorithm: DigestAlgorithm, known: &Known) {
        let mut begin = 0;
        for end in &self.ends {
            let plain = &self.plain[begin..*end];
            let digest = algorithm.digest(plain);
            let len = u32::try_from(plain.len()).expect("chunks are at most 16 MiB");
            let stored = if known.get(&(digest, len)).is_some() {
                Stored::Known
            } else if let Some(bytes) = encoder.encode(plain) {
                let at = self.packed.len();
                self.packed.extend_from_slice(bytes);
                Stored::Compressed(at..self.packed.len())
            } else {
                Stored::Raw(begin..*end)
            };
            self.chunks.push(Encoded { digest, len, stored });
            begin = *end;
        }
    }

    /// Stored form of an encoded chunk, and whether it is compressed. `None` for one that was known.
    pub(super) fn stored(&self, chunk: &Encoded) -> Option<(&[u8], bool)> {
        match &chunk.stored {
            Stored::Raw(range) => Some((&self.plain[range.clone()], false)),
            Stored::Compressed(range) => Some((&self.packed[range.clone()], true)),
            Stored::Known => None,
        }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.ends.clear();
        self.packed.clear();
        self.chunks.clear();
    }
}
