//! Looks at everything that hostile bytes offer, as far as a file system or a builder would. Must come to an end
//! without panic, in memory bounded by the input.

use std::collections::HashSet;

use rafs::blob::{feature, local_blob_meta, read_batches, read_ci, read_local_blob_meta, read_toc};
use rafs::{Blob, BlobId, Bootstrap, BootstrapWriter, Chunks, Compressor, DigestAlgorithm, FileType, Nid};

/// Opens and walks a bootstrap.
pub fn bootstrap(bytes: &[u8]) {
    let Ok(bootstrap) = Bootstrap::open(bytes) else { return };
    let mut seen = HashSet::new();
    let mut ahead = vec![bootstrap.root()];
    ahead.extend(bootstrap.prefetch());
    while let Some(nid) = ahead.pop() {
        // Directories may overlap in hostile bytes: look at no more of them than fit side by side.
        if seen.len() > bytes.len() / 32 || !seen.insert(nid) {
            continue;
        }
        inode(&bootstrap, nid, &mut ahead);
    }
    for record in bootstrap.chunk_records() {
        let Ok((blob, number, chunk)) = record else { break };
        assert!(number.0 < bootstrap.blobs()[usize::from(blob.0)].chunk_count);
        assert!(chunk.uncompressed_size <= bootstrap.summary().chunk_size);
    }
    drop(bootstrap.check_all());
    if let Ok(tree) = bootstrap.to_tree()
        && let Ok(written) = BootstrapWriter::new(&tree).write()
    {
        let again = Bootstrap::open(written.bytes).expect("what was written opens");
        assert_eq!(again.to_tree().map(|tree| tree.inodes.len()), Ok(tree.inodes.len()));
    }
}

fn inode(bootstrap: &Bootstrap<&[u8]>, nid: Nid, ahead: &mut Vec<Nid>) {
    let Ok(attributes) = bootstrap.attributes(nid) else { return };
    drop(bootstrap.xattrs(nid));
    drop(bootstrap.link_target(nid));
    for (offset, len) in
        [(0, 1 << 20), (attributes.size / 2, 1 << 20), (attributes.size.saturating_sub(1), u64::MAX)]
    {
        let Ok(extents) = bootstrap.extents(nid, offset, len) else { continue };
        let total: u64 = extents.iter().map(|extent| u64::from(extent.len)).sum();
        assert_eq!(total, len.min(attributes.size.saturating_sub(offset)));
        let inside = |extent: &rafs::Extent| {
            let blob = &bootstrap.blobs()[usize::from(extent.blob.0)];
            extent.offset + u64::from(extent.len) <= blob.uncompressed_size
        };
        assert!(extents.iter().all(inside));
    }
    if attributes.file_type != FileType::Directory {
        return;
    }
    let Ok(entries) = bootstrap.read_dir(nid, 0) else { return };
    for entry in entries.map_while(Result::ok) {
        assert!(!entry.name.is_empty() && entry.name.len() <= 255);
        drop(bootstrap.lookup(nid, entry.name));
        ahead.push(entry.nid);
    }
}

/// Reads the end of a blob file, and its bytes as tables of several kinds.
pub fn blob_tail(bytes: &[u8]) {
    if let Ok(Some(toc)) = read_toc(bytes, bytes.len() as u64) {
        for entry in toc {
            let start = usize::try_from(entry.compressed_offset).expect("within the file");
            let end = start + usize::try_from(entry.compressed_size).expect("within the file");
            if entry.uncompressed_size <= 1 << 20
                && let Ok(part) = entry.decode(&bytes[start..end])
                && entry.name == "image.boot"
            {
                bootstrap(&part);
            }
        }
    }
    for (features, record) in
        [(0, 16), (feature::CHUNK_INFO_V2, 24), (feature::CHUNK_INFO_V2 | feature::BATCH, 64)]
    {
        table(features, record, bytes);
    }
}

fn table(features: u32, record: usize, bytes: &[u8]) {
    let count = bytes.len() / record;
    let len = (count * record) as u64;
    let mut blob = Blob {
        id: BlobId::unknown(),
        compressor: Compressor::Zstd,
        digest_algorithm: DigestAlgorithm::Blake3,
        features: feature::ALIGNED | feature::CAP_TAR_TOC | features,
        compressed_size: 1 << 40,
        uncompressed_size: 1 << 44,
        chunk_count: u32::try_from(count).expect("inputs are small"),
        ci: rafs::blob::CiLocation {
            compressor: Compressor::None,
            offset: 1 << 39,
            compressed_size: len,
            uncompressed_size: len,
        },
        toc_size: 0,
        toc_digest: [0; 32],
        chunks: Chunks::default(),
    };
    let (plain, rest) = bytes.split_at(count * record);
    drop(read_ci(&blob, plain, None));
    drop(read_ci(&blob, plain, Some(rest)));
    drop(read_batches(&blob, plain, None));
    drop(local_blob_meta(&blob, plain, rest));
    drop(read_local_blob_meta(&blob, bytes));
    blob.ci.compressor = Compressor::Zstd;
    drop(read_ci(&blob, plain, None));
}
