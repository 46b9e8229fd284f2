//! The chunk table and the prefetch table.

use super::View;
use crate::layout::chunk_record::{self, ChunkRecord};
use crate::layout::{check, le32, range};
use crate::{BlobIndex, Chunk, ChunkIndex, FormatError, Nid};

impl<'a> View<'a> {
    pub(super) fn chunk_records(
        self,
    ) -> impl Iterator<Item = Result<(BlobIndex, ChunkIndex, Chunk), FormatError>> + use<'a> {
        let table = self.image.chunk_table;
        // TARFS images have no chunks of their own; what stands there is a leftover.
        let size = if self.image.block_bits == 9 { 0 } else { table.size };
        // Where an empty table stands is not checked.
        let bytes = match size {
            0 => &[],
            _ => range(self.bytes, "chunk table", table.offset, size).expect("checked when opened"),
        };
        bytes.as_chunks::<{ chunk_record::LEN }>().0.iter().enumerate().map(move |(number, record)| {
            let offset = table.offset + (number * chunk_record::LEN) as u64;
            self.check_record(&ChunkRecord::parse(record, offset)?, offset)
        })
    }

    fn check_record(
        self,
        record: &ChunkRecord,
        offset: u64,
    ) -> Result<(BlobIndex, ChunkIndex, Chunk), FormatError> {
        let found = record.blob_index().and_then(|index| {
            let blob = self.image.blobs.get(usize::from(index.0))?;
            Some((index, blob))
        });
        let (index, blob) = found.ok_or_else(|| FormatError::Field {
            what: "chunk's blob",
            offset,
            found: record.blob.into(),
            expected: "must be in the blob table",
        })?;
        let number = record.index.0;
        check(number < blob.chunk_count, "chunk's number", offset, number.into(), "must be in its blob")?;
        let chunk = record.chunk;
        let len = u64::from(chunk.uncompressed_size);
        let most = u64::from(self.image.summary.chunk_size);
        check(len <= most, "chunk length", offset, len, "must be at most the chunk size")?;
        let start = chunk.uncompressed_offset;
        let inside = start.is_multiple_of(crate::BLOCK_SIZE)
            && start.checked_add(len).is_some_and(|end| end <= blob.uncompressed_size);
        check(inside, "chunk's place", offset, start, "must be a multiple of 4096 within its blob")?;
        Ok((index, record.index, chunk))
    }

    pub(super) fn prefetch(self) -> impl Iterator<Item = Nid> + use<'a> {
        let table = self.image.prefetch_table;
        let bytes = range(self.bytes, "prefetch table", table.offset, table.size).unwrap_or_default();
        bytes.chunks_exact(4).map(|nid| Nid(le32(nid, 0).into())).take_while(|nid| nid.0 != 0)
    }
}
