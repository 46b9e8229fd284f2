//! Small images made on the spot.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rafs::{
    Blob, BlobId, BlobIndex, BootstrapWriter, Chunk, ChunkIndex, ChunkRef, Compressor, DigestAlgorithm,
    Inode, InodeId, Kind, Meta, Tree,
    blob::{CiLocation, feature},
};

const CHUNK: u32 = 64 << 10;

/// A tree and the one blob its files stand in.
pub(crate) struct Image {
    pub(crate) tree: Tree,
    blob: Vec<u8>,
    chunks: Vec<Chunk>,
}

impl Image {
    pub(crate) fn new() -> Self {
        Self { tree: Tree::new(CHUNK), blob: Vec::new(), chunks: Vec::new() }
    }

    /// Names `kind` as `path`, whose directory is there.
    pub(crate) fn add(&mut self, path: &str, meta: Meta, kind: Kind) -> InodeId {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let id = self.tree.add(Inode { meta, kind });
        let parent = self.tree.find(parent.as_bytes()).unwrap();
        self.tree.children_mut(parent).unwrap().insert(name.into(), id);
        id
    }

    pub(crate) fn dir(&mut self, path: &str) -> InodeId {
        self.add(path, meta(0o755), Kind::Directory(BTreeMap::new()))
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u16, content: &[u8]) -> InodeId {
        let kind = self.content(content);
        self.add(path, meta(permissions), kind)
    }

    /// Content as chunks of the blob.
    pub(crate) fn content(&mut self, content: &[u8]) -> Kind {
        let chunks = content.chunks(CHUNK as usize).map(|bytes| self.chunk(bytes)).collect();
        Kind::File { size: content.len() as u64, chunks }
    }

    fn chunk(&mut self, bytes: &[u8]) -> ChunkRef {
        let len = u32::try_from(bytes.len()).unwrap();
        let offset = self.blob.len() as u64;
        self.blob.extend_from_slice(bytes);
        self.blob.resize(self.blob.len().next_multiple_of(4096), 0);
        let chunk = ChunkIndex(u32::try_from(self.chunks.len()).unwrap());
        self.chunks.push(Chunk {
            digest: DigestAlgorithm::Sha256.digest(bytes),
            compressed_offset: offset,
            compressed_size: len,
            uncompressed_offset: offset,
            uncompressed_size: len,
            is_compressed: false,
            crc32c: None,
        });
        ChunkRef { blob: BlobIndex(0), chunk }
    }

    /// Writes bootstrap and blob into `dir`; returns the bootstrap and the blob.
    pub(crate) fn write(mut self, dir: &Path) -> (PathBuf, PathBuf) {
        let id = DigestAlgorithm::Sha256.digest(&self.blob);
        let id = BlobId::from_sha256(&id.0);
        // The table of chunks is not read where the bootstrap has one; its place must be there all the same.
        let (data, table) = (self.blob.len(), 16 * self.chunks.len());
        self.blob.resize(data + table, 0);
        if !self.chunks.is_empty() {
            self.tree.blobs.push(Blob {
                id: id.clone(),
                compressor: Compressor::None,
                digest_algorithm: DigestAlgorithm::Sha256,
                features: feature::ALIGNED,
                compressed_size: (data + table) as u64,
                uncompressed_size: data as u64,
                chunk_count: u32::try_from(self.chunks.len()).unwrap(),
                ci: CiLocation {
                    compressor: Compressor::None,
                    offset: data as u64,
                    compressed_size: table as u64,
                    uncompressed_size: table as u64,
                },
                toc_size: 0,
                toc_digest: [0; 32],
                chunks: self.chunks.into_iter().collect(),
            });
        }
        let written = BootstrapWriter::new(&self.tree).write().unwrap();
        let (bootstrap, blob) = (dir.join(format!("{}.boot", id.short())), dir.join(id.as_str()));
        fs::write(&bootstrap, written.bytes).unwrap();
        fs::write(&blob, &self.blob).unwrap();
        (bootstrap, blob)
    }
}

pub(crate) fn meta(permissions: u16) -> Meta {
    Meta { permissions, ..Meta::default() }
}

/// An image of one file, and where its parts are.
pub(crate) fn one_file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    image.file(name, 0o644, content);
    let (bootstrap, _) = image.write(dir.path());
    (dir, bootstrap)
}
