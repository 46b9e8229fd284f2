//! Opening: superblocks, device slots and blob table.

use std::collections::BTreeSet;

use super::{Image, Summary};
use crate::layout::blob_entry::{self, Shared};
use crate::layout::device::{self, check_slot};
use crate::layout::inode::Epoch;
use crate::layout::superblock::{SLOTS_OFFSET, Superblock};
use crate::layout::{limit, record};
use crate::{Blob, FormatError, MAX_BLOBS, Nid};

impl Image {
    pub(super) fn open(bytes: &[u8]) -> Result<Self, FormatError> {
        let sb = Superblock::parse(bytes)?;
        let blobs = read_blobs(bytes, &sb)?;
        let summary = Summary {
            inodes: sb.inodes,
            chunk_size: sb.chunk_size,
            block_size: 1 << sb.block_bits,
            uncompressed_size: blobs.iter().map(|blob| blob.uncompressed_size).sum(),
            flags: sb.flags,
        };
        Ok(Self {
            summary,
            root: Nid(sb.root_nid.into()),
            block_bits: sb.block_bits,
            chunk_bits: sb.chunk_size.trailing_zeros(),
            meta_offset: u64::from(sb.meta_block) << sb.block_bits,
            epoch: Epoch { seconds: sb.epoch, nsec: sb.epoch_nsec },
            blobs,
            chunk_table: sb.chunk_table,
            prefetch_table: sb.prefetch_table,
        })
    }
}

fn read_blobs(bytes: &[u8], sb: &Superblock) -> Result<Vec<Blob>, FormatError> {
    limit("number of blobs", sb.devices.into(), MAX_BLOBS as u64)?;
    let shared = Shared { chunk_size: sb.chunk_size, tarfs: sb.block_bits == 9 };
    let mut blobs = Vec::with_capacity(sb.devices.into());
    let mut ids = BTreeSet::new();
    for index in 0..u32::from(sb.devices) {
        let at = SLOTS_OFFSET + u64::from(index) * device::SLOT_LEN as u64;
        check_slot(record(bytes, "device slot", at)?, at)?;
        let at = sb.blob_table.offset + u64::from(index) * blob_entry::LEN as u64;
        let blob = blob_entry::parse(record(bytes, "blob table entry", at)?, index, at, shared)?;
        if !ids.insert(blob.id.clone()) {
            return Err(FormatError::DuplicateBlob { id: blob.id });
        }
        blobs.push(blob);
    }
    Ok(blobs)
}
