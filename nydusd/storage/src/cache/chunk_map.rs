//! Which chunks are in the cache: bits in memory for readers, and the same on disk, later.
//!
//! The file is a header of 4096 bytes (what it is of, as in [`super::layout`], then its BLAKE3), then a bit per chunk,
//! lowest bit first. Bits only ever go from 0 to 1, so a write that is torn is a write of fewer bits.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rafs::DigestAlgorithm;

use super::{
    directory::CacheFile,
    layout::{Subject, encode_subject},
};

const MAGIC: &[u8; 8] = b"SHOALMAP";
const HEADER: usize = 4096;

/// Words of [`Bits`] that are allocated together.
const WORDS: usize = 64;
const BITS: u32 = 64 * 64;
/// Bytes of a [`MapFile`] that are allocated together.
const PAGE: usize = 4096;

/// A bit per chunk. An image may claim millions of chunks: memory is taken for those that were set, by neighbourhood.
#[derive(Debug)]
pub(crate) struct Bits(Box<[OnceLock<Box<[AtomicU64; WORDS]>>]>);

impl Bits {
    pub(crate) fn new(count: u32) -> Self {
        Self((0..count.div_ceil(BITS)).map(|_| OnceLock::new()).collect())
    }

    fn word(words: &[AtomicU64; WORDS], number: u32) -> (&AtomicU64, u64) {
        (&words[(number % BITS / 64) as usize], 1 << (number % 64))
    }

    fn place(&self, number: u32) -> Option<(&AtomicU64, u64)> {
        Some(Self::word(self.0.get((number / BITS) as usize)?.get()?, number))
    }

    /// Whether the bit is set. What was written before it was set is then visible.
    pub(crate) fn get(&self, number: u32) -> bool {
        self.place(number).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    pub(crate) fn set(&self, number: u32) {
        if let Some(words) = self.0.get((number / BITS) as usize) {
            let words = words.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
            let (word, bit) = Self::word(words, number);
            word.fetch_or(bit, Ordering::Release);
        }
    }

    pub(crate) fn clear(&self, number: u32) {
        if let Some((word, bit)) = self.place(number) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }
}

/// The durable bits, and a copy of what the file should hold: pages that are not all zeros, by number.
#[derive(Debug, Default)]
pub(crate) struct MapFile {
    pages: BTreeMap<usize, Box<[u8; PAGE]>>,
    /// Length of the whole map in bytes.
    len: usize,
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
        let there = usize::try_from(file.size()? - HEADER as u64).unwrap_or(usize::MAX).min(len);
        let mut map = Self { pages: BTreeMap::new(), len };
        for number in 0..there.div_ceil(PAGE) {
            let (at, mut page) = (number * PAGE, Box::new([0; PAGE]));
            file.read_at(&mut page[..PAGE.min(there - at)], (HEADER + at) as u64)?;
            if page.iter().any(|byte| *byte != 0) {
                map.pages.insert(number, page);
            }
        }
        Ok(Some(map))
    }

    /// Begins the file anew. Durable on return, so that no old bit comes back.
    pub(crate) fn create(file: &dyn CacheFile, subject: &Subject) -> io::Result<Self> {
        if file.size()? > 0 {
            file.clear()?;
            file.sync()?;
        }
        file.write_at(&header(subject), 0)?;
        Ok(Self { pages: BTreeMap::new(), len: subject.count.div_ceil(8) as usize })
    }

    pub(crate) fn get(&self, number: u32) -> bool {
        let at = (number / 8) as usize;
        self.pages.get(&(at / PAGE)).is_some_and(|page| page[at % PAGE] >> (number % 8) & 1 == 1)
    }

    /// Number of bits that are set.
    pub(crate) fn count(&self) -> usize {
        let bytes = self.pages.values().flat_map(|page| page.iter());
        bytes.map(|byte| byte.count_ones() as usize).sum()
    }

    /// Sets bits in the file and makes them durable. The chunks' data must be durable already.
    pub(crate) fn commit(&mut self, file: &dyn CacheFile, numbers: &[u32]) -> io::Result<()> {
        let mut changed: BTreeMap<usize, Range<usize>> = BTreeMap::new();
        for number in numbers {
            let at = (*number / 8) as usize;
            if at >= self.len {
                continue;
            }
            let (page, at) = (at / PAGE, at % PAGE);
            self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]))[at] |= 1 << (number % 8);
            let range = changed.entry(page).or_insert(at..at + 1);
            *range = range.start.min(at)..range.end.max(at + 1);
        }
        if changed.is_empty() {
            return Ok(());
        }
        for (page, range) in changed {
            let place = HEADER + page * PAGE + range.start;
            file.write_at(&self.pages[&page][range], place as u64)?;
        }
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
    fn bits_of_a_large_blob_are_committed_wherever_they_stand() {
        let (file, count) = (tempfile::tempfile().unwrap(), 1 << 24);
        let mut map = MapFile::create(&file, &subject(count)).unwrap();
        let set = [0, 32_767, 32_768, 9_999_999, count - 1];
        map.commit(&file, &set[1..]).unwrap();
        map.commit(&file, &[set[0], count, u32::MAX]).unwrap();
        let again = MapFile::load(&file, &subject(count)).unwrap().unwrap();
        assert!(set.iter().all(|number| again.get(*number) && map.get(*number)));
        assert_eq!((again.count(), map.count()), (set.len(), set.len()));
        assert!(again.pages.len() == 4, "pages without a bit take no memory");
        let bits = Bits::new(count);
        set.iter().for_each(|number| bits.set(*number));
        bits.set(count);
        let found = (0..count + 9).filter(|number| bits.get(*number)).collect::<Vec<_>>();
        assert_eq!(found, set);
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
