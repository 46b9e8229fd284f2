//! The table of contents at a blob file's end: 128-byte entries, then a tar header.

use sha2::{Digest as _, Sha256};

use super::tar;
use crate::layout::{check, le32, le64, put};
use crate::{Compressor, Decoder, FormatError};

/// Name in the table's own tar header.
pub(super) const NAME: &str = "rafs.blob.toc";
/// Length of an entry in bytes.
pub(super) const ENTRY_LEN: usize = 128;

const NAME_AT: usize = 8;
const NAME_LEN: usize = 16;

/// One part of a blob file, as its table of contents tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// `image.blob`, `blob.meta`, `blob.meta.header`, `blob.digest` or `image.boot`.
    pub name: String,
    /// How it is stored.
    pub compressor: Compressor,
    /// SHA-256 of its uncompressed bytes.
    pub uncompressed_digest: [u8; 32],
    /// Where it begins in the blob file, in bytes.
    pub compressed_offset: u64,
    /// Its stored length in bytes.
    pub compressed_size: u64,
    /// Its length in bytes.
    pub uncompressed_size: u64,
}

impl TocEntry {
    /// Longest part that [`Self::decode`] makes: a bootstrap of some five million files.
    pub const MAX_DECODED: u64 = 1 << 30;

    /// The part from its `stored` bytes, checked against its digest.
    ///
    /// # Errors
    /// [`FormatError::Decode`] or [`FormatError::Digest`] for other bytes than those that the entry means,
    /// [`FormatError::TooLarge`] for more than [`Self::MAX_DECODED`].
    pub fn decode(&self, stored: &[u8]) -> Result<Vec<u8>, FormatError> {
        crate::layout::limit("length of a part of a blob", self.uncompressed_size, Self::MAX_DECODED)?;
        let len = crate::layout::in_memory(self.uncompressed_size);
        let part = Decoder::default().decode_new(self.compressor, stored, len)?;
        if Sha256::digest(&part).as_slice() != self.uncompressed_digest {
            return Err(FormatError::Digest { what: self.name.as_str().into() });
        }
        Ok(part)
    }

    pub(super) fn encode(&self) -> [u8; ENTRY_LEN] {
        let flag: u32 = match self.compressor {
            Compressor::None | Compressor::Gzip => 1,
            Compressor::Zstd => 2,
            Compressor::Lz4Block => 4,
        };
        let mut to = [0; ENTRY_LEN];
        put(&mut to, 0, &flag.to_le_bytes());
        put(&mut to, NAME_AT, self.name.as_bytes());
        put(&mut to, 24, &self.uncompressed_digest);
        put(&mut to, 56, &self.compressed_offset.to_le_bytes());
        put(&mut to, 64, &self.compressed_size.to_le_bytes());
        put(&mut to, 72, &self.uncompressed_size.to_le_bytes());
        to
    }

    /// Reads an entry of a table that begins at `table` in the file.
    fn parse(entry: &[u8; ENTRY_LEN], table: u64) -> Result<Self, FormatError> {
        let flags = le32(entry, 0);
        let compressor = match flags {
            1 => Compressor::None,
            2 => Compressor::Zstd,
            4 => Compressor::Lz4Block,
            _ => return Err(FormatError::Unsupported { what: "flags of a blob part", bits: flags.into() }),
        };
        let name = &entry[NAME_AT..NAME_AT + NAME_LEN];
        let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(NAME_LEN)];
        let (offset, size) = (le64(entry, 56), le64(entry, 64));
        let inside = offset.checked_add(size).is_some_and(|end| end <= table);
        check(inside, "part of a blob", offset, size, "must end before the table of contents")?;
        Ok(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            compressor,
            uncompressed_digest: *entry[24..].first_chunk().expect("24 + 32 is within 128"),
            compressed_offset: offset,
            compressed_size: size,
            uncompressed_size: le64(entry, 72),
        })
    }
}

/// Reads the table of contents from `tail`, the last bytes (4096 are enough) of a blob file of `file_size` bytes.
/// `None` where the file has none.
///
/// # Errors
/// [`FormatError`] for a table that is broken or points outside the file.
pub fn read_toc(tail: &[u8], file_size: u64) -> Result<Option<Vec<TocEntry>>, FormatError> {
    let Some((before, header)) = tail.split_last_chunk::<{ tar::LEN }>() else {
        return Ok(None);
    };
    let Some(size) = tar::size_of(header, NAME) else {
        return Ok(None);
    };
    let header_at = file_size.checked_sub(tar::LEN as u64);
    let start = header_at.and_then(|end| end.checked_sub(size));
    let entries = usize::try_from(size).ok().and_then(|size| before.len().checked_sub(size));
    let (Some(start), Some(entries)) = (start, entries) else {
        let (what, offset) = ("table of contents", header_at.unwrap_or_default());
        return Err(FormatError::Truncated { what, offset, len: size, size: before.len() as u64 });
    };
    let whole = size.is_multiple_of(ENTRY_LEN as u64);
    check(whole, "table of contents' length", start, size, "must be a multiple of 128")?;
    let (entries, _) = before[entries..].as_chunks::<ENTRY_LEN>();
    entries.iter().map(|entry| TocEntry::parse(entry, start)).collect::<Result<_, _>>().map(Some)
}
