//! The writing end of a pipeline.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    sync::{
        Mutex,
        mpsc::{Receiver, Sender},
    },
};

use rafs::{BLOCK_SIZE, Chunk, ChunkRef};

use super::{Batch, ChunkKey, Chunked, batch::Encoded};
use crate::BuildError;

/// Where content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the sink: the nth chunk of it.
    Own(u32),
    /// In a blob of a dictionary.
    Dict(ChunkRef),
}

/// Where chunks of each content stand, shared between the appender and the workers.
#[derive(Debug, Default)]
pub struct Known {
    places: Mutex<HashMap<ChunkKey, Place>>,
}

impl Known {
    /// Where this content stands, if it is stored.
    pub(crate) fn get(&self, key: &ChunkKey) -> Option<Place> {
        self.places.lock().expect("no holder panics").get(key).copied()
    }

    pub(crate) fn insert(&self, key: ChunkKey, place: Place) {
        self.places.lock().expect("no holder panics").insert(key, place);
    }
}

/// Takes stored chunks in order.
pub trait Sink: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// Where they cannot be written.
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

impl<W: Write + Send> Sink for W {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write_all(bytes)
    }
}

pub(super) struct Appender<'a, S> {
    known: &'a Known,
    out: Chunked<S>,
}

impl<'a, S: Sink> Appender<'a, S> {
    pub(super) fn new(sink: S, known: &'a Known) -> Self {
        Self { known, out: Chunked { sink, chunks: Vec::new(), order: Vec::new() } }
    }

    /// Takes batches as they come, and appends them in order until all senders are gone.
    pub(super) fn run(
        mut self,
        finished: &Receiver<Batch>,
        spent: &Sender<Batch>,
    ) -> Result<Chunked<S>, BuildError> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        while let Ok(batch) = finished.recv() {
            early.insert(batch.number, batch);
            while let Some(mut batch) = early.remove(&next) {
                self.batch(&batch)?;
                next += 1;
                batch.clear();
                // The reader may be done already.
                spent.send(batch).ok();
            }
        }
        Ok(self.out)
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), BuildError> {
        for chunk in &batch.chunks {
            let place = match self.known.get(&(chunk.digest, chunk.len)) {
                Some(place) => place,
                None => self.append(batch, chunk)?,
            };
            self.out.order.push(place);
        }
        Ok(())
    }

    fn append(&mut self, batch: &Batch, chunk: &Encoded) -> Result<Place, BuildError> {
        let (bytes, is_compressed) = batch.stored(chunk).expect("a known chunk stays known");
        self.out.push(bytes, (chunk.digest, chunk.len), is_compressed)?;
        let number = u32::try_from(self.out.chunks.len() - 1).expect("fewer than 2^32 chunks");
        self.known.insert((chunk.digest, chunk.len), Place::Own(number));
        Ok(Place::Own(number))
    }
}

impl<S: Sink> Chunked<S> {
    /// Appends a stored chunk behind the last one.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        key: ChunkKey,
        is_compressed: bool,
    ) -> Result<(), BuildError> {
        let (digest, uncompressed_size) = key;
        let last = self.chunks.last();
        let end = last.map_or(0, |last| last.uncompressed_offset + u64::from(last.uncompressed_size));
        let chunk = Chunk {
            digest,
            compressed_offset: last
                .map_or(0, |last| last.compressed_offset + u64::from(last.compressed_size)),
            compressed_size: u32::try_from(bytes.len()).expect("stored chunks are not larger than chunks"),
            uncompressed_offset: end.next_multiple_of(BLOCK_SIZE),
            uncompressed_size,
            is_compressed,
            crc32c: None,
        };
        self.sink.append(bytes).map_err(BuildError::write("blob"))?;
        self.chunks.push(chunk);
        Ok(())
    }
}
