//! Records as they stand on disk: one module per record, and what they share: little-endian fields, checked ranges.

pub(crate) mod blob_entry;
pub(crate) mod chunk_addr;
pub(crate) mod chunk_record;
pub(crate) mod device;
pub(crate) mod dirent;
pub(crate) mod inode;
pub(crate) mod superblock;
pub(crate) mod xattr;

use crate::FormatError;

/// Unit of nids in bytes.
pub(crate) const NID_UNIT: u64 = 32;

/// `len` bytes from `offset` on.
#[inline]
pub(crate) fn range<'a>(
    bytes: &'a [u8],
    what: &'static str,
    offset: u64,
    len: u64,
) -> Result<&'a [u8], FormatError> {
    let found = usize::try_from(offset).ok().and_then(|start| {
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        bytes.get(start..end)
    });
    found.ok_or_else(|| truncated(bytes, what, offset, len))
}

/// The record of `N` bytes at `offset`.
#[inline]
pub(crate) fn record<'a, const N: usize>(
    bytes: &'a [u8],
    what: &'static str,
    offset: u64,
) -> Result<&'a [u8; N], FormatError> {
    let found = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)?.first_chunk::<N>());
    found.ok_or_else(|| truncated(bytes, what, offset, N as u64))
}

#[cold]
fn truncated(bytes: &[u8], what: &'static str, offset: u64, len: u64) -> FormatError {
    FormatError::Truncated { what, offset, len, size: bytes.len() as u64 }
}

/// Fails unless `ok`, naming the field, its record's place, the value found and what is allowed.
#[inline]
pub(crate) fn check(
    ok: bool,
    what: &'static str,
    offset: u64,
    found: u64,
    expected: &'static str,
) -> Result<(), FormatError> {
    if ok { Ok(()) } else { Err(FormatError::Field { what, offset, found, expected }) }
}

/// Fails where there is more of something than the format can hold.
pub(crate) fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), FormatError> {
    if found <= limit { Ok(()) } else { Err(FormatError::TooLarge { what, found, limit }) }
}

/// `value` in the unit of the given type, or the error that it does not fit.
pub(crate) fn fit<T: TryFrom<u64>>(what: &'static str, value: u64, limit: u64) -> Result<T, FormatError> {
    T::try_from(value).map_err(|_| FormatError::TooLarge { what, found: value, limit })
}

/// `value` rounded up to a multiple of `unit`, a power of two. Callers keep values far below 2^64.
pub(crate) const fn round_up(value: u64, unit: u64) -> u64 {
    (value + unit - 1) & !(unit - 1)
}

#[inline]
pub(crate) fn le16(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([record[at], record[at + 1]])
}

#[inline]
pub(crate) fn le32(record: &[u8], at: usize) -> u32 {
    let field = record[at..].first_chunk().expect("fields lie within their record");
    u32::from_le_bytes(*field)
}

#[inline]
pub(crate) fn le64(record: &[u8], at: usize) -> u64 {
    let field = record[at..].first_chunk().expect("fields lie within their record");
    u64::from_le_bytes(*field)
}

/// An offset or length of something that is in memory.
pub(crate) fn in_memory(offset: u64) -> usize {
    usize::try_from(offset).expect("what is in memory has a usize for each byte")
}

/// The low 32 bits of `value`.
#[inline]
pub(crate) const fn low32(value: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the high half is cut on purpose")]
    let low = value as u32;
    low
}

/// Puts `field` at `at`.
pub(crate) fn put(record: &mut [u8], at: usize, field: &[u8]) {
    record[at..at + field.len()].copy_from_slice(field);
}
