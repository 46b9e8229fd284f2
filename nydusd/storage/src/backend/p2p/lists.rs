//! What the piece network checks a blob by: the list of pieces that stands beside the image's bootstrap, or else one of
//! the chunks that the bootstrap names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use p2p_pieces::{ChunkList, ChunkListError, Codec, ListedChunk};
use rafs::{BlobId, BlobIndex, Bootstrap, Chunk, Compressor, FormatError, blob::feature};

/// Largest list of pieces.
const LARGEST_LIST: u64 = 64 << 20;

/// Where the lists of an image come from.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    bootstrap: PathBuf,
}

/// What a blob can be checked by.
#[derive(Debug)]
pub(super) enum List {
    /// Its pieces are listed.
    Pieces(Vec<u8>),
    /// Its chunks are.
    Chunks(Vec<u8>),
    /// Only its reader can check parts of it, or nobody; this is why.
    Nothing(Unlisted),
}

/// Why the chunks of a blob cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unlisted {
    #[error("the bootstrap cannot be read")]
    Read(#[source] io::Error),
    #[error("the bootstrap is unsound")]
    Format(#[from] FormatError),
    #[error("the bootstrap does not name the blob")]
    Absent,
    #[error("its small chunks are compressed together")]
    Batch,
    #[error("its chunks cannot be listed")]
    Chunks(#[from] ChunkListError),
}

impl Lists {
    /// The lists of the image whose bootstrap is this file.
    pub(super) fn of(bootstrap: &Path) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    /// The list of a blob. Reads files, and the bootstrap whole where there is no list of pieces.
    ///
    /// # Errors
    /// [`io::Error`] where a list of pieces is there and cannot be read.
    pub(super) fn list(&self, blob: &BlobId) -> io::Result<List> {
        let file = self.bootstrap.with_file_name(format!("{blob}.pieces"));
        match read_pieces(&file) {
            Ok(list) => Ok(List::Pieces(list)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.chunks(blob)),
            Err(error) => Err(error),
        }
    }

    fn chunks(&self, blob: &BlobId) -> List {
        let bytes = fs::read(&self.bootstrap).map_err(Unlisted::Read);
        match bytes.and_then(|bytes| chunks_of(&bytes, blob)) {
            Ok(list) => List::Chunks(list.encode()),
            Err(why) => List::Nothing(why),
        }
    }
}

fn read_pieces(file: &Path) -> io::Result<Vec<u8>> {
    let len = fs::metadata(file)?.len();
    if len > LARGEST_LIST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{len} bytes")));
    }
    fs::read(file)
}

/// The chunks of `blob` that a bootstrap names, as they lie in it. A blob may have others, which this image does not use.
fn chunks_of(bootstrap: &[u8], blob: &BlobId) -> Result<ChunkList, Unlisted> {
    let image = Bootstrap::open(bootstrap)?;
    let found = (0..=u8::MAX).map(BlobIndex).zip(image.blobs()).find(|(_, found)| found.id == *blob);
    let (index, found) = found.ok_or(Unlisted::Absent)?;
    if found.features & feature::BATCH != 0 {
        return Err(Unlisted::Batch);
    }
    let codec = Codec { compressor: found.compressor, digest: found.digest_algorithm };
    let records = image.chunk_records().filter_map(|record| match record {
        Ok((of, _, chunk)) => (of == index).then(|| Ok(listed(&chunk, found.compressor))),
        Err(error) => Some(Err(error)),
    });
    // One more than may be is refused, and no more are kept.
    let mut chunks: Vec<_> = records.take(ChunkList::MOST + 1).collect::<Result<_, _>>()?;
    chunks.sort_by_key(|chunk: &ListedChunk| chunk.offset);
    // Some builders number one chunk several times.
    chunks.dedup();
    Ok(ChunkList::new(codec, chunks)?)
}

fn listed(chunk: &Chunk, compressor: Compressor) -> ListedChunk {
    ListedChunk {
        offset: chunk.compressed_offset,
        stored: chunk.compressed_size,
        plain: chunk.uncompressed_size,
        is_compressed: chunk.is_compressed && compressor != Compressor::None,
        digest: chunk.digest,
    }
}

#[cfg(test)]
pub(super) mod tests;
