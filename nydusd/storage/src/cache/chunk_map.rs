//! Which chunks are in the cache: bits in memory for readers, and the same on disk, later.
//!
//! The file is a header of 4096 bytes (what it is of, as in [`super::layout`], then its BLAKE3), then a bit per chunk,
//! lowest bit first. Bits only ever go from 0 to 1, so a write that is torn is a write of fewer bits.

use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use rafs::DigestAlgorithm;

use super::{
    directory::CacheFile,
    layout::{Subject, encode_subject},
};

const MAGIC: &[u8; 8] = b"SHOALMAP";
const HEADER: usize = 4096;

/// A bit per chunk.
#[derive(Debug)]
pub(crate) struct Bits(Box<[AtomicU64]>);

impl Bits {
    pub(crate) fn new(count: u32) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, number: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get((number / 64) as usize)?, 1 << (number % 64)))
    }

    /// Whether the bit is set. What was written before it was set is then visible.
    pub(crate) fn get(&self, number: u32) -> bool {
        self.place(number).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    pub(crate) fn set(&self, number: u32) {
        if let Some((word, bit)) = self.place(number) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    pub(crate) fn clear(&self, number: u32) {
        if let Some((word, bit)) = self.place(number) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }
}

/// The durable bits, and a copy of what the file should hold.
#[derive(Debug)]
pub(crate) struct MapFile {
    bits: Vec<u8>,
}

impl MapFile {
    /// Reads the file; `None` where it is new, broken or of something else.
    pub(crate) fn load(file: &dyn CacheFile, subject: &Subject) -> io::Result<Option<Self>> {
        let len = subject.count.div_ceil(8) as usize;
        if file.size()? < HEADER as u64 {
            return Ok(None);
        }
        let mut found = vec![0; HEADER];
        file.read_at(&mut found, 0)?;
        if found != header(subject) {
            return Ok(None);
        }
        let mut bits = vec![0; len];
        let there = usize::try_from(file.size()? - HEADER as u64).unwrap_or(usize::MAX).min(len);
        file.read_at(&mut bits[..there], HEADER as u64)?;
        Ok(Some(Self { bits }))
    }

    /// Begins the file anew. Durable on return, so that no old bit comes back.
    pub(crate) fn create(file: &dyn CacheFile, subject: &Subject) -> io::Result<Self> {
        if file.size()? > 0 {
            file.clear()?;
            file.sync()?;
        }
        file.write_at(&header(subject), 0)?;
        Ok(Self { bits: vec![0; subject.count.div_ceil(8) as usize] })
    }

    pub(crate) fn get(&self, number: u32) -> bool {
        self.bits.get((number / 8) as usize).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    }

    /// Number of bits that are set.
    pub(crate) fn count(&self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Sets bits in the file and makes them durable. The chunks' data must be durable already.
    pub(crate) fn commit(&mut self, file: &dyn CacheFile, numbers: &[u32]) -> io::Result<()> {
        let mut changed: Option<Range<usize>> = None;
        for number in numbers {
            let at = (*number / 8) as usize;
            let Some(byte) = self.bits.get_mut(at) else { continue };
            *byte |= 1 << (number % 8);
            changed = Some(changed.map_or(at..at + 1, |c| c.start.min(at)..c.end.max(at + 1)));
        }
        let Some(changed) = changed else { return Ok(()) };
        file.write_at(&self.bits[changed.clone()], (HEADER + changed.start) as u64)?;
        file.sync()
    }
}

fn header(subject: &Subject) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    encode_subject(&mut header, MAGIC, subject, 0);
    header.extend_from_slice(&DigestAlgorithm::Blake3.digest(&header).0);
    header.resize(HEADER, 0);
    header
}

#[cfg(test)]
mod tests {
    use rafs::BlobId;

    use super::*;

    fn subject(count: u32) -> Subject {
        Subject { id: BlobId::new("blob").unwrap(), count, algorithm: DigestAlgorithm::Blake3 }
    }

    #[test]
    fn bits_are_set_and_cleared_one_by_one() {
        let bits = Bits::new(130);
        bits.set(63);
        bits.set(129);
        assert!(bits.get(63) && bits.get(129) && !bits.get(64) && !bits.get(1 << 20));
        bits.clear(63);
        assert!(!bits.get(63) && bits.get(129));
    }

    #[test]
    fn committed_bits_are_read_again_and_only_for_the_same_blob() {
        let file = tempfile::tempfile().unwrap();
        let mut map = MapFile::create(&file, &subject(100)).unwrap();
        map.commit(&file, &[3, 99]).unwrap();
        let again = MapFile::load(&file, &subject(100)).unwrap().unwrap();
        assert!(again.get(3) && again.get(99) && !again.get(4));
        assert!(MapFile::load(&file, &subject(101)).unwrap().is_none());
    }

    #[test]
    fn a_broken_header_is_not_trusted() {
        let file = tempfile::tempfile().unwrap();
        MapFile::create(&file, &subject(100)).unwrap().commit(&file, &[3]).unwrap();
        for at in [0, 8, 12, 30, 100] {
            let mut byte = [0];
            CacheFile::read_at(&file, &mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 1], at).unwrap();
            assert!(MapFile::load(&file, &subject(100)).unwrap().is_none(), "{at}");
            file.write_at(&byte, at).unwrap();
        }
        assert!(MapFile::load(&file, &subject(100)).unwrap().is_some());
    }
}
