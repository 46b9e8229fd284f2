//! Images made by the original tools read as what went into them.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "format/listing.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod listing;
#[path = "format/stored.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod stored;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use listing::{Listing, assert_same, expected};
use rafs::blob::{BlobLayout, BlobTail, TocEntry, read_toc};
use rafs::{Bootstrap, BootstrapWriter, Compressor, DigestAlgorithm, FileType, FormatError, Kind, Tree};
use stored::StoredBlob;

fn golden(sample: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(sample)
}

fn open(sample: &str) -> Result<Bootstrap<Vec<u8>>, FormatError> {
    Bootstrap::open(fs::read(golden(sample).join("bootstrap")).unwrap())
}

fn stored(sample: &str, bootstrap: &Bootstrap<Vec<u8>>) -> Vec<StoredBlob> {
    let open = |(index, blob): (u8, &rafs::Blob)| {
        let file = fs::read(golden(sample).join(blob.id.as_str())).unwrap();
        StoredBlob::open(bootstrap, index, file)
    };
    (0..).zip(bootstrap.blobs()).map(open).collect()
}

fn without_times(mut listing: Listing) -> Listing {
    listing.values_mut().for_each(|entry| entry.mtime_ns = None);
    listing
}

/// A bootstrap of our own from what was read of the sample.
fn rewritten(bootstrap: &Bootstrap<Vec<u8>>) -> Bootstrap<Vec<u8>> {
    let tree = bootstrap.to_tree().unwrap();
    let written = BootstrapWriter::new(&tree).write().unwrap();
    assert_eq!(BootstrapWriter::new(&tree).write().unwrap(), written, "writing is reproducible");
    let again = Bootstrap::open(written.bytes).unwrap();
    assert_eq!(again.to_tree().unwrap(), tree);
    again.check_all().unwrap();
    bootstrap.check_all().unwrap();
    again
}

fn reads_as_expected(sample: &str) {
    let bootstrap = open(sample).unwrap();
    let expected = expected(&fs::read(golden(sample).join("expected.jsonl.gz")).unwrap());
    let mut blobs = stored(sample, &bootstrap);
    assert_same(&listing::read(&bootstrap, &mut blobs), &expected);
    assert_same(&listing::read(&rewritten(&bootstrap), &mut blobs), &expected);
}

#[test]
fn zstd_image_reads_as_what_went_in() {
    reads_as_expected("zstd");
}

#[test]
fn lz4_image_reads_as_what_went_in() {
    reads_as_expected("lz4_block");
}

#[test]
fn raw_image_reads_as_what_went_in() {
    reads_as_expected("none");
}

#[test]
fn image_of_default_chunks_reads_as_what_went_in() {
    reads_as_expected("mib");
}

#[test]
fn image_of_batched_chunks_reads_as_what_went_in() {
    reads_as_expected("batch");
}

#[test]
fn merged_image_reads_as_what_went_in() {
    let bootstrap = open("layers").unwrap();
    let expected = expected(&fs::read(golden("layers").join("expected-nomtime.jsonl.gz")).unwrap());
    let mut blobs = stored("layers", &bootstrap);
    assert_same(&without_times(listing::read(&bootstrap, &mut blobs)), &expected);
    assert_same(&without_times(listing::read(&rewritten(&bootstrap), &mut blobs)), &expected);
    assert_eq!(bootstrap.prefetch(), [bootstrap.root()]);
}

#[test]
fn tar_image_reads_as_what_went_in() {
    let bootstrap = open("tarfs").unwrap();
    let tar = fs::read(golden("tarfs").join(bootstrap.blobs()[0].id.as_str())).unwrap();
    let mut blobs = [StoredBlob::tar(&bootstrap, tar)];
    let expected = expected(&fs::read(golden("tarfs").join("expected-nomtime.jsonl.gz")).unwrap());
    assert_same(&without_times(listing::read(&bootstrap, &mut blobs)), &expected);
    assert_eq!(expected.len() as u64, bootstrap.summary().inodes, "names, and the root");
    assert!(bootstrap.to_tree().is_ok());
}

fn entry<'a>(toc: &'a [TocEntry], name: &str) -> Option<&'a TocEntry> {
    toc.iter().find(|entry| entry.name == name)
}

fn bytes_of<'a>(file: &'a [u8], entry: &TocEntry) -> &'a [u8] {
    let start = usize::try_from(entry.compressed_offset).unwrap();
    &file[start..start + usize::try_from(entry.compressed_size).unwrap()]
}

#[test]
fn layer_blobs_tell_their_parts_and_hold_a_bootstrap() {
    let order = fs::read_to_string(golden("layers").join("ORDER")).unwrap();
    let mut with_data = BTreeSet::new();
    for id in order.lines().map(|line| line.split_whitespace().nth(1).unwrap()) {
        let file = fs::read(golden("layers").join(id)).unwrap();
        let tail = &file[file.len().saturating_sub(4096)..];
        let toc = read_toc(tail, file.len() as u64).unwrap().unwrap();
        let boot = entry(&toc, "image.boot").unwrap();
        let bootstrap = Bootstrap::open(boot.decode(bytes_of(&file, boot)).unwrap()).unwrap();
        let Some(meta) = entry(&toc, "blob.meta") else {
            assert!(bootstrap.blobs().is_empty());
            continue;
        };
        with_data.insert(id.to_owned());
        let blob = &bootstrap.blobs()[0];
        assert_eq!(blob.id, rafs::BlobId::unknown());
        assert_eq!((meta.compressed_offset, meta.compressed_size), (blob.ci.offset, blob.ci.compressed_size));
        assert_eq!(meta.decode(bytes_of(&file, meta)).unwrap().len() as u64, blob.ci.uncompressed_size);
        assert!(meta.decode(&file[..16]).is_err());
        let digests = entry(&toc, "blob.digest").unwrap();
        let digests = digests.decode(bytes_of(&file, digests)).unwrap();
        let chunks = bootstrap.to_tree().unwrap().blobs.remove(0).chunks;
        assert_eq!(chunks.len() * 32, digests.len());
        for ((_, chunk), digest) in chunks.iter().zip(digests.chunks_exact(32)) {
            assert_eq!(chunk.digest.0, digest);
        }
        let mut blob = StoredBlob::open(&bootstrap, 0, file);
        listing::read(&bootstrap, std::slice::from_mut(&mut blob));
    }
    let merged: BTreeSet<_> =
        open("layers").unwrap().blobs().iter().map(|blob| blob.id.to_string()).collect();
    assert_eq!(with_data, merged);
}

#[test]
fn a_blob_tail_of_ours_has_the_parts_of_the_original() {
    let id = "083e3c1342b838b2ceb91b26fedf8c9f1e7265af19c7026ded1a443906251328";
    let file = fs::read(golden("layers").join(id)).unwrap();
    let toc = read_toc(&file[file.len() - 4096..], file.len() as u64).unwrap().unwrap();
    let boot = entry(&toc, "image.boot").unwrap();
    let boot = boot.decode(bytes_of(&file, boot)).unwrap();
    let bootstrap = Bootstrap::open(boot.as_slice()).unwrap();
    let blob = &bootstrap.blobs()[0];
    let chunks = bootstrap.to_tree().unwrap().blobs.remove(0).chunks;
    let chunks: Vec<_> = chunks.iter().map(|(_, chunk)| *chunk).collect();
    let layout = BlobLayout {
        compressor: blob.compressor,
        digest_algorithm: blob.digest_algorithm,
        inline_bootstrap: true,
        toc: true,
    };
    let tail = BlobTail::new(layout, &chunks, bootstrap.summary().chunk_size).unwrap();
    assert_eq!(tail.blob.features, blob.features);
    assert_eq!(tail.blob.uncompressed_size, blob.uncompressed_size);
    assert_eq!(
        (tail.blob.ci.offset, tail.blob.ci.uncompressed_size),
        (blob.ci.offset, blob.ci.uncompressed_size)
    );

    let data = &file[..usize::try_from(toc[0].compressed_size).unwrap()];
    let ours = [data, &tail.bytes, &tail.finish(Some(&boot), [7; 32]).unwrap()].concat();
    let our_toc = read_toc(&ours[ours.len() - 4096..], ours.len() as u64).unwrap().unwrap();
    assert_eq!(our_toc.len(), toc.len());
    for (ours, theirs) in our_toc.iter().zip(&toc) {
        assert_eq!((&ours.name, ours.compressor), (&theirs.name, theirs.compressor));
        assert_eq!(ours.uncompressed_size, theirs.uncompressed_size);
    }
    for part in ["blob.meta", "blob.meta.header", "blob.digest", "image.boot"] {
        let (ours_of, theirs) = (entry(&our_toc, part).unwrap(), entry(&toc, part).unwrap());
        let decoded = ours_of.decode(bytes_of(&ours, ours_of)).unwrap();
        if part != "blob.meta.header" {
            assert_eq!(decoded, theirs.decode(bytes_of(&file, theirs)).unwrap(), "{part}");
        }
    }
    assert_eq!(tail.blob.compressed_size, entry(&our_toc, "image.boot").unwrap().compressed_offset);
}

#[test]
fn a_layer_without_data_is_a_bootstrap_and_its_table_of_contents() {
    let layout = BlobLayout {
        compressor: Compressor::Zstd,
        digest_algorithm: DigestAlgorithm::Blake3,
        inline_bootstrap: true,
        toc: true,
    };
    let tail = BlobTail::new(layout, &[], 1 << 20).unwrap();
    assert!(tail.bytes.is_empty());
    let boot = BootstrapWriter::new(&Tree::new(1 << 20)).write().unwrap().bytes;
    let file = tail.finish(Some(&boot), [0; 32]).unwrap();
    let toc = read_toc(&file, file.len() as u64).unwrap().unwrap();
    assert_eq!(toc.len(), 1);
    assert_eq!(toc[0].decode(bytes_of(&file, &toc[0])).unwrap(), boot);
    assert!(tail.finish(None, [0; 32]).unwrap().is_empty());
}

#[test]
fn encrypted_image_is_refused_by_name() {
    assert!(matches!(open("enc").unwrap_err(), FormatError::Unsupported { what: "encryption", .. }));
}

#[test]
fn image_over_gzip_layers_is_refused_by_name() {
    let id = "5fd14ab93539761df740ef0abee1c8d8f7d14874f77f4773b090d15b10ac65cc.nydus";
    let file = fs::read(golden("zran").join(id)).unwrap();
    let toc = read_toc(&file[file.len() - 4096..], file.len() as u64).unwrap().unwrap();
    let boot = entry(&toc, "image.boot").unwrap();
    let error = Bootstrap::open(boot.decode(bytes_of(&file, boot)).unwrap()).unwrap_err();
    assert!(matches!(error, FormatError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("gzip"), "{error}");
}

#[test]
fn hard_links_of_a_sample_share_an_inode() {
    let tree = open("zstd").unwrap().to_tree().unwrap();
    assert_eq!(tree.find(b"hl/a"), tree.find(b"hl/b"));
    assert_ne!(tree.find(b"hl/a"), tree.find(b"hl/e1"));
    let Kind::Directory(big) = &tree.inode(tree.find(b"bigdir").unwrap()).kind else {
        panic!("is a directory")
    };
    assert_eq!(big.len(), 3000);
    assert_eq!(tree.inode(Tree::ROOT).kind.file_type(), FileType::Directory);
}
