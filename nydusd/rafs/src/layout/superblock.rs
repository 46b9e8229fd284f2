//! The EROFS superblock (128 bytes at 1024) and the RAFS extension behind it (256 bytes).

use super::{check, le16, le32, le64, put, range};
use crate::FormatError;

/// Where the EROFS superblock begins.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Where the RAFS extension begins.
const EXTENSION_OFFSET: u64 = 1152;
/// Where the device slots begin.
pub(crate) const SLOTS_OFFSET: u64 = 1408;

const MAGIC: u32 = 0xE0F5_E1E2;
const RAFS_V5_MAGIC: u32 = 0x5241_4653;
const COMPAT_RAFS_V6: u32 = 0x4000_0000;
const INCOMPAT_CHUNKED_WITH_DEVICES: u32 = 0xC;
const SLOTS_UNIT: u16 = 11;
const TABLE_ALIGN: u64 = 4096;
/// Written by old builders into the block count of images without blobs.
const LEGACY_BLOCKS: u32 = 4096;

/// Flags of the RAFS superblock.
pub mod flag {
    /// Chunks of the last build are stored as they are.
    pub const COMPRESSION_NONE: u64 = 0x1;
    /// Chunks of the last build are lz4 blocks.
    pub const COMPRESSION_LZ4: u64 = 0x2;
    /// Chunk digests are BLAKE3.
    pub const HASH_BLAKE3: u64 = 0x4;
    /// Chunk digests are SHA-256.
    pub const HASH_SHA256: u64 = 0x8;
    /// Owners are real.
    pub const EXPLICIT_UID_GID: u64 = 0x10;
    /// Some inode has extended attributes.
    pub const HAS_XATTR: u64 = 0x20;
    /// Chunks of the last build are parts of gzip streams.
    pub const COMPRESSION_GZIP: u64 = 0x40;
    /// Chunks of the last build are zstd frames.
    pub const COMPRESSION_ZSTD: u64 = 0x80;
    /// Every blob holds the digests of its chunks.
    pub const INLINED_CHUNK_DIGEST: u64 = 0x100;
    /// Blobs are plain tar files and blocks have 512 bytes.
    pub const TARFS_MODE: u64 = 0x200;
    /// Nothing is encrypted.
    pub const ENCRYPTION_NONE: u64 = 0x0100_0000;
    /// Blobs are encrypted.
    pub const ENCRYPTION_AES_128_XTS: u64 = 0x0200_0000;
    /// Reserved for changes that old readers may ignore.
    pub(crate) const RESERVED_COMPAT: u64 = 0xFC00_0000;

    pub(crate) const COMPRESSION: u64 =
        COMPRESSION_NONE | COMPRESSION_LZ4 | COMPRESSION_GZIP | COMPRESSION_ZSTD;
    pub(crate) const HASH: u64 = HASH_BLAKE3 | HASH_SHA256;
    pub(crate) const KNOWN: u64 = COMPRESSION
        | HASH
        | EXPLICIT_UID_GID
        | HAS_XATTR
        | INLINED_CHUNK_DIGEST
        | TARFS_MODE
        | ENCRYPTION_NONE
        | ENCRYPTION_AES_128_XTS
        | RESERVED_COMPAT;
}

/// Place of a table in the bootstrap, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Table {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Table {
    fn overlaps(self, other: Self) -> bool {
        self.size > 0
            && other.size > 0
            && self.offset < other.offset.saturating_add(other.size)
            && other.offset < self.offset.saturating_add(self.size)
    }
}

/// Both superblocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Superblock {
    pub(crate) block_bits: u8,
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    pub(crate) epoch: i64,
    pub(crate) epoch_nsec: u32,
    pub(crate) blocks: u32,
    pub(crate) meta_block: u32,
    pub(crate) devices: u16,
    pub(crate) flags: u64,
    pub(crate) chunk_size: u32,
    pub(crate) blob_table: Table,
    pub(crate) chunk_table: Table,
    pub(crate) prefetch_table: Table,
}

impl Superblock {
    /// Length of both records.
    pub(crate) const LEN: usize = 384;

    /// Reads and checks both from a whole bootstrap.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let size = bytes.len() as u64;
        if bytes.len() >= 4 && le32(bytes, 0) == RAFS_V5_MAGIC {
            return Err(FormatError::Unsupported { what: "RAFS v5", bits: 5 });
        }
        let erofs = range(bytes, "EROFS superblock", SUPERBLOCK_OFFSET, 128)?;
        let rafs = range(bytes, "RAFS superblock", EXTENSION_OFFSET, 256)?;
        let this = Self {
            block_bits: erofs[12],
            root_nid: le16(erofs, 14),
            inodes: le64(erofs, 16),
            epoch: le64(erofs, 24).cast_signed(),
            epoch_nsec: le32(erofs, 32),
            blocks: le32(erofs, 36),
            meta_block: le32(erofs, 40),
            devices: le16(erofs, 86),
            flags: le64(rafs, 0),
            chunk_size: le32(rafs, 20),
            blob_table: Table { offset: le64(rafs, 8), size: le32(rafs, 16).into() },
            chunk_table: Table { offset: le64(rafs, 24), size: le64(rafs, 32) },
            prefetch_table: Table { offset: le64(rafs, 40), size: le32(rafs, 48).into() },
        };
        check_constants(erofs)?;
        this.check_erofs(size)?;
        this.check_flags()?;
        this.check_tables(size)?;
        Ok(this)
    }

    /// Both records as they stand on disk.
    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut to = [0; Self::LEN];
        let (erofs, rafs) = to.split_at_mut(128);
        put(erofs, 0, &MAGIC.to_le_bytes());
        put(erofs, 8, &COMPAT_RAFS_V6.to_le_bytes());
        erofs[12] = self.block_bits;
        put(erofs, 14, &self.root_nid.to_le_bytes());
        put(erofs, 16, &self.inodes.to_le_bytes());
        put(erofs, 24, &self.epoch.to_le_bytes());
        put(erofs, 32, &self.epoch_nsec.to_le_bytes());
        put(erofs, 36, &self.blocks.to_le_bytes());
        put(erofs, 40, &self.meta_block.to_le_bytes());
        put(erofs, 80, &INCOMPAT_CHUNKED_WITH_DEVICES.to_le_bytes());
        put(erofs, 86, &self.devices.to_le_bytes());
        put(erofs, 88, &SLOTS_UNIT.to_le_bytes());
        put(rafs, 0, &self.flags.to_le_bytes());
        put(rafs, 8, &self.blob_table.offset.to_le_bytes());
        put(rafs, 16, &super::low32(self.blob_table.size).to_le_bytes());
        put(rafs, 20, &self.chunk_size.to_le_bytes());
        put(rafs, 24, &self.chunk_table.offset.to_le_bytes());
        put(rafs, 32, &self.chunk_table.size.to_le_bytes());
        put(rafs, 40, &self.prefetch_table.offset.to_le_bytes());
        put(rafs, 48, &super::low32(self.prefetch_table.size).to_le_bytes());
        to
    }

    fn check_erofs(&self, size: u64) -> Result<(), FormatError> {
        let at = SUPERBLOCK_OFFSET;
        let bits = self.block_bits;
        check(matches!(bits, 9 | 12), "block size bits", at, bits.into(), "must be 12 or 9")?;
        let block = 1u64 << bits;
        check(size.is_multiple_of(block), "bootstrap size", 0, size, "must be a multiple of the block size")?;
        check(self.inodes != 0, "inode count", at, 0, "must not be 0")?;
        check(self.root_nid != 0, "root nid", at, 0, "must not be 0")?;
        let meta = u64::from(self.meta_block) << bits;
        check(meta <= size, "metadata offset", at, meta, "must lie within the bootstrap")?;
        check(
            self.epoch_nsec < 1_000_000_000,
            "build time",
            at,
            self.epoch_nsec.into(),
            "must be below 10^9 ns",
        )?;
        let legacy = self.devices > 0 || matches!(self.blocks, 0 | LEGACY_BLOCKS);
        check(legacy, "block count", at, self.blocks.into(), "must be 0 without blobs")
    }

    fn check_flags(&self) -> Result<(), FormatError> {
        let at = EXTENSION_OFFSET;
        let unknown = self.flags & !flag::KNOWN;
        if unknown != 0 {
            return Err(FormatError::Unsupported { what: "RAFS superblock flag", bits: unknown });
        }
        if self.flags & flag::ENCRYPTION_AES_128_XTS != 0 {
            return Err(FormatError::Unsupported { what: "encryption", bits: flag::ENCRYPTION_AES_128_XTS });
        }
        let one_compressor = (self.flags & flag::COMPRESSION).count_ones() == 1;
        check(one_compressor, "RAFS superblock flags", at, self.flags, "must name one compressor")?;
        let one_digest = (self.flags & flag::HASH).count_ones() == 1;
        check(one_digest, "RAFS superblock flags", at, self.flags, "must name one digest")?;
        let tarfs = self.flags & flag::TARFS_MODE != 0;
        check(
            tarfs == (self.block_bits == 9),
            "RAFS superblock flags",
            at,
            self.flags,
            "must match block size",
        )?;
        let size = self.chunk_size;
        let fits = size.is_power_of_two() && (0x1000..=0x100_0000).contains(&size);
        check(fits, "chunk size", at, size.into(), "must be a power of two from 4 KiB to 16 MiB")
    }

    fn check_tables(&self, size: u64) -> Result<(), FormatError> {
        let at = EXTENSION_OFFSET;
        let (blobs, chunks, prefetch) = (self.blob_table, self.chunk_table, self.prefetch_table);
        let slots_end = SLOTS_OFFSET + 128 * u64::from(self.devices);
        let count_agrees = blobs.size == 256 * u64::from(self.devices);
        check(count_agrees, "blob table size", at, blobs.size, "must be 256 bytes for each device")?;
        let placed = blobs.offset.is_multiple_of(TABLE_ALIGN) && blobs.offset >= slots_end;
        check(placed, "blob table offset", at, blobs.offset, "must be a multiple of 4096 behind the slots")?;
        check(
            chunks.size.is_multiple_of(80),
            "chunk table size",
            at,
            chunks.size,
            "must be a multiple of 80",
        )?;
        let placed = chunks.size == 0 || chunks.offset.is_multiple_of(TABLE_ALIGN) && chunks.offset > 0;
        check(placed, "chunk table offset", at, chunks.offset, "must be a positive multiple of 4096")?;
        check(
            prefetch.size.is_multiple_of(4),
            "prefetch table size",
            at,
            prefetch.size,
            "must be a multiple of 4",
        )?;
        let placed =
            prefetch.size == 0 || prefetch.offset.is_multiple_of(8) && prefetch.offset >= TABLE_ALIGN;
        check(placed, "prefetch table offset", at, prefetch.offset, "must be a multiple of 8 from 4096 on")?;
        for (what, table) in [("blob table", blobs), ("chunk table", chunks), ("prefetch table", prefetch)] {
            let inside =
                table.size == 0 || table.offset.checked_add(table.size).is_some_and(|end| end <= size);
            check(inside, what, table.offset, table.size, "must end within the bootstrap")?;
        }
        let apart = !chunks.overlaps(blobs) && !prefetch.overlaps(blobs) && !prefetch.overlaps(chunks);
        check(apart, "chunk table offset", at, chunks.offset, "must keep the tables apart")
    }
}

/// Fields that have one value in every image.
fn check_constants(erofs: &[u8]) -> Result<(), FormatError> {
    let at = SUPERBLOCK_OFFSET;
    let magic = le32(erofs, 0);
    check(magic == MAGIC, "EROFS magic", at, magic.into(), "must be 0xe0f5e1e2")?;
    let checksum = le32(erofs, 4);
    check(checksum == 0, "EROFS checksum", at, checksum.into(), "must be 0")?;
    let compat = le32(erofs, 8);
    check(compat & COMPAT_RAFS_V6 != 0, "EROFS compatible features", at, compat.into(), "must say RAFS v6")?;
    check(erofs[13] == 0, "EROFS extension slots", at, erofs[13].into(), "must be 0")?;
    let xattrs = le32(erofs, 44);
    check(xattrs == 0, "EROFS shared xattr block", at, xattrs.into(), "must be 0")?;
    let incompat = le32(erofs, 80);
    if incompat != INCOMPAT_CHUNKED_WITH_DEVICES {
        return Err(FormatError::Unsupported { what: "EROFS feature set", bits: incompat.into() });
    }
    let algorithms = le16(erofs, 84);
    check(algorithms == 0, "EROFS compression algorithms", at, algorithms.into(), "must be 0")?;
    let slots = le16(erofs, 88);
    check(slots == SLOTS_UNIT, "EROFS device slot place", at, slots.into(), "must be 11")?;
    check(erofs[90] == 0, "EROFS directory block bits", at, erofs[90].into(), "must be 0")
}
