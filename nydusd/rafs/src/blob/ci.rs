//! The compression context table ("CI table"): where each chunk stands, stored and uncompressed. A header follows it.

use super::{CI_HEADER_LEN, feature};
use crate::layout::blob_entry::{check_ci, compressor_number};
use crate::layout::{check, in_memory, le32, le64, low32, put, round_up};
use crate::{BLOCK_SIZE, Blob, Chunk, Compressor, Decoder, Digest, FormatError};

const V1_LEN: usize = 16;
const V2_LEN: usize = 24;
const BATCH_LEN: usize = 40;
/// Longest unit that chunks share, stored or not.
const MAX_UNIT: u32 = 1 << 24;
const HEADER_LEN: usize = 4096;
const _: () = assert!(HEADER_LEN as u64 == CI_HEADER_LEN);
const MAGIC: u32 = 0xB10B_B10B;
const MAGIC2_AT: usize = 4092;
/// Low 40 bits: a compressed offset.
const OFFSET_MASK: u64 = (1 << 40) - 1;
/// Bits 12 to 43 of a V1 record's first word: an uncompressed offset in place.
const V1_PLACE_MASK: u64 = 0xFFF_FFFF_F000;

/// Flags of V2 records.
mod v2 {
    pub(super) const COMPRESSED: u64 = 1;
    pub(super) const BATCH: u64 = 4;
    pub(super) const HAS_CRC32: u64 = 16;
}

/// Where a chunk stands in a unit that it shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMember {
    /// Where the unit begins in the blob file, in bytes.
    pub unit_offset: u64,
    /// The unit's stored length in bytes.
    pub unit_compressed_size: u32,
    /// The unit's length in bytes; it is stored as it is where both are equal.
    pub unit_uncompressed_size: u32,
    /// Where the chunk begins in the uncompressed unit, in bytes.
    pub offset: u32,
}

/// Decodes a stored CI table (with `header`, the 4096 bytes behind it, where the caller has them) into chunks. Digests
/// are zero: they stand in the bootstrap and in `blob.digest`.
///
/// # Errors
/// [`FormatError`] for bytes that do not decode, or records out of bounds or order.
pub fn read_ci(blob: &Blob, table: &[u8], header: Option<&[u8]>) -> Result<Vec<Chunk>, FormatError> {
    let table = decode(blob, table, header)?;
    let v2 = blob.features & feature::CHUNK_INFO_V2 != 0;
    let len = if v2 { V2_LEN } else { V1_LEN };
    let mut free = 0;
    let records = table[..len * blob.chunk_count as usize].chunks_exact(len).enumerate();
    let chunks = records.map(|(number, record)| {
        let chunk = if v2 { parse_v2(record)? } else { parse_v1(record) };
        check_chunk(blob, &chunk, number as u64, free)?;
        free = round_up(chunk.uncompressed_offset + u64::from(chunk.uncompressed_size), BLOCK_SIZE);
        Ok(chunk)
    });
    chunks.collect()
}

/// Decodes the table as [`read_ci`] does, into the units that chunks share, by chunk number. `None`: the chunk is
/// stored on its own. Empty for a blob without such units.
///
/// # Errors
/// [`FormatError`] for bytes that do not decode, or members that lie outside of their unit.
pub fn read_batches(
    blob: &Blob,
    table: &[u8],
    header: Option<&[u8]>,
) -> Result<Vec<Option<BatchMember>>, FormatError> {
    let count = blob.chunk_count as usize;
    if blob.features & feature::BATCH == 0 {
        return Ok(Vec::new());
    }
    let table = decode(blob, table, header)?;
    let (records, contexts) = table.split_at(V2_LEN * count);
    let (contexts, _) = contexts.as_chunks::<BATCH_LEN>();
    records.chunks_exact(V2_LEN).map(|record| member(blob, record, contexts)).collect()
}

fn member(
    blob: &Blob,
    record: &[u8],
    contexts: &[[u8; BATCH_LEN]],
) -> Result<Option<BatchMember>, FormatError> {
    let chunk = parse_v2(record)?;
    if le64(record, 0) >> 56 & v2::BATCH == 0 {
        return Ok(None);
    }
    let (offset, unit) = (le32(record, 16), le32(record, 20));
    let context = contexts.get(unit as usize);
    let (stored, len) = context.map_or((0, 0), |context| (le32(context, 0), le32(context, 4)));
    let at = chunk.compressed_offset;
    let end = u64::from(offset) + u64::from(chunk.uncompressed_size);
    check(end <= len.into(), "chunk's end in its unit", at, end, "must lie within the unit")?;
    let sized = (1..=MAX_UNIT).contains(&stored) && len <= MAX_UNIT;
    let inside = at + u64::from(stored) <= data_end(blob);
    let expected = "must lie within the blob, and be and give 16 MiB at most";
    check(sized && inside, "unit's stored length", at, stored.into(), expected)?;
    Ok(Some(BatchMember {
        unit_offset: at,
        unit_compressed_size: stored,
        unit_uncompressed_size: len,
        offset,
    }))
}

/// The local form of a CI table, shipped as `image/<blob id>.blob.meta` in bootstrap layers: the plain table, zeros up
/// to a multiple of 4096, then the header.
///
/// # Errors
/// [`FormatError`] for bytes that do not decode.
pub fn local_blob_meta(blob: &Blob, table: &[u8], header: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut local = decode(blob, table, Some(header))?;
    local.resize(local.len().next_multiple_of(in_memory(BLOCK_SIZE)), 0);
    local.extend_from_slice(&header[..in_memory(CI_HEADER_LEN)]);
    Ok(local)
}

/// Reads chunks from the local form of a CI table. Digests are zero.
///
/// # Errors
/// [`FormatError`] for a file of wrong length, or as [`read_ci`].
pub fn read_local_blob_meta(blob: &Blob, file: &[u8]) -> Result<Vec<Chunk>, FormatError> {
    let len = blob.ci.uncompressed_size;
    let expected = round_up(len.min(1 << 40), BLOCK_SIZE) + CI_HEADER_LEN;
    check(file.len() as u64 == expected, "length of blob.meta", 0, file.len() as u64, "must fit its table")?;
    let (table, header) = file.split_at(file.len() - in_memory(CI_HEADER_LEN));
    check_header(blob, header)?;
    let mut plain = blob.clone();
    plain.ci.compressor = Compressor::None;
    plain.ci.compressed_size = len;
    read_ci(&plain, &table[..in_memory(len)], None)
}

/// The plain table of chunks that have been checked to fit V1 records.
pub(super) fn encode(chunks: &[Chunk]) -> Vec<u8> {
    let mut table = Vec::with_capacity(chunks.len() * V1_LEN);
    for chunk in chunks {
        let word0 = v1_size(chunk.uncompressed_size, 8) | chunk.uncompressed_offset & V1_PLACE_MASK;
        let word1 = v1_size(chunk.compressed_size, 40) | chunk.compressed_offset & OFFSET_MASK;
        table.extend_from_slice(&word0.to_le_bytes());
        table.extend_from_slice(&word1.to_le_bytes());
    }
    table
}

/// A length in a V1 word: its low 20 bits on top, the other four at `high_at`.
fn v1_size(size: u32, high_at: u32) -> u64 {
    let size = u64::from(size) - 1;
    size << 44 | (size >> 20) << high_at
}

/// The header of `blob`'s table.
pub(super) fn encode_header(blob: &Blob) -> [u8; HEADER_LEN] {
    let mut to = [0; HEADER_LEN];
    let ci = &blob.ci;
    put(&mut to, 0, &MAGIC.to_le_bytes());
    put(&mut to, 4, &blob.features.to_le_bytes());
    put(&mut to, 8, &compressor_number(ci.compressor).to_le_bytes());
    put(&mut to, 12, &blob.chunk_count.to_le_bytes());
    put(&mut to, 16, &ci.offset.to_le_bytes());
    put(&mut to, 24, &ci.compressed_size.to_le_bytes());
    put(&mut to, 32, &ci.uncompressed_size.to_le_bytes());
    put(&mut to, MAGIC2_AT, &MAGIC.to_le_bytes());
    to
}

fn decode(blob: &Blob, stored: &[u8], header: Option<&[u8]>) -> Result<Vec<u8>, FormatError> {
    let unserved = blob.features & (feature::ZRAN | feature::ENCRYPTED | feature::TARFS);
    if unserved != 0 {
        return Err(FormatError::Unsupported { what: "CI table of such a blob", bits: unserved.into() });
    }
    check_ci(blob, blob.ci.offset)?;
    let len = stored.len() as u64;
    check(
        len == blob.ci.compressed_size,
        "CI table's stored length",
        blob.ci.offset,
        len,
        "must be the blob entry's",
    )?;
    if let Some(header) = header {
        check_header(blob, header)?;
    }
    Decoder::default().decode_new(blob.ci.compressor, stored, in_memory(blob.ci.uncompressed_size))
}

fn check_header(blob: &Blob, header: &[u8]) -> Result<(), FormatError> {
    let ci = &blob.ci;
    let at = ci.offset.saturating_add(ci.compressed_size);
    if (header.len() as u64) < CI_HEADER_LEN {
        let (what, size) = ("CI header", header.len() as u64);
        return Err(FormatError::Truncated { what, offset: at, len: CI_HEADER_LEN, size });
    }
    for place in [0, MAGIC2_AT] {
        let magic = le32(header, place);
        check(magic == MAGIC, "CI header's magic", at, magic.into(), "must be 0xb10bb10b")?;
    }
    let same = [
        ("CI header's compressor", u64::from(le32(header, 8)), u64::from(compressor_number(ci.compressor))),
        ("CI header's chunk count", le32(header, 12).into(), blob.chunk_count.into()),
        ("CI header's table offset", le64(header, 16), ci.offset),
        ("CI header's stored length", le64(header, 24), ci.compressed_size),
        ("CI header's table length", le64(header, 32), ci.uncompressed_size),
    ];
    for (what, found, entry) in same {
        check(found == entry, what, at, found, "must be the blob entry's")?;
    }
    Ok(())
}

fn parse_v1(record: &[u8]) -> Chunk {
    let (word0, word1) = (le64(record, 0), le64(record, 8));
    let size = |word: u64, high_at: u32| low32(word >> 44 | (word >> high_at & 0xF) << 20) + 1;
    let (uncompressed_size, compressed_size) = (size(word0, 8), size(word1, 40));
    Chunk {
        digest: Digest([0; 32]),
        compressed_offset: word1 & OFFSET_MASK,
        compressed_size,
        uncompressed_offset: word0 & V1_PLACE_MASK,
        uncompressed_size,
        is_compressed: compressed_size != uncompressed_size,
        crc32c: None,
    }
}

fn parse_v2(record: &[u8]) -> Result<Chunk, FormatError> {
    let (word0, word1, word2) = (le64(record, 0), le64(record, 8), le64(record, 16));
    let flags = word0 >> 56;
    if flags & !(v2::COMPRESSED | v2::BATCH | v2::HAS_CRC32) != 0 {
        return Err(FormatError::Unsupported { what: "flags of a CI record", bits: flags });
    }
    Ok(Chunk {
        digest: Digest([0; 32]),
        compressed_offset: word1 & OFFSET_MASK,
        compressed_size: low32(word1 >> 40),
        uncompressed_offset: (word0 & 0xFFFF_FFFF) << 12,
        uncompressed_size: low32(word0 >> 32 & 0xFF_FFFF) + 1,
        is_compressed: flags & v2::COMPRESSED != 0,
        crc32c: (flags & (v2::HAS_CRC32 | v2::BATCH) == v2::HAS_CRC32).then(|| low32(word2)),
    })
}

/// Where chunks must have ended in the blob file.
fn data_end(blob: &Blob) -> u64 {
    let header = if blob.features & feature::HAS_TAR_HEADER == 0 { 0 } else { super::tar::LEN as u64 };
    let known = blob.features & feature::CAP_TAR_TOC != 0;
    if known { blob.ci.offset.saturating_sub(header) } else { blob.compressed_size }
}

/// Checks record `number` against the blob and the end of the record before it.
fn check_chunk(blob: &Blob, chunk: &Chunk, number: u64, free: u64) -> Result<(), FormatError> {
    let place = chunk.uncompressed_offset;
    check(place >= free, "chunk's place", number, place, "must be behind the chunk before")?;
    let end = place + u64::from(chunk.uncompressed_size);
    check(
        end <= blob.uncompressed_size,
        "chunk's end",
        number,
        end,
        "must lie within the uncompressed blob",
    )?;
    let end = chunk.compressed_offset + u64::from(chunk.compressed_size);
    check(end <= data_end(blob), "chunk's stored end", number, end, "must lie within the blob's chunks")?;
    let raw = chunk.is_compressed || chunk.compressed_size == chunk.uncompressed_size;
    check(raw, "chunk's stored length", number, chunk.compressed_size.into(), "must be its length when raw")
}
