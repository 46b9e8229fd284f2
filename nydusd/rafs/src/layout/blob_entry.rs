//! Entries of the blob table, 256 bytes each.

use super::{check, le32, le64, put};
use crate::blob::{CiLocation, feature};
use crate::{Blob, BlobId, Chunks, Compressor, DigestAlgorithm, FormatError};

pub(crate) const LEN: usize = 256;
/// Most chunks that a blob can have.
pub(crate) const MAX_CHUNKS: u32 = 1 << 24;
/// Longest blob file in bytes.
pub(crate) const MAX_COMPRESSED: u64 = 1 << 40;
/// Longest uncompressed image in bytes.
pub(crate) const MAX_UNCOMPRESSED: u64 = 1 << 44;

const RESERVED_FEATURES: u32 = 0x8000_F000;
const UNSERVED: [(u32, &str); 5] = [
    (feature::ENCRYPTED, "encrypted blob"),
    (feature::ZRAN, "gzip layer with random-access contexts (zran)"),
    (feature::SEPARATE, "blob whose chunk table is a separate blob"),
    (feature::CHUNK_DICT, "chunk dictionary"),
    (feature::EXTERNAL, "external blob"),
];

/// What all blobs of a bootstrap have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared {
    pub(crate) chunk_size: u32,
    pub(crate) tarfs: bool,
}

/// Reads entry number `index`, which stands at `offset`.
pub(crate) fn parse(entry: &[u8; LEN], index: u32, offset: u64, shared: Shared) -> Result<Blob, FormatError> {
    let features = le32(entry, 84);
    check_features(features, offset, shared.tarfs)?;
    check(le32(entry, 64) == index, "blob index", offset, le32(entry, 64).into(), "must be its place")?;
    let chunk_size = le32(entry, 68);
    check(
        chunk_size == shared.chunk_size,
        "blob's chunk size",
        offset,
        chunk_size.into(),
        "must be the image's",
    )?;
    if le32(entry, 216) != 0 {
        return Err(FormatError::Unsupported { what: "blob cipher", bits: le32(entry, 216).into() });
    }
    let blob = Blob {
        id: parse_id(&entry[..BlobId::MAX_LEN])?,
        compressor: compressor(le32(entry, 76), offset)?,
        digest_algorithm: digest_algorithm(le32(entry, 80), offset)?,
        features,
        compressed_size: le64(entry, 88),
        uncompressed_size: le64(entry, 96),
        chunk_count: le32(entry, 72),
        ci: CiLocation {
            compressor: compressor(le32(entry, 108), offset)?,
            offset: le64(entry, 112),
            compressed_size: le64(entry, 120),
            uncompressed_size: le64(entry, 128),
        },
        toc_size: le32(entry, 104),
        toc_digest: *entry[136..].first_chunk().expect("136 + 32 is within 256"),
        chunks: Chunks::default(),
    };
    if blob.compressor == Compressor::Gzip {
        return Err(FormatError::Unsupported { what: "gzip blob", bits: 2 });
    }
    check_sizes(&blob, offset)?;
    if !shared.tarfs {
        check_ci(&blob, offset)?;
    }
    Ok(blob)
}

/// The entry of `blob` at place `index`.
pub(crate) fn encode(blob: &Blob, index: u32, chunk_size: u32) -> [u8; LEN] {
    let mut to = [0; LEN];
    put(&mut to, 0, blob.id.as_str().as_bytes());
    put(&mut to, 64, &index.to_le_bytes());
    put(&mut to, 68, &chunk_size.to_le_bytes());
    put(&mut to, 72, &blob.chunk_count.to_le_bytes());
    put(&mut to, 76, &compressor_number(blob.compressor).to_le_bytes());
    put(&mut to, 80, &u32::from(blob.digest_algorithm == DigestAlgorithm::Sha256).to_le_bytes());
    put(&mut to, 84, &blob.features.to_le_bytes());
    put(&mut to, 88, &blob.compressed_size.to_le_bytes());
    put(&mut to, 96, &blob.uncompressed_size.to_le_bytes());
    put(&mut to, 104, &blob.toc_size.to_le_bytes());
    put(&mut to, 108, &compressor_number(blob.ci.compressor).to_le_bytes());
    put(&mut to, 112, &blob.ci.offset.to_le_bytes());
    put(&mut to, 120, &blob.ci.compressed_size.to_le_bytes());
    put(&mut to, 128, &blob.ci.uncompressed_size.to_le_bytes());
    put(&mut to, 136, &blob.toc_digest);
    to
}

/// The number that names a compressor in blob entries and CI headers.
pub(crate) const fn compressor_number(compressor: Compressor) -> u32 {
    match compressor {
        Compressor::None => 0,
        Compressor::Lz4Block => 1,
        Compressor::Gzip => 2,
        Compressor::Zstd => 3,
    }
}

fn compressor(number: u32, offset: u64) -> Result<Compressor, FormatError> {
    match number {
        0 => Ok(Compressor::None),
        1 => Ok(Compressor::Lz4Block),
        2 => Ok(Compressor::Gzip),
        3 => Ok(Compressor::Zstd),
        found => Err(unknown("compressor", offset, found)),
    }
}

fn digest_algorithm(number: u32, offset: u64) -> Result<DigestAlgorithm, FormatError> {
    match number {
        0 => Ok(DigestAlgorithm::Blake3),
        1 => Ok(DigestAlgorithm::Sha256),
        found => Err(unknown("digest algorithm", offset, found)),
    }
}

fn unknown(what: &'static str, offset: u64, found: u32) -> FormatError {
    FormatError::Field { what, offset, found: found.into(), expected: "must be a known one" }
}

fn parse_id(field: &[u8]) -> Result<BlobId, FormatError> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    BlobId::new(&String::from_utf8_lossy(&field[..end]))
}

fn check_features(features: u32, offset: u64, tarfs: bool) -> Result<(), FormatError> {
    if features & RESERVED_FEATURES != 0 {
        let bits = features & RESERVED_FEATURES;
        return Err(FormatError::Unsupported { what: "blob feature", bits: bits.into() });
    }
    if let Some((bit, what)) = UNSERVED.into_iter().find(|(bit, _)| features & bit != 0) {
        return Err(FormatError::Unsupported { what, bits: bit.into() });
    }
    let is_tar = features & feature::TARFS != 0;
    check(is_tar == tarfs, "blob features", offset, features.into(), "must have TARFS in TARFS images only")?;
    let aligned = features & feature::ALIGNED != 0;
    check(aligned != tarfs, "blob features", offset, features.into(), "must have ALIGNED")?;
    let v2 = features & feature::CHUNK_INFO_V2 != 0 || features & feature::BATCH == 0;
    check(v2, "blob features", offset, features.into(), "must have CHUNK_INFO_V2 with BATCH")
}

fn check_sizes(blob: &Blob, offset: u64) -> Result<(), FormatError> {
    let (compressed, uncompressed) = (blob.compressed_size, blob.uncompressed_size);
    check(compressed <= MAX_COMPRESSED, "blob size", offset, compressed, "must be at most 2^40")?;
    let unit = if blob.features & feature::TARFS == 0 { crate::BLOCK_SIZE } else { 512 };
    let fits = uncompressed > 0 && uncompressed <= MAX_UNCOMPRESSED && uncompressed.is_multiple_of(unit);
    check(fits, "blob's uncompressed size", offset, uncompressed, "must be whole blocks up to 2^44")?;
    let most = if blob.features & feature::TARFS == 0 { uncompressed / unit } else { MAX_CHUNKS.into() };
    let count = u64::from(blob.chunk_count);
    let fits = count > 0 && count <= most.min(MAX_CHUNKS.into());
    check(fits, "blob's chunk count", offset, count, "must be positive, and no more than the blob has blocks")
}

/// Checks the place of the CI table against the blob's size and chunk count.
pub(crate) fn check_ci(blob: &Blob, offset: u64) -> Result<(), FormatError> {
    let ci = &blob.ci;
    let count = u64::from(blob.chunk_count);
    let size = ci.uncompressed_size;
    let fits = match (blob.features & feature::CHUNK_INFO_V2 != 0, blob.features & feature::BATCH != 0) {
        (false, _) => size == 16 * count,
        (true, false) => size == 24 * count,
        // A batch unit has a member at least, so there are no more contexts than chunks.
        (true, true) => (24 * count..=64 * count).contains(&size) && (size - 24 * count).is_multiple_of(40),
    };
    check(fits, "CI table length", offset, size, "must match the chunk count")?;
    check(
        ci.compressed_size <= size,
        "CI table's stored length",
        offset,
        ci.compressed_size,
        "must not exceed its length",
    )?;
    let raw = ci.compressor != Compressor::None || ci.compressed_size == size;
    check(raw, "CI table's stored length", offset, ci.compressed_size, "must be its length when stored raw")?;
    let end = ci.offset.saturating_add(ci.compressed_size);
    check(end <= MAX_COMPRESSED, "CI table's end", offset, end, "must be at most 2^40")
}
