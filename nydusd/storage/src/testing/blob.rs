//! Blobs of made-up chunks.

use bytes::Bytes;
use rafs::{
    Blob, BlobId, Chunk, Compressor, DigestAlgorithm, Encoder,
    blob::{CI_HEADER_LEN, CiLocation, feature},
};

/// A blob of made-up chunks.
#[derive(Debug, Clone)]
pub struct TestBlob {
    /// As a bootstrap tells of it.
    pub blob: Blob,
    /// The blob file.
    pub file: Bytes,
    /// The uncompressed image, padding included.
    pub image: Vec<u8>,
}

impl TestBlob {
    /// Chunks of the given sizes, with bytes that follow from `seed`; about half of each compresses away.
    #[must_use]
    pub fn new(seed: u64, sizes: &[u32]) -> Self {
        Self::from_chunks(contents(seed, sizes))
    }

    /// The same chunks, those below `batch` bytes compressed together in units of at most so many.
    #[must_use]
    pub fn batched(seed: u64, sizes: &[u32], batch: usize) -> Self {
        let mut writer = Writer::default();
        for plain in contents(seed, sizes) {
            if plain.len() >= batch {
                writer.end_unit();
                writer.chunk(&plain);
                continue;
            }
            if writer.unit.len() + plain.len() > batch {
                writer.end_unit();
            }
            writer.member(&plain);
        }
        writer.end_unit();
        writer.finish_batched()
    }

    /// The given chunks, each compressed where that helps.
    #[must_use]
    pub fn from_chunks(plain: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut writer = Writer::default();
        plain.into_iter().for_each(|plain| writer.chunk(&plain));
        writer.finish(0, CiLocation::default())
    }

    /// The plain bytes of one chunk.
    #[must_use]
    pub fn plain(&self, number: usize) -> &[u8] {
        let number = rafs::ChunkIndex(len32(number));
        let chunk = self.blob.chunks.get(number).expect("every chunk is known");
        let begin = usize::try_from(chunk.uncompressed_offset).expect("it is in memory");
        &self.image[begin..begin + chunk.uncompressed_size as usize]
    }
}

fn contents(seed: u64, sizes: &[u32]) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut plain = |i| if i % 64 < 32 { 7 } else { next_byte(&mut state) };
    sizes.iter().map(|size| (0..*size).map(&mut plain).collect()).collect()
}

fn next_byte(state: &mut u64) -> u8 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    state.to_be_bytes()[0]
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("blobs of tests are small")
}

#[derive(Default)]
struct Writer {
    file: Vec<u8>,
    image: Vec<u8>,
    chunks: Vec<Chunk>,
    /// The unit that is being gathered, and where it will begin.
    unit: Vec<u8>,
    /// Records of the blob's own table, and what follows them of units.
    records: Vec<u8>,
    contexts: Vec<u8>,
}

impl Writer {
    /// Appends bytes to the file, compressed where that helps; gives their place and stored length.
    fn store(&mut self, plain: &[u8]) -> (u64, u32) {
        let mut encoder = Encoder::new(Compressor::Zstd).expect("zstd is written");
        let stored = encoder.encode(plain).unwrap_or(plain);
        let place = (self.file.len() as u64, len32(stored.len()));
        self.file.extend_from_slice(stored);
        place
    }

    fn chunk(&mut self, plain: &[u8]) {
        let (offset, stored) = self.store(plain);
        let is_compressed = stored != len32(plain.len());
        self.record(plain, u64::from(is_compressed), (offset, stored), 0);
        self.push(plain, (offset, stored), is_compressed);
    }

    fn member(&mut self, plain: &[u8]) {
        let context = (self.contexts.len() / 40) as u64;
        let begin = self.unit.len() as u64;
        self.record(plain, 5, (self.file.len() as u64, 0), context << 32 | begin);
        self.unit.extend_from_slice(plain);
        self.push(plain, (0, 0), false);
    }

    fn end_unit(&mut self) {
        let unit = std::mem::take(&mut self.unit);
        if unit.is_empty() {
            return;
        }
        let (_, stored) = self.store(&unit);
        self.contexts.extend([stored.to_le_bytes(), len32(unit.len()).to_le_bytes()].concat());
        self.contexts.extend([0; 32]);
    }

    fn record(&mut self, plain: &[u8], flags: u64, (offset, stored): (u64, u32), last: u64) {
        let size = plain.len() as u64 - 1;
        let place = self.image.len() as u64 >> 12 | size << 32 | flags << 56;
        for word in [place, offset | u64::from(stored) << 40, last] {
            self.records.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn push(&mut self, plain: &[u8], (compressed_offset, compressed_size): (u64, u32), is_compressed: bool) {
        self.chunks.push(Chunk {
            digest: DigestAlgorithm::Blake3.digest(plain),
            compressed_offset,
            compressed_size,
            uncompressed_offset: self.image.len() as u64,
            uncompressed_size: len32(plain.len()),
            is_compressed,
            crc32c: None,
        });
        self.image.extend_from_slice(plain);
        self.image.resize(self.image.len().next_multiple_of(4096), 0);
    }

    /// Ends a blob whose table tells of units.
    fn finish_batched(mut self) -> TestBlob {
        let features = feature::ALIGNED | feature::CHUNK_INFO_V2 | feature::BATCH | feature::CAP_TAR_TOC;
        let len = (self.records.len() + self.contexts.len()) as u64;
        let ci = CiLocation {
            compressor: Compressor::None,
            offset: self.file.len() as u64,
            compressed_size: len,
            uncompressed_size: len,
        };
        let mut header = vec![0; usize::try_from(CI_HEADER_LEN).expect("it is small")];
        let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
        for at in [0, 4092] {
            put(at, &0xB10B_B10B_u32.to_le_bytes());
        }
        put(4, &features.to_le_bytes());
        put(12, &len32(self.chunks.len()).to_le_bytes());
        for (at, field) in [(16, ci.offset), (24, len), (32, len)] {
            put(at, &field.to_le_bytes());
        }
        self.file
            .extend([std::mem::take(&mut self.records), std::mem::take(&mut self.contexts), header].concat());
        self.finish(features, ci)
    }

    fn finish(self, features: u32, ci: CiLocation) -> TestBlob {
        let blob = Blob {
            id: BlobId::from_sha256(&DigestAlgorithm::Sha256.digest(&self.file).0),
            compressor: Compressor::Zstd,
            digest_algorithm: DigestAlgorithm::Blake3,
            features,
            compressed_size: self.file.len() as u64,
            uncompressed_size: self.image.len() as u64,
            chunk_count: len32(self.chunks.len()),
            ci,
            toc_size: 0,
            toc_digest: [0; 32],
            chunks: self.chunks.into_iter().collect(),
        };
        TestBlob { blob, file: self.file.into(), image: self.image }
    }
}
