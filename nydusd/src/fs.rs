//! One image as a file system: names, attributes, and what to read where. Nothing of FUSE in it.

mod bootstrap_file;
mod error;
mod paths;

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use memmap2::Mmap;
use rafs::{
    BlobIndex, Bootstrap, FormatError, Nid,
    bootstrap::{Attributes, DirEntry, Summary},
};
use storage::{BlobReads, BlobSet, CacheDir, ReadPolicy, StorageError, Stories, backend::Backend};

pub use error::FsError;
pub(crate) use paths::{path_at, paths_of, walk};

/// Names and values of extended attributes, borrowed from the bootstrap.
pub type Xattrs<'a> = Vec<(Vec<u8>, &'a [u8])>;

/// An image that cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its bootstrap file cannot be used.
    #[error("bootstrap {path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its bootstrap is none, or of another version.
    #[error("bootstrap {path} is no RAFS v6 image that can be served")]
    Format {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: FormatError,
    },
    /// Its blobs cannot be opened.
    #[error("blobs of {path} cannot be opened")]
    Blobs {
        /// The bootstrap file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: StorageError,
    },
}

/// Bytes that stand together in one blob's uncompressed image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The blob.
    pub blob: BlobIndex,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub len: u32,
}

/// A mounted image.
#[derive(Debug)]
pub struct Rafs {
    bootstrap: Bootstrap<Mmap>,
    blobs: Arc<BlobSet>,
}

impl Rafs {
    /// Opens the image whose bootstrap is the file `path`. Nothing is fetched.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        path: &Path,
        cache: &Arc<CacheDir>,
        backend: Arc<dyn Backend>,
        policy: ReadPolicy,
    ) -> Result<Self, OpenError> {
        let path_buf = || path.to_owned();
        let map = bootstrap_file::map(path).map_err(|source| OpenError::File { path: path_buf(), source })?;
        let bootstrap =
            Bootstrap::open(map).map_err(|source| OpenError::Format { path: path_buf(), source })?;
        let blobs = BlobSet::open(&bootstrap, cache, backend, policy)
            .map_err(|source| OpenError::Blobs { path: path_buf(), source })?;
        Ok(Self { bootstrap, blobs })
    }

    /// The root directory.
    pub fn root(&self) -> Nid {
        self.bootstrap.root()
    }

    /// Facts of the whole image.
    pub fn summary(&self) -> &Summary {
        self.bootstrap.summary()
    }

    /// Figures of its reads.
    pub fn reads(&self) -> BlobReads {
        self.blobs.reads()
    }

    /// What is remembered of its reads, and what became of its chunks.
    pub fn stories(&self) -> Stories<'_> {
        self.blobs.stories()
    }

    /// Its blobs' ids and sizes, in table order.
    pub fn blobs(&self) -> &[rafs::Blob] {
        self.bootstrap.blobs()
    }

    /// Whether there is a blob of this index.
    pub fn has_blob(&self, blob: BlobIndex) -> bool {
        usize::from(blob.0) < self.blobs().len()
    }

    /// Length of a blob's uncompressed image in bytes: whole blocks, as the kernel reads it.
    pub fn blob_len(&self, blob: BlobIndex) -> u64 {
        let blob = self.blobs().get(usize::from(blob.0));
        blob.map_or(0, |blob| blob.uncompressed_size.next_multiple_of(rafs::BLOCK_SIZE))
    }

    /// Checks all that can be reached in the image, for a kernel that reads it by itself.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn check_all(&self) -> Result<(), FsError> {
        Ok(self.bootstrap.check_all()?)
    }

    /// Attributes of an inode.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn attributes(&self, nid: Nid) -> Result<Attributes, FsError> {
        Ok(self.bootstrap.attributes(nid)?)
    }

    /// Looks up one name; `None` where there is no such name.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn lookup(&self, directory: Nid, name: &[u8]) -> Result<Option<Attributes>, FsError> {
        match self.bootstrap.lookup(directory, name)? {
            Some((nid, _)) => Ok(Some(self.bootstrap.attributes(nid)?)),
            None => Ok(None),
        }
    }

    /// Entries of a directory from `cookie` on, `.` and `..` included.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn read_dir(
        &self,
        directory: Nid,
        cookie: u64,
    ) -> Result<impl Iterator<Item = Result<DirEntry<'_>, FormatError>>, FsError> {
        Ok(self.bootstrap.read_dir(directory, cookie)?)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn link_target(&self, nid: Nid) -> Result<Vec<u8>, FsError> {
        Ok(self.bootstrap.link_target(nid)?)
    }

    /// All extended attributes of an inode.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn xattrs(&self, nid: Nid) -> Result<Xattrs<'_>, FsError> {
        Ok(self.bootstrap.xattrs(nid)?)
    }

    /// Value of one extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`] where the inode does not have it.
    pub fn xattr(&self, nid: Nid, name: &[u8]) -> Result<&[u8], FsError> {
        self.bootstrap.xattr(nid, name)?.ok_or(FsError::NoAttribute)
    }

    /// Where the bytes of a file stand that `len` bytes from `offset` on cover, cut at the end of the file.
    ///
    /// # Errors
    /// [`FsError::Format`].
    pub fn plan(&self, nid: Nid, offset: u64, len: u64) -> Result<Vec<Span>, FsError> {
        let mut spans: Vec<Span> = Vec::new();
        for extent in self.bootstrap.extents(nid, offset, len)? {
            if let Some(last) = spans.last_mut()
                && last.blob == extent.blob
                && last.offset + u64::from(last.len) == extent.offset
                && let Some(len) = last.len.checked_add(extent.len)
            {
                last.len = len;
                continue;
            }
            spans.push(Span { blob: extent.blob, offset: extent.offset, len: extent.len });
        }
        Ok(spans)
    }

    /// Where the bytes of a blob stand that `len` bytes from `offset` on cover, cut at its end.
    pub fn plan_blob(&self, blob: BlobIndex, offset: u64, len: u32) -> Option<Span> {
        let left = self.blob_len(blob).saturating_sub(offset);
        let len = u32::try_from(left).map_or(len, |left| left.min(len));
        (len > 0).then_some(Span { blob, offset, len })
    }

    /// Fills `buf` with the bytes of `spans`, if all of them are in the cache; `buf` is as long as they are.
    ///
    /// # Errors
    /// [`FsError::Storage`].
    pub fn try_read(&self, spans: &[Span], mut buf: &mut [u8]) -> Result<bool, FsError> {
        for span in spans {
            let (part, rest) = buf.split_at_mut(span.len as usize);
            if !self.blobs.try_read(span.blob, span.offset, part)? {
                return Ok(false);
            }
            buf = rest;
        }
        Ok(true)
    }

    /// The bytes of `spans`, fetched where they are missing.
    ///
    /// # Errors
    /// [`FsError::Storage`], within the policy's deadline.
    pub async fn read(&self, spans: &[Span]) -> Result<Bytes, FsError> {
        let reads = spans.iter().map(|span| Arc::clone(&self.blobs).read(span.blob, span.offset, span.len));
        let mut parts = try_join_all(reads).await?;
        if parts.len() == 1 {
            return Ok(parts.swap_remove(0));
        }
        let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(whole.freeze())
    }

    /// Inodes that the image wants fetched ahead of use.
    pub fn prefetch_table(&self) -> Vec<Nid> {
        self.bootstrap.prefetch()
    }

    /// Fetches ranges of blobs in the background.
    pub fn prefetch(&self, ranges: Vec<(BlobIndex, Range<u64>)>) {
        self.blobs.prefetch(ranges);
    }

    /// Fails waiting reads and makes the cache durable.
    pub async fn close(&self) {
        self.blobs.close().await;
    }
}
