//! Maps of sparse files: GNU's old form, and PAX 0.0, 0.1 and 1.0.

use super::{RECORD, header::number};

/// A run of stored bytes of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) len: u64,
}

type Problem = &'static str;
const BROKEN: Problem = "has a broken sparse map";
/// More pieces than any file system makes of a file; bounds the map's memory.
const MAX_SEGMENTS: usize = 1 << 20;

impl Segment {
    /// Where it ends. Does not overflow once the map is checked.
    pub(super) const fn end(self) -> u64 {
        self.offset + self.len
    }
}

/// Segments must ascend, lie within the file, and account for every stored byte.
pub(super) fn check(map: &[Segment], len: u64, stored: u64) -> Result<(), Problem> {
    let (mut at, mut sum) = (0, 0_u64);
    for segment in map {
        let end = segment.offset.checked_add(segment.len).ok_or(BROKEN)?;
        if segment.offset < at || end > len {
            return Err(BROKEN);
        }
        at = end;
        sum += segment.len;
    }
    if sum == stored { Ok(()) } else { Err(BROKEN) }
}

pub(super) fn push(map: &mut Vec<Segment>, offset: u64, len: u64) -> Result<(), Problem> {
    if map.len() >= MAX_SEGMENTS {
        return Err("has a sparse map of more than a million pieces");
    }
    map.push(Segment { offset, len });
    Ok(())
}

/// Pairs of 12-byte numbers; an empty one ends them.
pub(super) fn gnu_pairs(bytes: &[u8], map: &mut Vec<Segment>) -> Result<(), Problem> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let [offset, len] = [&pair[..12], &pair[12..]].map(|field| number(field).map(u64::try_from));
        push(map, offset?.map_err(|_| BROKEN)?, len?.map_err(|_| BROKEN)?)?;
    }
    Ok(())
}

/// A record of further pairs; gives whether another follows.
pub(super) fn gnu_extension(record: &[u8; RECORD], map: &mut Vec<Segment>) -> Result<bool, Problem> {
    gnu_pairs(&record[..504], map)?;
    Ok(record[504] != 0)
}

/// A decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Problem> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(BROKEN);
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(BROKEN)
}

/// PAX 0.1: all numbers in one value, split by commas.
pub(super) fn comma_list(value: &[u8]) -> Result<Vec<Segment>, Problem> {
    let mut map = Vec::new();
    if value.is_empty() {
        return Ok(map);
    }
    let mut numbers = value.split(|b| *b == b',');
    while let Some(offset) = numbers.next() {
        push(&mut map, decimal(offset)?, decimal(numbers.next().ok_or(BROKEN)?)?)?;
    }
    Ok(map)
}

/// PAX 1.0: decimal lines at the beginning of the content, their count first.
#[derive(Default)]
pub(super) struct InlineMap {
    text: Vec<u8>,
    wanted: Option<usize>,
    numbers: Vec<u64>,
    read: u64,
}

impl InlineMap {
    pub(super) const fn bytes(&self) -> u64 {
        self.read
    }

    /// Takes one record; gives the map once it is whole.
    pub(super) fn push(&mut self, record: &[u8; RECORD]) -> Result<Option<Vec<Segment>>, Problem> {
        self.read += RECORD as u64;
        for byte in record {
            if *byte != b'\n' {
                if self.text.len() > 20 {
                    return Err(BROKEN);
                }
                self.text.push(*byte);
                continue;
            }
            let value = decimal(&self.text)?;
            self.text.clear();
            match self.wanted {
                None => self.wanted = Some(usize::try_from(value).map_err(|_| BROKEN)?.min(MAX_SEGMENTS + 1)),
                Some(_) => self.numbers.push(value),
            }
            if self.wanted.is_some_and(|wanted| self.numbers.len() == 2 * wanted) {
                return self.finish().map(Some);
            }
        }
        Ok(None)
    }

    fn finish(&self) -> Result<Vec<Segment>, Problem> {
        let mut map = Vec::new();
        for pair in self.numbers.chunks_exact(2) {
            push(&mut map, pair[0], pair[1])?;
        }
        Ok(map)
    }
}
