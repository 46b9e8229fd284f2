//! A tar stream: ustar, GNU and PAX, with sparse files, long names and binary extended attributes.

mod header;
mod pax;
mod sparse;

use std::io::{ErrorKind, Read};

use rafs::Meta;

use self::{header::Header, pax::Records, sparse::Segment};
use super::{Entry, EntryKind, Source, encode_rdev};
use crate::BuildError;

const RECORD: usize = 512;
const RECORD_LEN: u64 = 512;
/// Longest extended header, long name or sparse map; a value of one attribute is at most 64 KiB.
const MAX_EXTENSION: u64 = 8 << 20;

/// Reads a tar stream front to back.
#[derive(Debug)]
pub struct TarSource<R> {
    inner: R,
    /// Bytes read so far.
    offset: u64,
    /// Name of the entry read last, for messages.
    last: Vec<u8>,
    /// Stored bytes of the current entry not yet read.
    stored: u64,
    /// Zeros behind them up to the next record.
    padding: u64,
    /// Where the stored bytes stand in a sparse file, next one first.
    segments: std::collections::VecDeque<Segment>,
    is_sparse: bool,
    /// Bytes of content handed out.
    position: u64,
}

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Records,
}

impl<R: Read> TarSource<R> {
    /// A reader of `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            last: Vec::new(),
            stored: 0,
            padding: 0,
            segments: std::collections::VecDeque::new(),
            is_sparse: false,
            position: 0,
        }
    }

    /// The stream behind the end mark.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn broken(&self, problem: impl Into<std::borrow::Cow<'static, str>>) -> BuildError {
        BuildError::Header {
            offset: self.offset.saturating_sub(RECORD_LEN),
            after: String::from_utf8_lossy(&self.last).into_owned(),
            problem: problem.into(),
        }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), BuildError> {
        self.inner.read_exact(buf).map_err(|source| {
            let name = String::from_utf8_lossy(&self.last);
            BuildError::Read { what: format!("entry {name:?} at byte {}", self.offset), source }
        })?;
        self.offset += buf.len() as u64;
        Ok(())
    }

    /// The next record, or `None` where the stream ends instead.
    fn record(&mut self) -> Result<Option<[u8; RECORD]>, BuildError> {
        let mut record = [0; RECORD];
        let mut got = 0;
        while got < RECORD {
            match self.inner.read(&mut record[got..]) {
                // Some writers leave out the end mark; readers everywhere accept that.
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(self.broken("is cut off")),
                Ok(n) => got += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let after = String::from_utf8_lossy(&self.last);
                    return Err(BuildError::Read {
                        what: format!("the layer behind entry {after:?}"),
                        source,
                    });
                }
            }
        }
        self.offset += RECORD_LEN;
        Ok(Some(record))
    }

    fn skip(&mut self, mut len: u64) -> Result<(), BuildError> {
        let mut buf = [0; 16 << 10];
        while len > 0 {
            let step = usize::try_from(len).map_or(buf.len(), |len| len.min(buf.len()));
            self.fill(&mut buf[..step])?;
            len -= step as u64;
        }
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), BuildError> {
        let rest =
            self.stored.checked_add(self.padding).ok_or_else(|| self.broken("has an impossible size"))?;
        (self.stored, self.padding) = (0, 0);
        self.skip(rest)
    }

    fn begin_content(&mut self, size: u64) {
        self.stored = size;
        self.padding = size.wrapping_neg() % RECORD_LEN;
        self.segments.clear();
        self.is_sparse = false;
        self.position = 0;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, BuildError> {
        if size > MAX_EXTENSION {
            return Err(self.broken(format!("announces an extended header of {size} bytes")));
        }
        self.begin_content(size);
        let mut value = vec![0; usize::try_from(size).expect("8 MiB fit")];
        self.fill(&mut value)?;
        self.stored = 0;
        self.skip_rest()?;
        Ok(value)
    }

    /// The next header that begins an entry, with all extended headers before it.
    fn header(&mut self) -> Result<Option<(Header, Extensions)>, BuildError> {
        let mut extensions = Extensions::default();
        let mut bytes = 0_u64;
        loop {
            let Some(record) = self.record()? else { return Ok(None) };
            if record.iter().all(|b| *b == 0) {
                return match self.record()? {
                    Some(second) if second.iter().any(|b| *b != 0) => Err(self.broken("follows an end mark")),
                    _ => Ok(None),
                };
            }
            let header = Header::parse(record).map_err(|problem| self.broken(problem))?;
            bytes = bytes.saturating_add(header.size);
            if header.is_extension() && bytes > 4 * MAX_EXTENSION {
                return Err(self.broken("belongs to over-long extended headers"));
            }
            match header.kind {
                b'L' => extensions.long_name = Some(until_nul(self.extension(header.size)?)),
                b'K' => extensions.long_link = Some(until_nul(self.extension(header.size)?)),
                b'x' | b'X' => {
                    let value = self.extension(header.size)?;
                    extensions.pax = Records::parse(&value).map_err(|problem| self.broken(problem))?;
                }
                // Global headers hold no attributes of entries in practice (git's commit id); containerd heeds none.
                b'g' => {
                    drop(self.extension(header.size)?);
                    return Ok(Some((header, Extensions::default())));
                }
                _ => return Ok(Some((header, extensions))),
            }
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, BuildError> {
        let Extensions { long_name, long_link, pax } = extensions;
        let bad = |problem: &'static str| move || problem;
        // Where a tar has names of both kinds, which none should, containerd takes them in this order.
        let owned = |key| pax.get(key).map(<[u8]>::to_vec);
        let path = owned(b"GNU.sparse.name").or(long_name).or_else(|| owned(b"path"));
        let path = path.unwrap_or_else(|| header.path());
        let link = long_link.or_else(|| owned(b"linkpath")).unwrap_or_else(|| header.link());
        self.last.clone_from(&path);
        let (mtime, mtime_nsec) = pax.mtime().unwrap_or(Ok((header.mtime, 0))).map_err(|p| self.broken(p))?;
        let id = |key: &[u8], from_header: i64| match pax.number(key) {
            Some(id) => id.and_then(|id| u32::try_from(id).map_err(|_| "has an id that is no id".into())),
            None => u32::try_from(from_header).map_err(|_| bad("has an id that is no id")().into()),
        };
        let meta = Meta {
            permissions: header.permissions,
            uid: id(b"uid", header.uid).map_err(|p: std::borrow::Cow<'static, str>| self.broken(p))?,
            gid: id(b"gid", header.gid).map_err(|p: std::borrow::Cow<'static, str>| self.broken(p))?,
            mtime,
            mtime_nsec,
            xattrs: pax.xattrs(),
        };
        let size = pax.number(b"size").unwrap_or(Ok(header.size)).map_err(|p| self.broken(p))?;
        let kind = self.kind(header, &pax, &path, link, size)?;
        Ok(Entry { path, meta, kind })
    }

    fn kind(
        &mut self,
        header: &Header,
        pax: &Records,
        path: &[u8],
        link: Vec<u8>,
        size: u64,
    ) -> Result<EntryKind, BuildError> {
        let rdev = || encode_rdev(header.major, header.minor);
        let kind = match header.kind {
            b'\0' if path.ends_with(b"/") => EntryKind::Directory,
            b'\0' | b'0' | b'7' | b'S' => {
                self.begin_content(size);
                return Ok(EntryKind::File(self.sparse_map(header, pax, size)?));
            }
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => EntryKind::CharDevice(rdev()),
            b'4' => EntryKind::BlockDevice(rdev()),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'g' => EntryKind::Comment,
            other => {
                let shown = other.escape_ascii();
                return Err(BuildError::entry(path, format!("is of the unknown type '{shown}'")));
            }
        };
        // Old writers give links the size of their target without any content behind it.
        self.begin_content(0);
        Ok(kind)
    }

    /// Reads the map of a sparse file, where this is one; gives the length of the file.
    fn sparse_map(&mut self, header: &Header, pax: &Records, size: u64) -> Result<u64, BuildError> {
        let (map, len) = if header.kind == b'S' {
            self.gnu_map(header)?
        } else if let Some(map) = pax.sparse().transpose().map_err(|p| self.broken(p))? {
            (map, pax.sparse_size().map_err(|p| self.broken(p))?)
        } else if pax.has_inline_map() {
            (self.inline_map()?, pax.sparse_size().map_err(|p| self.broken(p))?)
        } else {
            return Ok(size);
        };
        sparse::check(&map, len, self.stored).map_err(|problem| self.broken(problem))?;
        self.segments = map.into();
        self.is_sparse = true;
        Ok(len)
    }

    fn gnu_map(&mut self, header: &Header) -> Result<(Vec<Segment>, u64), BuildError> {
        let (mut map, len, mut more) = header.gnu_sparse().map_err(|problem| self.broken(problem))?;
        while more {
            let record = self.record()?.ok_or_else(|| self.broken("is cut off"))?;
            more = sparse::gnu_extension(&record, &mut map).map_err(|problem| self.broken(problem))?;
        }
        Ok((map, len))
    }

    /// The map of PAX sparse format 1.0 stands at the beginning of the content, in whole records.
    fn inline_map(&mut self) -> Result<Vec<Segment>, BuildError> {
        let mut parser = sparse::InlineMap::default();
        loop {
            if self.stored < RECORD_LEN || parser.bytes() > MAX_EXTENSION {
                return Err(self.broken("has a broken sparse map"));
            }
            let mut record = [0; RECORD];
            self.fill(&mut record)?;
            self.stored -= RECORD_LEN;
            if let Some(map) = parser.push(&record).map_err(|problem| self.broken(problem))? {
                return Ok(map);
            }
        }
    }

    fn read_stored(&mut self, buf: &mut [u8]) -> Result<(), BuildError> {
        self.stored = self
            .stored
            .checked_sub(buf.len() as u64)
            .ok_or_else(|| BuildError::entry(&self.last, "has less content than its size says"))?;
        self.fill(buf)
    }
}

impl<R: Read> Source for TarSource<R> {
    fn next_entry(&mut self) -> Result<Option<Entry>, BuildError> {
        self.skip_rest()?;
        match self.header()? {
            Some((header, extensions)) => self.entry(&header, extensions).map(Some),
            None => Ok(None),
        }
    }

    fn read_content(&mut self, mut buf: &mut [u8]) -> Result<(), BuildError> {
        if !self.is_sparse {
            return self.read_stored(buf);
        }
        while !buf.is_empty() {
            let next = self.segments.front().copied();
            let gap = next.map_or(u64::MAX, |segment| segment.offset.saturating_sub(self.position));
            let is_hole = gap > 0;
            let run = if is_hole { gap } else { next.map_or(0, |segment| segment.end() - self.position) };
            let step = usize::try_from(run).map_or(buf.len(), |run| run.min(buf.len()));
            let (now, later) = buf.split_at_mut(step);
            if is_hole {
                now.fill(0)
            } else {
                self.read_stored(now)?
            }
            self.position += step as u64;
            while self.segments.front().is_some_and(|segment| segment.end() <= self.position) {
                self.segments.pop_front();
            }
            buf = later;
        }
        Ok(())
    }
}

fn until_nul(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(value.iter().position(|b| *b == 0).unwrap_or(value.len()));
    value
}

#[cfg(test)]
mod tests;
