//! One 512-byte tar header.

use super::{
    RECORD,
    sparse::{self, Segment},
};

/// The fields of a header that matter here.
pub(super) struct Header {
    record: [u8; RECORD],
    pub(super) kind: u8,
    pub(super) size: u64,
    pub(super) permissions: u16,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) major: u32,
    pub(super) minor: u32,
}

type Problem = &'static str;

impl Header {
    /// Checks the checksum and reads the numbers.
    pub(super) fn parse(record: [u8; RECORD]) -> Result<Self, Problem> {
        check_sum(&record)?;
        let kind = record[156];
        let is_device = matches!(kind, b'3' | b'4');
        let device = |at: usize| match is_device {
            true => {
                u32::try_from(number(&record[at..at + 8])?).map_err(|_| "has an impossible device number")
            }
            false => Ok(0),
        };
        Ok(Self {
            kind,
            size: u64::try_from(number(&record[124..136])?).map_err(|_| "has a negative size")?,
            permissions: u16::try_from(number(&record[100..108])? & 0o7777).expect("12 bits fit"),
            uid: number(&record[108..116])?,
            gid: number(&record[116..124])?,
            mtime: number(&record[136..148])?,
            major: device(329)?,
            minor: device(337)?,
            record,
        })
    }

    /// Whether it describes the entry after it.
    pub(super) const fn is_extension(&self) -> bool {
        matches!(self.kind, b'L' | b'K' | b'x' | b'X' | b'g')
    }

    /// The name, with ustar's prefix where there is one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.record[..100]);
        // GNU tar writes other things into the prefix, and says so by its own magic.
        let prefix = if &self.record[257..263] == b"ustar\0" { text(&self.record[345..500]) } else { b"" };
        match prefix.is_empty() {
            true => name.to_vec(),
            false => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.record[157..257]).to_vec()
    }

    /// The map of an old GNU sparse file, its length, and whether more records of map follow.
    pub(super) fn gnu_sparse(&self) -> Result<(Vec<Segment>, u64, bool), Problem> {
        let mut map = Vec::new();
        sparse::gnu_pairs(&self.record[386..482], &mut map)?;
        let len = u64::try_from(number(&self.record[483..495])?).map_err(|_| "has a negative size")?;
        Ok((map, len, self.record[482] != 0))
    }
}

fn check_sum(record: &[u8; RECORD]) -> Result<(), Problem> {
    let found = number(&record[148..156])?;
    let bytes = || record.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    // Some old writers summed signed bytes.
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if found == unsigned || found == signed { Ok(()) } else { Err("has a wrong checksum") }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// An octal number, or a binary one where the top bit says so.
pub(super) fn number(field: &[u8]) -> Result<i64, Problem> {
    const BAD: Problem = "holds a broken number";
    if field[0] & 0x80 != 0 {
        return binary(field);
    }
    let is_filler = |byte: &u8| matches!(*byte, 0 | b' ');
    let begin = field.iter().position(|byte| !is_filler(byte)).unwrap_or(field.len());
    let digits = text(&field[begin..]).trim_ascii();
    let mut value = 0_i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(BAD);
        }
        value = value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or(BAD)?;
    }
    Ok(value)
}

/// Two's complement, big-endian, without the top bit that marks it.
fn binary(field: &[u8]) -> Result<i64, Problem> {
    let is_negative = field[0] & 0x40 != 0;
    let first = if is_negative { field[0] } else { field[0] & 0x7f };
    let mut value = i128::from(first.cast_signed());
    for byte in &field[1..] {
        value = value << 8 | i128::from(*byte);
    }
    i64::try_from(value).map_err(|_| "holds a number of more than 64 bits")
}
