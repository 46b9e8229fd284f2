//! Device slots: what the kernel reads of a blob. 128 bytes each.

use super::{check, le32, put};
use crate::{Blob, FormatError};

pub(crate) const SLOT_LEN: usize = 128;
/// Blobs in a flat disk begin at multiples of this.
pub(crate) const FLAT_DISK_ALIGN: u64 = 0x8_0000;

/// Checks the slot of `blob` at `offset`.
pub(crate) fn check_slot(slot: &[u8; SLOT_LEN], offset: u64) -> Result<(), FormatError> {
    let blocks = le32(slot, 64);
    check(blocks != 0, "device block count", offset, 0, "must not be 0")
}

/// The slot of a blob of `blocks` blocks that stands at block `flat_disk_block` of a flat disk.
pub(crate) fn encode_slot(blob: &Blob, blocks: u32, flat_disk_block: u32) -> [u8; SLOT_LEN] {
    let mut slot = [0; SLOT_LEN];
    put(&mut slot, 0, blob.id.as_str().as_bytes());
    put(&mut slot, 64, &blocks.to_le_bytes());
    put(&mut slot, 68, &flat_disk_block.to_le_bytes());
    slot
}
