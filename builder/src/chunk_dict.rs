//! Chunks of images that are there already, for layers to use instead of storing their own.

use std::collections::HashMap;

use rafs::{Blob, BlobId, BlobIndex, ChunkRef, Tree, blob::feature};

use crate::pipeline::{ChunkKey, Known, Place};

/// Blobs of other images, and where each content stands in them.
#[derive(Debug, Clone, Default)]
pub struct ChunkDict {
    blobs: Vec<Blob>,
    places: HashMap<ChunkKey, ChunkRef>,
}

impl ChunkDict {
    /// Takes up the chunks of an image. Of equal ones the first taken up counts.
    pub fn add(&mut self, image: &Tree) {
        for blob in image.blobs.iter().filter(|blob| can_be_named(blob)) {
            let known = self.blobs.iter().position(|known| known.id == blob.id);
            let index = known.unwrap_or(self.blobs.len());
            let Ok(index) = u8::try_from(index).map(BlobIndex) else { return };
            if known.is_none() {
                self.blobs.push(blob.clone());
            }
            for (number, chunk) in blob.chunks.iter() {
                let place = ChunkRef { blob: index, chunk: number };
                self.places.entry((chunk.digest, chunk.uncompressed_size)).or_insert(place);
            }
        }
    }

    /// Its blobs, in the order of their indexes.
    #[must_use]
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Whether a blob is one of these.
    #[must_use]
    pub fn has(&self, id: &BlobId) -> bool {
        self.blobs.iter().any(|blob| blob.id == *id)
    }

    /// What a pipeline need not store.
    pub(crate) fn known(&self) -> Known {
        let known = Known::default();
        for (key, place) in &self.places {
            known.insert(*key, Place::Dict(*place));
        }
        known
    }
}

/// Whether a bootstrap of ours may name the blob.
fn can_be_named(blob: &Blob) -> bool {
    blob.features & (feature::TARFS | feature::ENCRYPTED | feature::SEPARATE) == 0
}
