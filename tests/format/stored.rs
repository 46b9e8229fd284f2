//! Blob files as they are stored: chunks decoded and checked as a daemon would.

use rafs::blob::{BatchMember, CI_HEADER_LEN, local_blob_meta, read_batches, read_ci, read_local_blob_meta};
use rafs::{Blob, Bootstrap, Chunk, Decoder, Extent};

/// One blob file and its chunks.
#[derive(Debug)]
pub(crate) struct StoredBlob {
    pub(crate) blob: Blob,
    file: Vec<u8>,
    chunks: Vec<Chunk>,
    batches: Vec<Option<BatchMember>>,
    decoder: Decoder,
    last: Option<(u32, Vec<u8>)>,
}

fn part(file: &[u8], offset: u64, len: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap();
    &file[start..start + usize::try_from(len).unwrap()]
}

impl StoredBlob {
    /// Opens a blob of `bootstrap`, whose chunk table and CI table must agree.
    pub(crate) fn open(bootstrap: &Bootstrap<Vec<u8>>, index: u8, file: Vec<u8>) -> Self {
        let blob = bootstrap.blobs()[usize::from(index)].clone();
        let ci = blob.ci;
        let table = part(&file, ci.offset, ci.compressed_size);
        let header = part(&file, ci.offset + ci.compressed_size, CI_HEADER_LEN);
        let mut chunks = read_ci(&blob, table, Some(header)).unwrap();
        assert_eq!(read_ci(&blob, table, None).unwrap(), chunks);
        let local = local_blob_meta(&blob, table, header).unwrap();
        assert_eq!(read_local_blob_meta(&blob, &local).unwrap(), chunks);
        let batches = read_batches(&blob, table, Some(header)).unwrap();
        for record in bootstrap.chunk_records() {
            let (of, number, known) = record.unwrap();
            if of.0 != index {
                continue;
            }
            let number = number.0 as usize;
            let chunk = &mut chunks[number];
            chunk.digest = known.digest;
            chunk.crc32c = known.crc32c;
            let expected = if batches.get(number).is_some_and(Option::is_some) {
                Chunk { compressed_offset: 0, is_compressed: false, ..*chunk }
            } else {
                *chunk
            };
            assert_eq!(known, expected);
        }
        Self { blob, file, chunks, batches, decoder: Decoder::default(), last: None }
    }

    /// A blob that is a plain tar file.
    pub(crate) fn tar(bootstrap: &Bootstrap<Vec<u8>>, file: Vec<u8>) -> Self {
        let blob = bootstrap.blobs()[0].clone();
        Self { blob, file, chunks: Vec::new(), batches: Vec::new(), decoder: Decoder::default(), last: None }
    }

    /// Bytes of an extent.
    pub(crate) fn extent(&mut self, extent: &Extent) -> Vec<u8> {
        if self.chunks.is_empty() {
            return part(&self.file, extent.offset, extent.len.into()).to_vec();
        }
        let chunk = self.chunks[extent.chunk.0 as usize];
        let within = extent.offset - chunk.uncompressed_offset;
        part(self.chunk(extent.chunk.0), within, extent.len.into()).to_vec()
    }

    /// Bytes of a chunk, which must have its digest.
    pub(crate) fn chunk(&mut self, number: u32) -> &[u8] {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            let chunk = self.chunks[number as usize];
            let plain = self.decode(number, &chunk);
            if chunk.digest.0 != [0; 32] {
                assert_eq!(self.blob.digest_algorithm.digest(&plain), chunk.digest);
            }
            self.last = Some((number, plain));
        }
        &self.last.as_ref().unwrap().1
    }

    fn decode(&mut self, number: u32, chunk: &Chunk) -> Vec<u8> {
        let Self { blob, file, decoder, .. } = self;
        let mut unpack = |offset, stored: u32, len: u32, is_compressed| {
            let mut plain = vec![0; len as usize];
            let compressor = if is_compressed { blob.compressor } else { rafs::Compressor::None };
            decoder.decode(compressor, part(file, offset, stored.into()), &mut plain).unwrap();
            plain
        };
        let len = chunk.uncompressed_size;
        let Some(member) = self.batches.get(number as usize).copied().flatten() else {
            return unpack(chunk.compressed_offset, chunk.compressed_size, len, chunk.is_compressed);
        };
        let (stored, unit_len) = (member.unit_compressed_size, member.unit_uncompressed_size);
        let unit = unpack(member.unit_offset, stored, unit_len, stored != unit_len);
        part(&unit, member.offset.into(), len.into()).to_vec()
    }

    /// The uncompressed image: what the kernel reads as a device.
    pub(crate) fn image(&mut self) -> Vec<u8> {
        let mut image = vec![0; usize::try_from(self.blob.uncompressed_size).unwrap()];
        for number in 0..self.chunks.len() {
            let start = usize::try_from(self.chunks[number].uncompressed_offset).unwrap();
            let chunk = self.chunk(u32::try_from(number).unwrap());
            image[start..start + chunk.len()].copy_from_slice(chunk);
        }
        image
    }
}
