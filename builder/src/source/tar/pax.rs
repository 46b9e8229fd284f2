//! PAX extended headers: `length key=value` records. The length counts, so that values may hold any byte.

use std::{borrow::Cow, collections::BTreeMap};

use super::sparse::{self, Segment};

type Problem = Cow<'static, str>;

/// Records of one extended header; of several with one key the last counts.
#[derive(Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// PAX sparse format 0.0 repeats two keys, so order matters.
    pairs: Vec<u64>,
    has_pairs: bool,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Problem> {
        const BROKEN: Problem = Cow::Borrowed("has a broken PAX record");
        let mut records = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(21).position(|b| *b == b' ').ok_or(BROKEN)?;
            let len = sparse::decimal(&bytes[..space]).map_err(|_| BROKEN)?;
            let len = usize::try_from(len)
                .ok()
                .filter(|len| *len <= bytes.len() && *len > space + 2)
                .ok_or(BROKEN)?;
            let (record, rest) = bytes.split_at(len);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(BROKEN)?;
            let equals = record.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or(BROKEN)?;
            records.insert(&record[..equals], &record[equals + 1..])?;
            bytes = rest;
        }
        Ok(records)
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            self.has_pairs = true;
            self.pairs.push(sparse::decimal(value)?);
            return Ok(());
        }
        let is_name = matches!(key, b"path" | b"linkpath");
        if is_name && value.contains(&0) {
            return Err("has a name with a NUL in it".into());
        }
        self.values.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// A value; an empty one takes back what was said before, as the standard has it.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, key: &[u8]) -> Option<Result<u64, Problem>> {
        self.get(key).map(|value| {
            sparse::decimal(value).map_err(|_| {
                let key = String::from_utf8_lossy(key);
                format!("has a broken PAX number for {key}").into()
            })
        })
    }

    /// Seconds, possibly negative, with a fraction of any length that is cut to nanoseconds.
    pub(super) fn mtime(&self) -> Option<Result<(i64, u32), Problem>> {
        self.get(b"mtime").map(|value| parse_time(value).ok_or_else(|| "has a broken PAX mtime".into()))
    }

    pub(super) fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let named = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            key.strip_prefix(XATTR).filter(|name| !name.is_empty()).map(|name| (name.to_vec(), value.clone()))
        };
        self.values.iter().filter_map(named).collect()
    }

    /// The map of PAX sparse formats 0.0 and 0.1.
    pub(super) fn sparse(&self) -> Option<Result<Vec<Segment>, Problem>> {
        if let Some(list) = self.values.get(b"GNU.sparse.map".as_slice()) {
            return Some(sparse::comma_list(list).map_err(Cow::Borrowed));
        }
        self.has_pairs.then(|| {
            let mut map = Vec::new();
            for pair in self.pairs.chunks(2) {
                let [offset, len] = pair else { return Err("has a broken sparse map".into()) };
                sparse::push(&mut map, *offset, *len)?;
            }
            Ok(map)
        })
    }

    /// Whether the map stands in the content (format 1.0).
    pub(super) fn has_inline_map(&self) -> bool {
        self.get(b"GNU.sparse.major") == Some(b"1") && self.get(b"GNU.sparse.minor") == Some(b"0")
    }

    pub(super) fn sparse_size(&self) -> Result<u64, Problem> {
        let size = self.number(b"GNU.sparse.realsize").or_else(|| self.number(b"GNU.sparse.size"));
        size.unwrap_or_else(|| Err("has a sparse map without a size".into()))
    }
}

fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let (is_negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|b| *b == b'.');
    let (whole, fraction) = dot.map_or((value, &b""[..]), |dot| (&value[..dot], &value[dot + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(sparse::decimal(whole).ok()?).ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (is_negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        // -1.25 s is 0.75 s after -2 s.
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}
