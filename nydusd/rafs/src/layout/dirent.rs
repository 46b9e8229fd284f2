//! Directory blocks: 12-byte entries sorted by name, then the names in the same order.

use super::{check, le16, le64};
use crate::{FileType, FormatError, Nid};

pub(crate) const LEN: usize = 12;
/// Longest name in bytes.
pub(crate) const MAX_NAME: usize = 255;

/// One checked block of a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirBlock<'a> {
    bytes: &'a [u8],
    count: usize,
    offset: u64,
}

/// One entry of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent<'a> {
    pub(crate) nid: Nid,
    pub(crate) file_type: FileType,
    pub(crate) name: &'a [u8],
}

impl<'a> DirBlock<'a> {
    /// Takes a block (the last one of a directory cut at the directory's end) that stands at `offset`.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8], offset: u64) -> Result<Self, FormatError> {
        check(bytes.len() > LEN, "directory block length", offset, bytes.len() as u64, "must hold an entry")?;
        let names = usize::from(le16(bytes, 8));
        let fits = names >= LEN && names.is_multiple_of(LEN) && names < bytes.len();
        check(fits, "first name's offset", offset, names as u64, "must be whole entries within the block")?;
        Ok(Self { bytes, count: names / LEN, offset })
    }

    /// Number of entries, at least one.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Name of entry `index`, below [`Self::count`].
    #[inline]
    pub(crate) fn name(&self, index: usize) -> Result<&'a [u8], FormatError> {
        let start = usize::from(le16(self.bytes, index * LEN + 8));
        if index + 1 < self.count {
            let end = usize::from(le16(self.bytes, (index + 1) * LEN + 8));
            return self.bytes.get(start..end).ok_or_else(|| self.broken(start));
        }
        let rest = self.bytes.get(start..).ok_or_else(|| self.broken(start))?;
        // Unused bytes of a block are zero.
        Ok(rest.iter().position(|b| *b == 0).map_or(rest, |end| &rest[..end]))
    }

    /// Entry `index`, below [`Self::count`].
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Result<Dirent<'a>, FormatError> {
        let name = self.name(index)?;
        let at = index * LEN;
        check(
            is_name(name),
            "name's length",
            self.offset,
            name.len() as u64,
            "must be that of a plain name",
        )?;
        let number = self.bytes[at + 10];
        let file_type = file_type(number).ok_or_else(|| FormatError::Field {
            what: "entry's file type",
            offset: self.offset,
            found: number.into(),
            expected: "must be 1 to 7",
        })?;
        Ok(Dirent { nid: Nid(le64(self.bytes, at)), file_type, name })
    }

    #[cold]
    fn broken(&self, start: usize) -> FormatError {
        FormatError::Field {
            what: "name's offset",
            offset: self.offset,
            found: start as u64,
            expected: "must ascend within the block",
        }
    }
}

/// Whether `name` can be an entry: `.` and `..` included.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.iter().any(|b| matches!(b, 0 | b'/'))
}

const fn file_type(number: u8) -> Option<FileType> {
    Some(match number {
        1 => FileType::File,
        2 => FileType::Directory,
        3 => FileType::CharDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => return None,
    })
}

const fn file_type_number(file_type: FileType) -> u8 {
    match file_type {
        FileType::File => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
    }
}

/// Splits sorted entries into blocks: the number of entries in each, and the directory's length in bytes.
pub(crate) fn split<'n>(names: impl Iterator<Item = &'n [u8]>, block: usize) -> (Vec<usize>, u64) {
    let mut counts = Vec::new();
    let (mut count, mut used) = (0, 0);
    for name in names {
        let len = LEN + name.len();
        if used + len > block {
            counts.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += len;
    }
    let size = (counts.len() * block + used) as u64;
    counts.push(count);
    (counts, size)
}

/// Appends one block's entries and names to `to`.
pub(crate) fn encode_block(to: &mut Vec<u8>, entries: &[Dirent<'_>]) {
    let mut name_at = entries.len() * LEN;
    for entry in entries {
        let offset = u16::try_from(name_at).expect("a block is shorter than 64 KiB");
        to.extend_from_slice(&entry.nid.0.to_le_bytes());
        to.extend_from_slice(&offset.to_le_bytes());
        to.extend_from_slice(&[file_type_number(entry.file_type), 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        to.extend_from_slice(entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back_with_padding_and_without() {
        let names: [&[u8]; 3] = [b".", b"..", b"caf\xe9"];
        let entries =
            names.map(|name| Dirent { nid: Nid(name.len() as u64), file_type: FileType::Fifo, name });
        let mut bytes = Vec::new();
        encode_block(&mut bytes, &entries);
        for padding in [0, 7] {
            bytes.resize(bytes.len() + padding, 0);
            let block = DirBlock::parse(&bytes, 0).unwrap();
            let got: Vec<_> = (0..block.count()).map(|i| block.entry(i).unwrap().name).collect();
            assert_eq!(got, names);
        }
    }

    #[test]
    fn entries_that_fill_a_block_exactly_stay_in_it() {
        let names: Vec<&[u8]> = vec![b"abcd"; 8];
        assert_eq!(split(names.iter().copied(), 64), (vec![4, 4], 128));
        assert_eq!(split(names[..5].iter().copied(), 64), (vec![4, 1], 80));
    }
}
