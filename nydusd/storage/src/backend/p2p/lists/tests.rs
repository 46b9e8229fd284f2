use std::collections::BTreeMap;

use rafs::{BootstrapWriter, ChunkIndex, ChunkRef, Inode, InodeId, Kind, Meta, Tree, blob::CiLocation};

use super::*;
use crate::testing::TestBlob;

const SIZE: u32 = 1 << 16;

/// A blob of five chunks whose entry in a bootstrap is sound.
fn blob() -> TestBlob {
    let mut blob = TestBlob::new(1, &[SIZE, SIZE, SIZE, SIZE, 5000]);
    let (offset, table) = (blob.file.len() as u64, 16 * 5);
    let compressor = Compressor::None;
    blob.blob.ci = CiLocation { compressor, offset, compressed_size: table, uncompressed_size: table };
    blob.blob.compressed_size = offset + table;
    blob.blob.features = feature::ALIGNED;
    blob
}

/// The bootstrap of an image with one file of all chunks of a blob that are known.
fn bootstrap(blob: &rafs::Blob) -> Vec<u8> {
    let mut tree = Tree::new(SIZE);
    let chunk = |(chunk, _): (ChunkIndex, &Chunk)| ChunkRef { blob: BlobIndex(0), chunk };
    let size = blob.chunks.iter().map(|(_, chunk)| u64::from(chunk.uncompressed_size)).sum();
    let kind = Kind::File { size, chunks: blob.chunks.iter().map(chunk).collect() };
    tree.inodes.push(Inode { meta: Meta { permissions: 0o644, ..Meta::default() }, kind });
    tree.inodes[0].kind = Kind::Directory(BTreeMap::from([(b"file".to_vec(), InodeId(1))]));
    tree.blobs.push(blob.clone());
    BootstrapWriter::new(&tree).write().unwrap().bytes
}

/// The bootstrap of an image of one blob of this name.
pub(in super::super) fn image_of(id: &BlobId) -> Vec<u8> {
    bootstrap(&rafs::Blob { id: id.clone(), ..blob().blob })
}

#[test]
fn the_chunks_of_a_bootstrap_vouch_for_the_pieces_of_its_blob() {
    let blob = blob();
    let list = chunks_of(&bootstrap(&blob.blob), &blob.blob.id).unwrap();
    assert_eq!(list.layout().len(), blob.file.len() as u64, "and for nothing behind its chunks");
    for piece in list.layout().pieces() {
        let place = list.layout().range(piece);
        let mut bytes =
            blob.file[usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap()].to_vec();
        assert!(list.vouches_for(piece, &bytes));
        bytes[100] ^= 1;
        assert!(!list.vouches_for(piece, &bytes));
    }
}

#[test]
fn only_chunks_that_the_image_uses_are_in_pieces() {
    let mut blob = blob();
    let [first, gone] = [0, 2].map(|number| *blob.blob.chunks.get(ChunkIndex(number)).unwrap());
    blob.blob.chunks.retain(|place| place != 2);
    let list = chunks_of(&bootstrap(&blob.blob), &blob.blob.id).unwrap();
    let end = gone.compressed_offset + u64::from(gone.compressed_size);
    assert!(list.layout().touched(gone.compressed_offset..end).next().is_none());
    assert_eq!(list.layout().touched(0..end).count(), 1);
    assert!(list.layout().touched(0..u64::from(first.compressed_size)).next().is_some());
}

#[test]
fn a_chunk_that_is_numbered_twice_is_listed_once_and_two_that_overlap_are_not_listed() {
    let mut blob = blob();
    let last = *blob.blob.chunks.get(ChunkIndex(4)).unwrap();
    let place = blob.blob.uncompressed_size;
    blob.blob.uncompressed_size += u64::from(SIZE);
    blob.blob.chunk_count += 1;
    blob.blob.ci.compressed_size += 16;
    blob.blob.ci.uncompressed_size += 16;
    blob.blob.compressed_size += 16;
    let chunks = blob.blob.chunks.clone();
    let with = |again: Chunk| {
        let mut blob = blob.blob.clone();
        let all = chunks.iter().map(|(_, chunk)| *chunk).chain([again]);
        blob.chunks = all.collect();
        blob
    };
    let twice = with(Chunk { uncompressed_offset: place, ..last });
    let list = chunks_of(&bootstrap_of_records(&twice), &twice.id).unwrap();
    assert_eq!(list.layout().len(), blob.file.len() as u64);
    let over =
        with(Chunk { uncompressed_offset: place, compressed_offset: last.compressed_offset + 1, ..last });
    let why = chunks_of(&bootstrap_of_records(&over), &over.id).unwrap_err();
    assert!(matches!(why, Unlisted::Chunks(ChunkListError::Chunk { number: 5, .. })), "{why:?}");
}

/// The bootstrap of an image with a file for each chunk.
fn bootstrap_of_records(blob: &rafs::Blob) -> Vec<u8> {
    let mut tree = Tree::new(SIZE);
    let mut names = BTreeMap::new();
    for (chunk, known) in blob.chunks.iter() {
        let kind = Kind::File {
            size: known.uncompressed_size.into(),
            chunks: vec![ChunkRef { blob: BlobIndex(0), chunk }],
        };
        names.insert(chunk.0.to_string().into_bytes(), InodeId(chunk.0 + 1));
        tree.inodes.push(Inode { meta: Meta { permissions: 0o644, ..Meta::default() }, kind });
    }
    tree.inodes[0].kind = Kind::Directory(names);
    tree.blobs.push(blob.clone());
    BootstrapWriter::new(&tree).write().unwrap().bytes
}

#[test]
fn what_cannot_be_listed_says_why() {
    let batch = TestBlob::batched(1, &[SIZE, 100, 200, 5000], 4096).blob;
    let image = bootstrap_of_records(&batch);
    assert!(matches!(chunks_of(&image, &batch.id), Err(Unlisted::Batch)));
    assert!(matches!(chunks_of(&image, &BlobId::new("other").unwrap()), Err(Unlisted::Absent)));
    assert!(matches!(chunks_of(&image[..2000], &batch.id), Err(Unlisted::Format(_))));
    assert!(matches!(chunks_of(b"", &batch.id), Err(Unlisted::Format(_))));
}

#[test]
fn a_list_of_pieces_goes_before_one_of_chunks() {
    let (dir, blob) = (tempfile::tempdir().unwrap(), blob());
    let lists = Lists::of(&dir.path().join("image.boot"));
    let list = || lists.list(&blob.blob.id);
    assert!(matches!(list(), Ok(List::Nothing(Unlisted::Read(_)))));
    fs::write(dir.path().join("image.boot"), bootstrap(&blob.blob)).unwrap();
    let Ok(List::Chunks(bytes)) = list() else { panic!("{:?}", list()) };
    assert_eq!(ChunkList::decode(&bytes).unwrap(), chunks_of(&bootstrap(&blob.blob), &blob.blob.id).unwrap());
    let pieces = dir.path().join(format!("{}.pieces", blob.blob.id));
    fs::write(&pieces, b"a list").unwrap();
    assert!(matches!(list(), Ok(List::Pieces(bytes)) if bytes == b"a list"));
    fs::remove_file(&pieces).unwrap();
    fs::create_dir(&pieces).unwrap();
    assert!(list().is_err(), "one that is there and cannot be read");
}
