//! Stored bytes to checked bytes.

use std::sync::Mutex;

use bytes::Bytes;
use rafs::{Compressor, Decoder};

use crate::{
    cache::{inflight::Failure, lock},
    chunks::{ChunkTable, Entry},
};

/// Decoders kept for the next chunks; more than the cores would only cost memory.
const KEPT: usize = 4;

static DECODERS: Mutex<Vec<Decoder>> = Mutex::new(Vec::new());

/// The plain bytes of a chunk, whose digest is right.
pub(crate) fn verify(table: &ChunkTable, entry: &Entry, stored: Bytes) -> Result<Bytes, Failure> {
    let plain = match table.compressor_of(entry) {
        Compressor::None => stored,
        compressor => decode(compressor, entry, &stored).map_err(Failure::Decode)?,
    };
    if table.algorithm.digest(&plain) == entry.digest { Ok(plain) } else { Err(Failure::Digest) }
}

fn decode(compressor: Compressor, entry: &Entry, stored: &[u8]) -> Result<Bytes, rafs::FormatError> {
    let mut decoder = lock(&DECODERS).pop().unwrap_or_default();
    let mut plain = vec![0; entry.size as usize];
    let decoded = decoder.decode(compressor, stored, &mut plain);
    let mut kept = lock(&DECODERS);
    if kept.len() < KEPT {
        kept.push(decoder);
    }
    decoded.map(|()| plain.into())
}
