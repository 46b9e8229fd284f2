//! Parts before and behind the inodes: which blobs and chunks are written, and where the tables stand.

use super::scan::{Scan, chunk_of};
use crate::bootstrap::flag;
use crate::layout::blob_entry::{MAX_CHUNKS, MAX_COMPRESSED, MAX_UNCOMPRESSED, check_ci};
use crate::layout::chunk_addr::ChunkAddr;
use crate::layout::chunk_record::ChunkRecord;
use crate::layout::superblock::SLOTS_OFFSET;
use crate::layout::{blob_entry, device, fit, limit, round_up};
use crate::{
    BLOCK_SIZE, Blob, BlobIndex, ChunkRef, Compressor, DigestAlgorithm, FormatError, Kind, MAX_BLOBS, Tree,
    blob,
};

/// The blobs that files refer to.
#[derive(Debug)]
pub(super) struct BlobTable {
    /// Places in [`Tree::blobs`] of those written.
    pub(super) kept: Vec<usize>,
    /// New place by old one.
    moved: Vec<Option<BlobIndex>>,
}

impl BlobTable {
    pub(super) fn new(tree: &Tree, scan: &Scan<'_>) -> Result<Self, FormatError> {
        let mut used = vec![false; tree.blobs.len()];
        for found in &scan.found {
            if let Kind::File { chunks, .. } = &found.inode.kind {
                chunks.iter().for_each(|at| used[usize::from(at.blob.0)] = true);
            }
        }
        let kept: Vec<usize> = (0..used.len()).filter(|blob| used[*blob]).collect();
        limit("number of blobs", kept.len() as u64, MAX_BLOBS as u64)?;
        let mut moved = vec![None; used.len()];
        for (new, old) in kept.iter().enumerate() {
            let blob = &tree.blobs[*old];
            check_blob(blob)?;
            if kept[..new].iter().any(|other| tree.blobs[*other].id == blob.id) {
                return Err(FormatError::DuplicateBlob { id: blob.id.clone() });
            }
            moved[*old] = Some(BlobIndex(u8::try_from(new).expect("at most 254 blobs")));
        }
        Ok(Self { kept, moved })
    }

    /// Where the new table has the blob of old index `old`.
    pub(super) fn place(&self, old: BlobIndex) -> BlobIndex {
        self.moved[usize::from(old.0)].expect("blobs that files refer to are kept")
    }

    /// The index record of a chunk that the scan has checked.
    pub(super) fn addr(&self, tree: &Tree, at: ChunkRef) -> Result<ChunkAddr, FormatError> {
        let chunk = chunk_of(tree, at).expect("checked by the scan");
        let block = chunk.uncompressed_offset / BLOCK_SIZE;
        let block = fit("chunk's block", block, u32::MAX.into())?;
        Ok(ChunkAddr { blob: self.place(at.blob), chunk: at.chunk, block })
    }
}

fn check_blob(of: &Blob) -> Result<(), FormatError> {
    let unserved = of.features & (blob::feature::TARFS | blob::feature::ENCRYPTED | blob::feature::SEPARATE);
    if unserved != 0 {
        return Err(FormatError::Unsupported {
            what: "writing such a blob's feature",
            bits: unserved.into(),
        });
    }
    limit("size of a blob", of.compressed_size, MAX_COMPRESSED)?;
    limit("uncompressed size of a blob", of.uncompressed_size, MAX_UNCOMPRESSED)?;
    limit("chunks of a blob", of.chunk_count.into(), MAX_CHUNKS.into())?;
    let last = of.chunks.iter().next_back().map_or(0, |(last, _)| u64::from(last.0) + 1);
    limit("known chunks of a blob", last, of.chunk_count.into())?;
    check_ci(of, 0)?;
    for (_, chunk) in of.chunks.iter() {
        let end = chunk.uncompressed_offset.saturating_add(chunk.uncompressed_size.into());
        let placed = chunk.uncompressed_offset.is_multiple_of(BLOCK_SIZE) && end <= of.uncompressed_size;
        if !placed {
            return Err(FormatError::Field {
                what: "chunk's place",
                offset: chunk.compressed_offset,
                found: chunk.uncompressed_offset,
                expected: "must be a multiple of 4096 within its blob",
            });
        }
    }
    Ok(())
}

/// Places of the parts before the inodes, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) blobs: usize,
    pub(super) prefetch: usize,
}

impl Head {
    /// Without blobs there is nothing to fetch, ahead or at all.
    pub(super) fn new(blobs: usize, prefetch: usize) -> Self {
        Self { blobs, prefetch: if blobs == 0 { 0 } else { prefetch } }
    }

    /// Readers of other make want the length of the blob table, not of the slots, to fit before the table.
    pub(super) fn blob_table(self) -> u64 {
        round_up(SLOTS_OFFSET + (self.blobs * blob_entry::LEN) as u64, BLOCK_SIZE)
    }

    pub(super) fn prefetch_table(self) -> u64 {
        self.blob_table() + (self.blobs * blob_entry::LEN) as u64
    }

    /// Where nids are counted from.
    pub(super) fn metadata(self) -> u64 {
        if self.blobs == 0 {
            0
        } else {
            round_up(self.prefetch_table() + 4 * self.prefetch as u64, BLOCK_SIZE)
        }
    }

    pub(super) fn root_offset(self) -> u64 {
        self.metadata() + BLOCK_SIZE
    }
}

/// Numbers, in the scan, of the inodes to fetch ahead.
pub(super) fn prefetch(tree: &Tree, scan: &Scan<'_>) -> Vec<usize> {
    tree.prefetch.iter().filter_map(|id| scan.number(*id)).collect()
}

/// Device slots of all blobs, for a bootstrap of `size` bytes.
pub(super) fn slots(tree: &Tree, table: &BlobTable, size: u64) -> Result<Vec<u8>, FormatError> {
    let mut slots = Vec::new();
    let mut place = round_up(size, device::FLAT_DISK_ALIGN);
    for blob in table.kept.iter().map(|old| &tree.blobs[*old]) {
        let blocks = fit("blocks of a blob", blob.uncompressed_size / BLOCK_SIZE, u32::MAX.into())?;
        let block = fit("blocks of all blobs", place / BLOCK_SIZE, u32::MAX.into())?;
        slots.extend_from_slice(&device::encode_slot(blob, blocks, block));
        place = round_up(place + blob.uncompressed_size, device::FLAT_DISK_ALIGN);
    }
    Ok(slots)
}

/// Records of the chunks that files refer to, by digest and blob; each with its place in the last such file.
pub(super) fn chunk_records(tree: &Tree, scan: &Scan<'_>, table: &BlobTable) -> Vec<ChunkRecord> {
    let mut records = Vec::new();
    for found in &scan.found {
        let Kind::File { chunks, .. } = &found.inode.kind else { continue };
        for (number, at) in chunks.iter().enumerate() {
            let chunk = *chunk_of(tree, *at).expect("checked by the scan");
            let file_offset = number as u64 * u64::from(tree.chunk_size);
            records.push(ChunkRecord {
                blob: table.place(at.blob).0.into(),
                index: at.chunk,
                chunk,
                file_offset,
            });
        }
    }
    let key = |record: &ChunkRecord| (record.chunk.digest, record.blob, record.index);
    // Stable, and the last of equals is kept: records stand in file order before.
    records.reverse();
    records.sort_by_key(key);
    records.dedup_by_key(|record| key(record));
    records
}

/// Flags of the RAFS superblock.
pub(super) fn flags(tree: &Tree, scan: &Scan<'_>, table: &BlobTable) -> u64 {
    let last = table.kept.last().map(|old| &tree.blobs[*old]);
    let compression = match last.map_or(Compressor::Zstd, |blob| blob.compressor) {
        Compressor::None => flag::COMPRESSION_NONE,
        Compressor::Lz4Block => flag::COMPRESSION_LZ4,
        Compressor::Gzip => flag::COMPRESSION_GZIP,
        Compressor::Zstd => flag::COMPRESSION_ZSTD,
    };
    let hash = match last.map_or(DigestAlgorithm::Blake3, |blob| blob.digest_algorithm) {
        DigestAlgorithm::Blake3 => flag::HASH_BLAKE3,
        DigestAlgorithm::Sha256 => flag::HASH_SHA256,
    };
    let xattrs = scan.found.iter().any(|found| !found.xattrs.is_empty());
    let inlined = blob::feature::INLINED_CHUNK_DIGEST;
    let digests = table.kept.iter().all(|old| tree.blobs[*old].features & inlined != 0);
    compression
        | hash
        | flag::EXPLICIT_UID_GID
        | flag::ENCRYPTION_NONE
        | if xattrs { flag::HAS_XATTR } else { 0 }
        | if digests { flag::INLINED_CHUNK_DIGEST } else { 0 }
}
