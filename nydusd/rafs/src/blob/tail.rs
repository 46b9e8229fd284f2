//! Making what follows the chunks of a blob file.

use sha2::{Digest as _, Sha256};

use super::toc::{self, TocEntry};
use super::{BlobLayout, CI_HEADER_LEN, CiLocation, ci, feature, tar};
use crate::layout::blob_entry::{MAX_CHUNKS, MAX_COMPRESSED, MAX_UNCOMPRESSED};
use crate::layout::{check, limit, round_up};
use crate::{BLOCK_SIZE, Blob, BlobId, Chunk, Chunks, Compressor, Encoder, FormatError};

/// Most bytes of a part: eleven octal digits in its tar header.
const MAX_TAR_SIZE: u64 = (8 << 30) - 1;

/// Everything of a blob file that follows its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobTail {
    /// The bytes that follow the chunks, up to where an inlined bootstrap begins. Empty for a blob without chunks.
    pub bytes: Vec<u8>,
    /// What a bootstrap is to say of this blob. The id is [`BlobId::unknown`], and `compressed_size` ends with `bytes`
    /// for an inlined bootstrap; without one it is that of the whole file, and the caller sets the id to its SHA-256.
    pub blob: Blob,
    layout: BlobLayout,
    /// Parts in `bytes`, as the table of contents tells of them.
    parts: Vec<TocEntry>,
}

impl BlobTail {
    /// Makes the tail for chunks written one after another from the file's beginning.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] for more chunks or bytes than the format allows; [`FormatError::Field`] for chunks
    /// that do not follow one another.
    pub fn new(layout: BlobLayout, chunks: &[Chunk], chunk_size: u32) -> Result<Self, FormatError> {
        let lengths = check_chunks(chunks, chunk_size)?;
        let blob = Blob {
            id: BlobId::unknown(),
            compressor: layout.compressor,
            digest_algorithm: layout.digest_algorithm,
            features: features(layout),
            compressed_size: lengths.data,
            uncompressed_size: lengths.image,
            chunk_count: u32::try_from(chunks.len()).expect("at most 2^24 chunks"),
            ci: CiLocation::default(),
            toc_size: 0,
            toc_digest: [0; 32],
            chunks: Chunks::default(),
        };
        let mut tail = Self { bytes: Vec::new(), blob, layout, parts: Vec::new() };
        if !chunks.is_empty() {
            tail.add_parts(chunks, lengths)?;
        }
        Ok(tail)
    }

    /// The end of the blob file, to be written behind [`Self::bytes`]: the inlined bootstrap (if the layout has one),
    /// compressed by zstd when there is a table of contents, its tar header, and the table of contents.
    /// `data_sha256` is the SHA-256 of the chunk area.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] where a part is longer than a tar header can say.
    pub fn finish(&self, bootstrap: Option<&[u8]>, data_sha256: [u8; 32]) -> Result<Vec<u8>, FormatError> {
        let mut end = Vec::new();
        let mut parts = self.parts.clone();
        if let Some(data) = parts.first_mut() {
            data.uncompressed_digest = data_sha256;
        }
        if let Some(bootstrap) = bootstrap {
            let mut encoder = Encoder::new(Compressor::Zstd)?;
            let packed = if self.layout.toc { encoder.encode(bootstrap) } else { None };
            let stored = packed.unwrap_or(bootstrap);
            parts.push(TocEntry {
                name: "image.boot".into(),
                compressor: if packed.is_some() { Compressor::Zstd } else { Compressor::None },
                uncompressed_digest: Sha256::digest(bootstrap).into(),
                compressed_offset: self.data_len() + self.bytes.len() as u64,
                compressed_size: stored.len() as u64,
                uncompressed_size: bootstrap.len() as u64,
            });
            end.extend_from_slice(stored);
            end.extend_from_slice(&tar_header("image.boot", stored.len() as u64)?);
        }
        if self.layout.toc && !parts.is_empty() {
            parts.iter().for_each(|part| end.extend_from_slice(&part.encode()));
            end.extend_from_slice(&tar_header(toc::NAME, (parts.len() * toc::ENTRY_LEN) as u64)?);
        }
        Ok(end)
    }

    fn data_len(&self) -> u64 {
        self.parts.first().map_or(0, |data| data.compressed_size)
    }

    fn add_parts(&mut self, chunks: &[Chunk], lengths: Lengths) -> Result<(), FormatError> {
        let layout = self.layout;
        let with_headers = layout.inline_bootstrap || layout.toc;
        let header =
            |name, size| if with_headers { tar_header(name, size).map(Vec::from) } else { Ok(Vec::new()) };
        self.part("image.blob", Compressor::None, [0; 32], (0, lengths.data, lengths.image));
        self.bytes = header("image.blob", lengths.data)?;

        let table = ci::encode(chunks);
        let mut encoder = Encoder::new(Compressor::Zstd)?;
        let packed = encoder.encode(&table);
        let stored = packed.unwrap_or(&table);
        self.blob.ci = CiLocation {
            compressor: if packed.is_some() { Compressor::Zstd } else { Compressor::None },
            offset: lengths.data + self.bytes.len() as u64,
            compressed_size: stored.len() as u64,
            uncompressed_size: table.len() as u64,
        };
        let location = self.blob.ci;
        self.bytes.extend_from_slice(stored);
        let ci_header = ci::encode_header(&self.blob);
        self.bytes.extend_from_slice(&ci_header);
        self.bytes.extend(header("blob.meta", location.compressed_size + CI_HEADER_LEN)?);
        let sizes = (location.offset, location.compressed_size, location.uncompressed_size);
        self.part("blob.meta", location.compressor, Sha256::digest(&table).into(), sizes);
        let sizes = (location.offset + location.compressed_size, CI_HEADER_LEN, CI_HEADER_LEN);
        self.part("blob.meta.header", Compressor::None, Sha256::digest(ci_header).into(), sizes);

        if layout.toc {
            let digests: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.digest.0).collect();
            let len = digests.len() as u64;
            let sizes = (lengths.data + self.bytes.len() as u64, len, len);
            self.part("blob.digest", Compressor::None, Sha256::digest(&digests).into(), sizes);
            self.bytes.extend_from_slice(&digests);
            self.bytes.extend(header("blob.digest", len)?);
        }
        self.blob.compressed_size += self.bytes.len() as u64;
        if layout.toc && !layout.inline_bootstrap {
            let size = self.parts.len() * toc::ENTRY_LEN + tar::LEN;
            self.blob.toc_size = u32::try_from(size).expect("four entries");
            self.blob.compressed_size += size as u64;
        }
        Ok(())
    }

    fn part(
        &mut self,
        name: &str,
        compressor: Compressor,
        digest: [u8; 32],
        (offset, stored, len): (u64, u64, u64),
    ) {
        self.parts.push(TocEntry {
            name: name.into(),
            compressor,
            uncompressed_digest: digest,
            compressed_offset: offset,
            compressed_size: stored,
            uncompressed_size: len,
        });
    }
}

/// Lengths of the chunk area and of the uncompressed image.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    data: u64,
    image: u64,
}

/// Checks that chunks follow one another without gaps, in the file and in the image, and fit their records.
fn check_chunks(chunks: &[Chunk], chunk_size: u32) -> Result<Lengths, FormatError> {
    limit("chunks of a blob", chunks.len() as u64, u64::from(MAX_CHUNKS) - 2)?;
    let mut lengths = Lengths { data: 0, image: 0 };
    for chunk in chunks {
        let (stored, len) = (chunk.compressed_size, chunk.uncompressed_size);
        let at = chunk.compressed_offset;
        check(at == lengths.data, "chunk's offset", lengths.data, at, "must be where the one before ends")?;
        let place = chunk.uncompressed_offset;
        check(place == lengths.image, "chunk's place", at, place, "must be the block behind the one before")?;
        let sized = (1..=chunk_size).contains(&len);
        check(sized, "chunk's length", at, len.into(), "must be 1 to the chunk size")?;
        // Records have no flag: what has its full length is stored raw.
        let packed = if chunk.is_compressed { (1..len).contains(&stored) } else { stored == len };
        check(
            packed,
            "chunk's stored length",
            at,
            stored.into(),
            "must be shorter if, and only if, compressed",
        )?;
        lengths.data += u64::from(stored);
        lengths.image = round_up(lengths.image + u64::from(len), BLOCK_SIZE);
    }
    limit("size of a blob", lengths.data, MAX_COMPRESSED)?;
    limit("uncompressed size of a blob", lengths.image, MAX_UNCOMPRESSED)?;
    Ok(lengths)
}

fn features(layout: BlobLayout) -> u32 {
    let mut bits = feature::ALIGNED | feature::CAP_TAR_TOC;
    if layout.inline_bootstrap {
        bits |= feature::INLINED_FS_META | feature::HAS_TAR_HEADER;
    }
    if layout.toc {
        bits |= feature::INLINED_CHUNK_DIGEST | feature::HAS_TAR_HEADER | feature::HAS_TOC;
    }
    bits
}

fn tar_header(name: &str, size: u64) -> Result<[u8; tar::LEN], FormatError> {
    let limit = MAX_TAR_SIZE;
    tar::header(name, size).ok_or(FormatError::TooLarge {
        what: "length of a part of a blob",
        found: size,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, DigestAlgorithm};

    const CHUNK: u32 = 4096;

    fn layout() -> BlobLayout {
        let (compressor, digest_algorithm) = (Compressor::Lz4Block, DigestAlgorithm::Sha256);
        BlobLayout { compressor, digest_algorithm, inline_bootstrap: false, toc: false }
    }

    fn chunks(count: u64) -> Vec<Chunk> {
        let chunk = |number| Chunk {
            digest: Digest([1; 32]),
            compressed_offset: number * 10,
            compressed_size: 10,
            uncompressed_offset: number * u64::from(CHUNK),
            uncompressed_size: 100,
            is_compressed: true,
            crc32c: None,
        };
        (0..count).map(chunk).collect()
    }

    #[test]
    fn a_plain_tail_is_the_table_and_its_header() {
        let tail = BlobTail::new(layout(), &chunks(300), CHUNK).unwrap();
        let ci = tail.blob.ci;
        assert_eq!(ci.compressor, Compressor::Zstd, "never lz4, which the Go converter cannot read");
        assert_eq!((ci.offset, ci.uncompressed_size), (3000, 4800));
        assert_eq!(tail.bytes.len() as u64, ci.compressed_size + CI_HEADER_LEN);
        assert_eq!(tail.blob.compressed_size, 3000 + tail.bytes.len() as u64);
        assert_eq!(tail.blob.features, 0x4000_0001);
        let (table, header) = tail.bytes.split_at(usize::try_from(ci.compressed_size).unwrap());
        let read = ci::read_ci(&tail.blob, table, Some(header)).unwrap();
        assert!(read.iter().zip(chunks(300)).all(|(got, put)| *got == Chunk { digest: got.digest, ..put }));
    }

    #[test]
    fn a_table_that_does_not_shrink_is_stored_raw() {
        let tail = BlobTail::new(layout(), &chunks(1), CHUNK).unwrap();
        assert_eq!(tail.blob.ci.compressor, Compressor::None);
        assert_eq!(tail.blob.ci.compressed_size, 16);
    }

    #[test]
    fn the_largest_chunk_fits_its_record() {
        let size = 1 << 24;
        let chunk =
            Chunk { compressed_size: size, uncompressed_size: size, is_compressed: false, ..chunks(1)[0] };
        let tail = BlobTail::new(layout(), &[chunk], size).unwrap();
        let (table, header) = tail.bytes.split_at(16);
        let read = ci::read_ci(&tail.blob, table, Some(header)).unwrap();
        assert_eq!(read, [Chunk { digest: Digest([0; 32]), ..chunk }]);
    }

    #[test]
    fn chunks_that_do_not_follow_one_another_are_refused() {
        let good = chunks(3);
        let edits: [fn(&mut Chunk); 6] = [
            |chunk| chunk.compressed_offset += 1,
            |chunk| chunk.uncompressed_offset += u64::from(CHUNK),
            |chunk| chunk.uncompressed_size = CHUNK + 1,
            |chunk| chunk.uncompressed_size = 0,
            |chunk| chunk.is_compressed = false,
            |chunk| chunk.compressed_size = 100,
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut chunks = good.clone();
            edit(&mut chunks[1]);
            assert!(BlobTail::new(layout(), &chunks, CHUNK).is_err(), "edit {number}");
        }
    }

    #[test]
    fn a_header_of_another_blob_is_refused() {
        let tail = BlobTail::new(layout(), &chunks(1), CHUNK).unwrap();
        let (table, header) = tail.bytes.split_at(16);
        for at in [0, 8, 12, 16, 24, 32, 4092] {
            let mut header = header.to_vec();
            header[at] ^= 1;
            assert!(ci::read_ci(&tail.blob, table, Some(&header)).is_err(), "byte {at}");
        }
        assert!(ci::read_ci(&tail.blob, table, Some(&header[1..])).is_err());
    }
}
