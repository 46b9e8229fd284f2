//! Compressors of chunks. A chunk is one zstd frame or one raw lz4 block; its uncompressed length is always known.

use std::fmt;

use crate::FormatError;

/// How the bytes of a chunk or of a table are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compressor {
    /// As they are.
    None,
    /// One lz4 block without any frame.
    Lz4Block,
    /// Gzip, only as a random-access window over an OCI layer; never written.
    Gzip,
    /// One zstd frame.
    #[default]
    Zstd,
}

impl Compressor {
    /// The name that Nydus tools use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4Block => "lz4_block",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Most bytes that `stored` ones can decompress to: a zstd block of one repeated byte takes 4 bytes for 128 KiB, and
    /// a byte of an lz4 match's length stands for 255.
    const fn most(self, stored: usize) -> usize {
        match self {
            Self::None => stored,
            Self::Lz4Block => stored.saturating_mul(255),
            Self::Gzip => stored.saturating_mul(1032),
            Self::Zstd => stored.saturating_mul(1 << 15),
        }
    }
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Compresses chunk after chunk, keeping the compressor's state between them.
pub struct Encoder {
    compressor: Compressor,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("compressor", &self.compressor).finish_non_exhaustive()
    }
}

impl Encoder {
    /// zstd level of the original tools; Shoal's ratio is compared with theirs.
    const ZSTD_LEVEL: i32 = 3;

    /// An encoder.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for gzip, which is only ever read.
    pub fn new(compressor: Compressor) -> Result<Self, FormatError> {
        let zstd = match compressor {
            Compressor::Gzip => {
                return Err(FormatError::Unsupported { what: "writing gzip chunks", bits: 0 });
            }
            Compressor::Zstd => {
                Some(zstd::bulk::Compressor::new(Self::ZSTD_LEVEL).expect("zstd allocates a context"))
            }
            Compressor::None | Compressor::Lz4Block => None,
        };
        Ok(Self { compressor, zstd, out: Vec::new() })
    }

    /// Compressed form of `chunk`, or `None` where that is not smaller and the chunk is to be stored raw.
    pub fn encode(&mut self, chunk: &[u8]) -> Option<&[u8]> {
        let len = match (&mut self.zstd, self.compressor) {
            (Some(zstd), _) => {
                self.out.resize(zstd::zstd_safe::compress_bound(chunk.len()), 0);
                zstd.compress_to_buffer(chunk, self.out.as_mut_slice()).ok()?
            }
            (None, Compressor::Lz4Block) => {
                self.out.resize(lz4_flex::block::get_maximum_output_size(chunk.len()), 0);
                lz4_flex::block::compress_into(chunk, &mut self.out).ok()?
            }
            (None, _) => return None,
        };
        (len < chunk.len()).then_some(&self.out[..len])
    }
}

/// Decompresses chunk after chunk, keeping the decompressor's state between them.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { zstd: zstd::bulk::Decompressor::new().expect("zstd allocates a context") }
    }
}

impl Decoder {
    /// Decompresses `from` into `len` new bytes, which are only allocated where so few stored bytes can give so many.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_new(
        &mut self,
        compressor: Compressor,
        from: &[u8],
        len: usize,
    ) -> Result<Vec<u8>, FormatError> {
        if len > compressor.most(from.len()) {
            return Err(FormatError::Decode { compressor: compressor.name(), expected: len });
        }
        let mut to = vec![0; len];
        self.decode(compressor, from, &mut to)?;
        Ok(to)
    }

    /// Decompresses `from` into exactly `to`.
    ///
    /// # Errors
    /// [`FormatError::Decode`] where the bytes are not valid or give another length than `to` has;
    /// [`FormatError::Unsupported`] for gzip, whose windows span chunks.
    pub fn decode(&mut self, compressor: Compressor, from: &[u8], to: &mut [u8]) -> Result<(), FormatError> {
        let got = match compressor {
            Compressor::None if from.len() == to.len() => {
                to.copy_from_slice(from);
                Some(from.len())
            }
            Compressor::None => None,
            Compressor::Lz4Block => lz4_flex::block::decompress_into(from, to).ok(),
            Compressor::Zstd => self.zstd.decompress_to_buffer(from, to).ok(),
            Compressor::Gzip => return Err(FormatError::Unsupported { what: "gzip chunk", bits: 0 }),
        };
        match got {
            Some(len) if len == to.len() => Ok(()),
            _ => Err(FormatError::Decode { compressor: compressor.name(), expected: to.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes() {
        let chunk = b"shoal ".repeat(5000);
        for compressor in [Compressor::Zstd, Compressor::Lz4Block] {
            let stored = Encoder::new(compressor).unwrap().encode(&chunk).unwrap().to_vec();
            let mut back = vec![0; chunk.len()];
            Decoder::default().decode(compressor, &stored, &mut back).unwrap();
            assert_eq!(back, chunk);
            assert!(Decoder::default().decode(compressor, &stored[1..], &mut back).is_err());
            assert!(Decoder::default().decode(compressor, &stored, &mut vec![0; chunk.len() + 1]).is_err());
        }
    }

    #[test]
    fn the_most_compressible_bytes_still_decode_and_a_claim_beyond_them_is_refused() {
        let zeros = vec![0; 16 << 20];
        for compressor in [Compressor::Zstd, Compressor::Lz4Block] {
            let stored = Encoder::new(compressor).unwrap().encode(&zeros).unwrap().to_vec();
            let back = Decoder::default().decode_new(compressor, &stored, zeros.len()).unwrap();
            assert!(back == zeros);
            assert!(Decoder::default().decode_new(compressor, &stored, usize::MAX).is_err());
        }
    }

    #[test]
    fn a_chunk_that_does_not_shrink_is_stored_raw() {
        assert!(Encoder::new(Compressor::Zstd).unwrap().encode(&[7]).is_none());
        assert!(Encoder::new(Compressor::None).unwrap().encode(&[7; 100]).is_none());
    }
}
