//! Stored bytes to plain bytes, and plain bytes to checked ones.

use std::sync::Mutex;

use bytes::Bytes;
use rafs::{Compressor, Decoder};

use crate::{
    cache::{inflight::Failure, lock},
    chunks::{ChunkTable, Entry},
    units::Unit,
};

/// Decoders kept for the next chunks; more than the cores would only cost memory.
const KEPT: usize = 4;

static DECODERS: Mutex<Vec<Decoder>> = Mutex::new(Vec::new());

/// The plain bytes of a unit, not checked yet.
pub(crate) fn unpack(table: &ChunkTable, unit: &Unit, stored: Bytes) -> Result<Bytes, Failure> {
    match table.compressor_of(unit) {
        Compressor::None => Ok(stored),
        compressor => decode(compressor, unit, &stored).map_err(Failure::Decode),
    }
}

/// The plain bytes of a chunk, which begins at `begin` in those of its unit, and whose digest is right.
pub(crate) fn verify(table: &ChunkTable, entry: &Entry, unit: &Bytes, begin: u32) -> Result<Bytes, Failure> {
    let (begin, len) = (begin as usize, entry.size as usize);
    let inside = begin.checked_add(len).filter(|end| *end <= unit.len());
    let plain = unit.slice(begin..inside.ok_or(Failure::Digest)?);
    if table.algorithm.digest(&plain) == entry.digest { Ok(plain) } else { Err(Failure::Digest) }
}

fn decode(compressor: Compressor, unit: &Unit, stored: &[u8]) -> Result<Bytes, rafs::FormatError> {
    let mut decoder = lock(&DECODERS).pop().unwrap_or_default();
    let decoded = decoder.decode_new(compressor, stored, unit.size as usize);
    let mut kept = lock(&DECODERS);
    if kept.len() < KEPT {
        kept.push(decoder);
    }
    decoded.map(Bytes::from)
}
