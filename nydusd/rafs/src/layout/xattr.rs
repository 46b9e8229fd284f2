//! Inline extended attributes: a 12-byte header, then entries padded to 4 bytes. There are no shared ones in RAFS.

use super::{check, le16};
use crate::FormatError;

const HEADER: usize = 12;
const ENTRY: usize = 4;
const MAX_NAME: usize = 255;
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// Prefixes that are whole names.
const WHOLE_NAMES: [u8; 2] = [2, 3];

/// Length in bytes of the attributes of an inode whose count field is `count`.
pub(crate) const fn area_len(count: u16) -> u64 {
    if count == 0 { 0 } else { HEADER as u64 + 4 * (count as u64 - 1) }
}

/// The count field of an area of `len` bytes.
pub(crate) fn count(len: usize) -> Result<u16, FormatError> {
    if len == 0 {
        return Ok(0);
    }
    let words = (len - HEADER) as u64 / 4 + 1;
    super::fit("extended attributes of an inode, in words", words, u16::MAX.into())
}

/// One attribute: its name is `prefix` and `rest`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Xattr<'a> {
    pub(crate) prefix: &'static [u8],
    pub(crate) rest: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Xattr<'_> {
    pub(crate) fn name(&self) -> Vec<u8> {
        [self.prefix, self.rest].concat()
    }

    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix) == Some(self.rest)
    }
}

/// Attributes in an area, in the order written.
#[derive(Debug, Clone)]
pub(crate) struct Xattrs<'a> {
    area: &'a [u8],
    offset: u64,
}

impl<'a> Xattrs<'a> {
    /// Takes the area of an inode, which stands at `offset`.
    pub(crate) fn parse(area: &'a [u8], offset: u64) -> Result<Self, FormatError> {
        let Some((header, entries)) = area.split_at_checked(HEADER) else {
            return Ok(Self { area: &[], offset });
        };
        check(header[4] == 0, "shared xattr count", offset, header[4].into(), "must be 0")?;
        Ok(Self { area: entries, offset })
    }

    fn take(&mut self) -> Result<Xattr<'a>, FormatError> {
        let broken = |what, found: u64| FormatError::Field {
            what,
            offset: self.offset,
            found,
            expected: "must lie within the inode's attributes",
        };
        let (header, after) =
            self.area.split_at_checked(ENTRY).ok_or_else(|| broken("xattr", self.area.len() as u64))?;
        let (name_len, index) = (usize::from(header[0]), header[1]);
        let value_len = usize::from(le16(header, 2));
        let prefix = PREFIXES.iter().find(|(number, _)| *number == index).map(|(_, prefix)| *prefix);
        let prefix =
            prefix.ok_or_else(|| FormatError::Unsupported { what: "xattr prefix", bits: index.into() })?;
        let (rest, tail) =
            after.split_at_checked(name_len).ok_or_else(|| broken("xattr name", name_len as u64))?;
        let value = tail.get(..value_len).ok_or_else(|| broken("xattr value", value_len as u64))?;
        let used = (ENTRY + name_len + value_len).next_multiple_of(4);
        self.area = self.area.get(used..).unwrap_or_default();
        Ok(Xattr { prefix, rest, value })
    }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = Result<Xattr<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Zeros are what an over-long area is filled with: no entry has neither name nor prefix.
        if self.area.is_empty() || self.area.starts_with(&[0, 0]) {
            return None;
        }
        let got = self.take();
        if got.is_err() {
            self.area = &[];
        }
        Some(got)
    }
}

/// The area of attributes given by full name, or the reason why one cannot be stored.
pub(crate) fn encode<'n>(
    xattrs: impl Iterator<Item = (&'n Vec<u8>, &'n Vec<u8>)>,
) -> Result<Vec<u8>, XattrFault> {
    let mut area = Vec::new();
    for (name, value) in xattrs {
        if area.is_empty() {
            area.resize(HEADER, 0);
        }
        let (index, rest) = split_name(name).ok_or(XattrFault::Name)?;
        let value_len = u16::try_from(value.len()).map_err(|_| XattrFault::Value)?;
        area.push(u8::try_from(rest.len()).map_err(|_| XattrFault::Name)?);
        area.push(index);
        area.extend_from_slice(&value_len.to_le_bytes());
        area.extend_from_slice(rest);
        area.extend_from_slice(value);
        area.resize(area.len().next_multiple_of(4), 0);
    }
    Ok(area)
}

/// Why an attribute cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XattrFault {
    Name,
    Value,
}

impl XattrFault {
    pub(crate) const fn problem(self) -> &'static str {
        match self {
            Self::Name => "has a name without known prefix, or longer than 255 bytes",
            Self::Value => "has a value longer than 65535 bytes",
        }
    }
}

fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    if name.len() > MAX_NAME {
        return None;
    }
    PREFIXES.into_iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        (rest.is_empty() == WHOLE_NAMES.contains(&index)).then_some((index, rest))
    })
}
