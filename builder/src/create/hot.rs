//! Layers with a prefetch list: the listed files' chunks come first in the blob, in list order.
//!
//! The source is read once. Listed files are set aside as they are, all others go through a pipeline into a spool; then
//! the listed ones go through a pipeline into the blob, and the spool's chunks follow unless they are there already.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use super::{LayerOptions, feed_file, stream};
use crate::{
    BuildError,
    hashing::HashingWriter,
    layer::Entries,
    pipeline::{Chunked, Known, Place},
    source::{EntryKind, Source},
};

/// A listed file that was set aside.
struct Aside {
    /// Place in the list, then in the layer.
    rank: (usize, usize),
    /// Number of its entry.
    file: usize,
    offset: u64,
    size: u64,
}

/// Files set aside, one behind the other.
struct Shelf {
    spool: BufWriter<File>,
    len: u64,
    files: Vec<Aside>,
}

pub(super) fn build<W: Write + Send>(
    source: &mut dyn Source,
    entries: &mut Entries,
    out: HashingWriter<W>,
    options: &LayerOptions,
) -> Result<Chunked<HashingWriter<W>>, BuildError> {
    let mut shelf = Shelf { spool: BufWriter::new(spool(options)?), len: 0, files: Vec::new() };
    let cold_sink = BufWriter::with_capacity(256 << 10, spool(options)?);
    let dict = &options.dict;
    let (mut cold, cold_files) = stream((options.chunks, dict), cold_sink, |feed, files| {
        while let Some(entry) = source.next_entry()? {
            let rank = options.prefetch.rank(&entry.path);
            let size = if let EntryKind::File(size) = entry.kind { size } else { 0 };
            let file = entries.push(entry)?;
            match rank {
                Some(rank) => shelf.put(source, file, size, rank)?,
                None => feed_file(source, file, size, feed, files)?,
            }
        }
        Ok(())
    })?;
    shelf.files.sort_by_key(|aside| aside.rank);
    let mut content = shelf.spool.into_inner().map_err(|error| spool_error(error.into_error()))?;
    let (mut hot, hot_files) = stream((options.chunks, dict), out, |feed, files| {
        for aside in &shelf.files {
            content.seek(SeekFrom::Start(aside.offset)).map_err(spool_error)?;
            let mut reader = BufReader::with_capacity(64 << 10, &content);
            let first = feed.chunks();
            feed.file(aside.size, |buf| reader.read_exact(buf).map_err(spool_error))?;
            files.note(aside.file, first, feed.chunks());
        }
        Ok(())
    })?;
    let order = std::mem::take(&mut hot.order);
    let own = super::own_blob(dict)?;
    hot_files.fill(entries, own, |n| order[n as usize]);
    cold.sink.flush().map_err(spool_error)?;
    let places = follow(&mut hot, &cold)?;
    cold_files.fill(entries, own, |n| match cold.order[n as usize] {
        Place::Own(number) => places[number as usize],
        place @ Place::Dict(_) => place,
    });
    Ok(hot)
}

impl Shelf {
    fn put(
        &mut self,
        source: &mut dyn Source,
        file: usize,
        size: u64,
        rank: usize,
    ) -> Result<(), BuildError> {
        let mut buf = vec![0; 64 << 10];
        let mut left = size;
        while left > 0 {
            let step = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            source.read_content(&mut buf[..step])?;
            self.spool.write_all(&buf[..step]).map_err(spool_error)?;
            left -= step as u64;
        }
        self.files.push(Aside { rank: (rank, self.files.len()), file, offset: self.len, size });
        self.len += size;
        Ok(())
    }
}

/// Appends spooled chunks behind those of `hot`; gives the place of each.
fn follow<W: Write + Send>(
    hot: &mut Chunked<HashingWriter<W>>,
    cold: &Chunked<BufWriter<File>>,
) -> Result<Vec<Place>, BuildError> {
    let known = Known::default();
    for (number, chunk) in (0_u32..).zip(&hot.chunks) {
        known.insert((chunk.digest, chunk.uncompressed_size), Place::Own(number));
    }
    let mut buf = Vec::new();
    let mut places = Vec::with_capacity(cold.chunks.len());
    for chunk in &cold.chunks {
        let key = (chunk.digest, chunk.uncompressed_size);
        if let Some(place) = known.get(&key) {
            places.push(place);
            continue;
        }
        buf.resize(chunk.compressed_size as usize, 0);
        cold.sink.get_ref().read_exact_at(&mut buf, chunk.compressed_offset).map_err(spool_error)?;
        places.push(Place::Own(u32::try_from(hot.chunks.len()).expect("fewer than 2^32 chunks")));
        hot.push(&buf, key, chunk.is_compressed)?;
    }
    Ok(places)
}

fn spool(options: &LayerOptions) -> Result<File, BuildError> {
    tempfile::tempfile_in(&options.spool_dir).map_err(spool_error)
}

fn spool_error(source: std::io::Error) -> BuildError {
    BuildError::Write { what: "temporary file for listed files".into(), source }
}
