//! What vouches for the pieces of an image that lists none: the chunks that its bootstrap names.
//!
//! ```text
//! magic 8 "SHOALCHK" | version 4 | compressor 2 | digest 2 | length of the blob 8 | number of chunks 4 | zero 4
//! of each chunk, as it lies in the blob: offset 8 | stored length 4 | length 4, bit 31 if compressed | digest 32
//! ```
//!
//! Numbers are little-endian. Compressors: 0 none, 1 lz4 block, 2 zstd. Digests, of the bytes of a chunk as a reader has
//! them: 0 BLAKE3, 1 SHA-256. The list has its name from its own BLAKE3. Nothing is said of what lies between chunks, and
//! whoever uses a list takes it for zeros.

mod cut;

use std::ops::Range;

use rafs::{Compressor, Decoder, Digest, DigestAlgorithm};

use crate::{LayoutError, PieceIndex, PieceLayout};

const MAGIC: &[u8; 8] = b"SHOALCHK";
const VERSION: u32 = 1;
const HEADER: usize = 32;
const RECORD: usize = 48;
/// Marks a length as that of a chunk that is stored compressed.
const COMPRESSED: u32 = 1 << 31;

/// One chunk as it lies in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedChunk {
    /// Where it begins in the blob, in bytes.
    pub offset: u64,
    /// Bytes that it takes there.
    pub stored: u32,
    /// Bytes that it has for a reader.
    pub plain: u32,
    /// Whether it is stored compressed.
    pub is_compressed: bool,
    /// Digest of what a reader has.
    pub digest: Digest,
}

impl ListedChunk {
    fn place(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.stored)
    }
}

/// How the chunks of a blob are stored and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// Of those that are compressed.
    pub compressor: Compressor,
    /// Of all.
    pub digest: DigestAlgorithm,
}

/// What each chunk of a blob must be, and the pieces that they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    codec: Codec,
    chunks: Box<[ListedChunk]>,
    layout: PieceLayout,
    digest: [u8; 32],
}

/// Bytes or chunks that are no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkListError {
    /// The bytes are something else.
    #[error("not a list of chunks")]
    Foreign,
    /// A list of another version.
    #[error("a list of chunks of version {0}; this one reads version {VERSION}")]
    Version(u32),
    /// Chunks that are stored or hashed as nothing here can check.
    #[error("{what} {number} of chunks is not known")]
    Codec {
        /// `compressor` or `digest`.
        what: &'static str,
        /// Its number.
        number: u16,
    },
    /// The bytes are more or less than their header says.
    #[error("{found} bytes of a list of chunks, which has {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: u64,
    },
    /// None, or more than a list may have.
    #[error("{0} chunks: a list has 1 to {most}", most = ChunkList::MOST)]
    Count(usize),
    /// A chunk that cannot be.
    #[error("chunk {number} at {offset} {problem}")]
    Chunk {
        /// Its place in the list.
        number: usize,
        /// Where it is said to begin in the blob.
        offset: u64,
        /// What is wrong with it, as a clause.
        problem: &'static str,
    },
    /// Pieces that cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl ChunkList {
    /// Most chunks of a list: it takes 48 MiB at most.
    pub const MOST: usize = 1 << 20;
    /// Largest chunk in bytes, stored and for a reader.
    pub const LARGEST_CHUNK: u32 = 16 << 20;
    /// Bytes of the longest list.
    pub const LONGEST: usize = HEADER + Self::MOST * RECORD;

    /// The list of `chunks`, in the order in which they lie in a blob; what is behind them is in no piece.
    ///
    /// # Errors
    /// [`ChunkListError`] for chunks that are not in order, overlap, or are larger than may be, and for too many.
    pub fn new(codec: Codec, chunks: Vec<ListedChunk>) -> Result<Self, ChunkListError> {
        let end = |chunk: &ListedChunk| chunk.offset.saturating_add(chunk.stored.into());
        let len = chunks.iter().map(end).max().unwrap_or_default();
        let list = Self::checked(codec, chunks, len)?;
        Ok(Self { digest: *blake3::hash(&list.encode()).as_bytes(), ..list })
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`ChunkListError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkListError> {
        let (header, records) = bytes.split_first_chunk::<HEADER>().ok_or(ChunkListError::Foreign)?;
        if !header.starts_with(MAGIC) {
            return Err(ChunkListError::Foreign);
        }
        if le32(header, 8) != VERSION {
            return Err(ChunkListError::Version(le32(header, 8)));
        }
        let codec = read_codec(le32(header, 12))?;
        let (len, count) = (le64(header, 16), le32(header, 24));
        if le32(header, 28) != 0 {
            return Err(ChunkListError::Foreign);
        }
        // Before anything is made for so many.
        let expected = HEADER as u64 + u64::from(count) * RECORD as u64;
        if bytes.len() as u64 != expected {
            return Err(ChunkListError::Length { found: bytes.len(), expected });
        }
        if count as usize > Self::MOST {
            return Err(ChunkListError::Count(count as usize));
        }
        let (records, _) = records.as_chunks::<RECORD>();
        let list = Self::checked(codec, records.iter().map(read_chunk).collect(), len)?;
        Ok(Self { digest: *blake3::hash(bytes).as_bytes(), ..list })
    }

    fn checked(codec: Codec, chunks: Vec<ListedChunk>, len: u64) -> Result<Self, ChunkListError> {
        if !(1..=Self::MOST).contains(&chunks.len()) {
            return Err(ChunkListError::Count(chunks.len()));
        }
        codec_numbers(codec)?;
        let mut free = 0;
        for (number, chunk) in chunks.iter().enumerate() {
            check(chunk, codec, free..len).map_err(|problem| ChunkListError::Chunk {
                number,
                offset: chunk.offset,
                problem,
            })?;
            free = chunk.place().end;
        }
        let layout = PieceLayout::at(len, &cut::places(&chunks))?;
        Ok(Self { codec, chunks: chunks.into(), layout, digest: [0; 32] })
    }

    /// The list as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.chunks.len() * RECORD);
        let (compressor, digest) = codec_numbers(self.codec).expect("checked when it was made");
        let count = u32::try_from(self.chunks.len()).expect("at most 2^20");
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&compressor.to_le_bytes());
        bytes.extend_from_slice(&digest.to_le_bytes());
        bytes.extend_from_slice(&self.layout.len().to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for chunk in &self.chunks {
            let plain = chunk.plain | if chunk.is_compressed { COMPRESSED } else { 0 };
            bytes.extend_from_slice(&chunk.offset.to_le_bytes());
            bytes.extend_from_slice(&chunk.stored.to_le_bytes());
            bytes.extend_from_slice(&plain.to_le_bytes());
            bytes.extend_from_slice(&chunk.digest.0);
        }
        bytes
    }

    /// The list's own name: BLAKE3 of [`Self::encode`].
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// How the blob is cut: pieces are whole chunks that follow one another, up to about 1 MiB.
    #[must_use]
    pub const fn layout(&self) -> &PieceLayout {
        &self.layout
    }

    /// Whether `bytes` are this piece: every chunk in it gives bytes of its digest. One chunk is unpacked at a time.
    #[must_use]
    pub fn vouches_for(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        let place = self.layout.range(piece);
        let is_whole = !place.is_empty() && bytes.len() as u64 == place.end - place.start;
        let mut decoder = Decoder::default();
        is_whole && self.within(&place).all(|(chunk, at)| self.is_right(chunk, &bytes[at], &mut decoder))
    }

    /// The piece with zeros between its chunks, where `bytes` have something else there.
    #[must_use]
    pub fn without_gaps(&self, piece: PieceIndex, bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut end, mut gaps) = (0, Vec::new());
        for (_, at) in self.within(&self.layout.range(piece)) {
            gaps.push(end..at.start);
            end = at.end;
        }
        gaps.retain(|gap| bytes.get(gap.clone()).is_some_and(|gap| gap.iter().any(|byte| *byte != 0)));
        let mut clean = (!gaps.is_empty()).then(|| bytes.to_vec())?;
        gaps.into_iter().for_each(|gap| clean[gap].fill(0));
        Some(clean)
    }

    /// The chunks of a piece, and where they lie in it.
    fn within(&self, place: &Range<u64>) -> impl Iterator<Item = (&ListedChunk, Range<usize>)> {
        let first = self.chunks.partition_point(|chunk| chunk.offset < place.start);
        let behind = self.chunks.partition_point(|chunk| chunk.offset < place.end);
        let start = place.start;
        self.chunks[first..behind].iter().map(move |chunk| {
            let at = usize::try_from(chunk.offset - start).expect("a piece has at most 16 MiB");
            (chunk, at..at + chunk.stored as usize)
        })
    }

    fn is_right(&self, chunk: &ListedChunk, stored: &[u8], decoder: &mut Decoder) -> bool {
        if !chunk.is_compressed {
            return self.codec.digest.digest(stored) == chunk.digest;
        }
        let plain = decoder.decode_new(self.codec.compressor, stored, chunk.plain as usize);
        plain.is_ok_and(|plain| self.codec.digest.digest(&plain) == chunk.digest)
    }
}

/// What is wrong with a chunk that is to lie within `free`.
fn check(chunk: &ListedChunk, codec: Codec, free: Range<u64>) -> Result<(), &'static str> {
    let sizes = 1..=ChunkList::LARGEST_CHUNK;
    let is_raw = !chunk.is_compressed;
    if !sizes.contains(&chunk.stored) || !sizes.contains(&chunk.plain) {
        Err("is empty, or larger than 16 MiB")
    } else if is_raw && chunk.stored != chunk.plain {
        Err("is stored as it is, and of another length")
    } else if !is_raw && codec.compressor == Compressor::None {
        Err("is compressed by nothing")
    } else if chunk.offset < free.start {
        Err("lies before the end of the one before it")
    } else if chunk.offset.checked_add(chunk.stored.into()).is_none_or(|end| end > free.end) {
        Err("goes beyond the end of the blob")
    } else {
        Ok(())
    }
}

/// Numbers of the compressor and the digest.
const fn codec_numbers(codec: Codec) -> Result<(u16, u16), ChunkListError> {
    let compressor = match codec.compressor {
        Compressor::None => 0,
        Compressor::Lz4Block => 1,
        Compressor::Zstd => 2,
        // Its chunks are parts of a stream: none can be unpacked alone.
        Compressor::Gzip => return Err(ChunkListError::Codec { what: "compressor", number: 3 }),
    };
    let digest = match codec.digest {
        DigestAlgorithm::Blake3 => 0,
        DigestAlgorithm::Sha256 => 1,
    };
    Ok((compressor, digest))
}

fn read_codec(numbers: u32) -> Result<Codec, ChunkListError> {
    let [a, b, c, d] = numbers.to_le_bytes();
    let unknown = |what, number| ChunkListError::Codec { what, number };
    let compressor = match u16::from_le_bytes([a, b]) {
        0 => Compressor::None,
        1 => Compressor::Lz4Block,
        2 => Compressor::Zstd,
        number => return Err(unknown("compressor", number)),
    };
    let digest = match u16::from_le_bytes([c, d]) {
        0 => DigestAlgorithm::Blake3,
        1 => DigestAlgorithm::Sha256,
        number => return Err(unknown("digest", number)),
    };
    Ok(Codec { compressor, digest })
}

fn read_chunk(record: &[u8; RECORD]) -> ListedChunk {
    let plain = le32(record, 12);
    ListedChunk {
        offset: le64(record, 0),
        stored: le32(record, 8),
        plain: plain & !COMPRESSED,
        is_compressed: plain & COMPRESSED != 0,
        digest: Digest(*record[16..].first_chunk().expect("16 + 32 is 48")),
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within the record"))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within the record"))
}

#[cfg(test)]
mod tests;
