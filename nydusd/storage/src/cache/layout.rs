//! What a cache knows of its chunks: kept beside the chunk map, so that a ready bit always says what it is a bit of.
//!
//! ```text
//! magic 8 | version 4 | algorithm 4 | chunks of the blob 4 | records 4 | id, zero-padded 64 | records, 56 each | BLAKE3 32
//! record: digest 32 | compressed offset 8 | compressed size 4 | size 4 | block 4 | number and compressed bit 4
//! ```

use std::sync::Arc;

use rafs::{BlobId, Digest, DigestAlgorithm};

use crate::chunks::Entry;

const MAGIC: &[u8; 8] = b"SHOALCHK";
const VERSION: u32 = 1;
const HEADER: usize = 24 + BlobId::MAX_LEN;
const RECORD: usize = 56;
const CHECKSUM: usize = 32;

/// What a cache is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: BlobId,
    /// Number of chunks in the blob.
    pub(crate) count: u32,
    pub(crate) algorithm: DigestAlgorithm,
}

/// Whether an image may share a cache.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// Everything it knows is known.
    Contained,
    /// It adds chunks; these are all now.
    Grown(Vec<Entry>),
    /// It tells otherwise of a chunk, or of its place.
    Differs,
}

/// Compares what is known of a blob with what an image says of it.
pub(crate) fn agree(known: &[Entry], image: &[Entry]) -> Agreement {
    let mut union = Vec::with_capacity(known.len().max(image.len()));
    let (mut a, mut b) = (known.iter().peekable(), image.iter().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x.number() == y.number() => {
                if x != y {
                    return Agreement::Differs;
                }
                b.next();
                a.next()
            }
            (Some(x), Some(y)) if x.number() < y.number() => a.next(),
            (Some(_), None) => a.next(),
            (_, Some(_)) => b.next(),
            (None, None) => break,
        };
        let next = next.expect("peeked");
        if union.last().is_some_and(|last: &Entry| !last.precedes(next)) {
            return Agreement::Differs;
        }
        union.push(*next);
    }
    if union.len() == known.len() { Agreement::Contained } else { Agreement::Grown(union) }
}

/// The file's bytes.
pub(crate) fn encode(subject: &Subject, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + entries.len() * RECORD + CHECKSUM);
    let records = u32::try_from(entries.len()).expect("at most 2^24 chunks");
    encode_subject(&mut out, MAGIC, subject, records);
    for entry in entries {
        out.extend_from_slice(&entry.digest.0);
        out.extend_from_slice(&entry.compressed_offset.to_le_bytes());
        for field in [entry.compressed_size, entry.size, entry.block, entry.tagged_number] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }
    out.extend_from_slice(&DigestAlgorithm::Blake3.digest(&out).0);
    out
}

/// The part that the files of a cache begin with.
pub(crate) fn encode_subject(out: &mut Vec<u8>, magic: &[u8; 8], subject: &Subject, extra: u32) {
    let algorithm = match subject.algorithm {
        DigestAlgorithm::Blake3 => 1_u32,
        DigestAlgorithm::Sha256 => 2,
    };
    out.extend_from_slice(magic);
    for field in [VERSION, algorithm, subject.count, extra] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    let mut id = [0; BlobId::MAX_LEN];
    id[..subject.id.as_str().len()].copy_from_slice(subject.id.as_str().as_bytes());
    out.extend_from_slice(&id);
}

/// Length of the longest file that can be right, in bytes.
pub(crate) fn max_len(subject: &Subject) -> u64 {
    HEADER as u64 + u64::from(subject.count) * RECORD as u64 + CHECKSUM as u64
}

/// The records of a file, `None` where it is broken or of something else.
pub(crate) fn decode(subject: &Subject, bytes: &[u8]) -> Option<Arc<[Entry]>> {
    let body = bytes.len().checked_sub(CHECKSUM)?;
    let (body, checksum) = bytes.split_at(body);
    let records = body.get(HEADER..)?;
    let mut header = Vec::with_capacity(HEADER);
    encode_subject(&mut header, MAGIC, subject, u32::try_from(records.len() / RECORD).ok()?);
    let whole = records.len().is_multiple_of(RECORD) && body.starts_with(&header);
    if !whole || DigestAlgorithm::Blake3.digest(body).0 != *checksum {
        return None;
    }
    let entries: Arc<[Entry]> = records.chunks_exact(RECORD).map(decode_record).collect();
    let ordered = entries.windows(2).all(|pair| pair[0].precedes(&pair[1]));
    let sound = entries.iter().all(|e| e.is_sound() && e.number() < subject.count);
    (ordered && sound).then_some(entries)
}

fn decode_record(record: &[u8]) -> Entry {
    let (digest, rest) = record.split_first_chunk::<32>().expect("records have 56 bytes");
    let (offset, rest) = rest.split_first_chunk::<8>().expect("records have 56 bytes");
    let field = |n: usize| u32::from_le_bytes(rest[n * 4..n * 4 + 4].try_into().expect("four bytes"));
    Entry {
        digest: Digest(*digest),
        compressed_offset: u64::from_le_bytes(*offset),
        compressed_size: field(0),
        size: field(1),
        block: field(2),
        tagged_number: field(3),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{chunks::ChunkTable, testing::TestBlob};

    fn sample() -> (Subject, Arc<[Entry]>) {
        let blob = TestBlob::new(3, &[5000, 10, 4096, 70_000]).blob;
        let table = ChunkTable::new(&blob).unwrap();
        (Subject { id: blob.id, count: table.count, algorithm: table.algorithm }, table.entries)
    }

    #[test]
    fn a_layout_reads_back_and_only_for_its_own_blob() {
        let (subject, entries) = sample();
        let bytes = encode(&subject, &entries);
        assert_eq!(decode(&subject, &bytes).unwrap(), entries);
        assert!(decode(&Subject { count: 5, ..subject.clone() }, &bytes).is_none());
        assert!(decode(&Subject { id: BlobId::new("other").unwrap(), ..subject }, &bytes).is_none());
    }

    #[test]
    fn an_image_that_knows_other_chunks_adds_them() {
        let (_, entries) = sample();
        assert_eq!(agree(&entries, &entries[1..3]), Agreement::Contained);
        assert_eq!(agree(&entries[..2], &entries[1..]), Agreement::Grown(entries.to_vec()));
        assert_eq!(agree(&[], &[]), Agreement::Contained);
    }

    #[test]
    fn an_image_that_tells_otherwise_of_a_chunk_differs() {
        let (_, entries) = sample();
        let changes: [fn(&mut Entry); 4] =
            [|e| e.digest.0[0] ^= 1, |e| e.block -= 1, |e| e.size -= 1, |e| e.compressed_offset += 1];
        for change in changes {
            let mut other = entries.to_vec();
            change(&mut other[3]);
            assert_eq!(agree(&entries, &other), Agreement::Differs);
        }
    }

    #[test]
    fn a_chunk_over_the_bytes_of_another_differs() {
        let (_, entries) = sample();
        let mut stray = entries[1];
        stray.block = entries[0].block;
        assert_eq!(agree(&entries[..1], &[stray]), Agreement::Differs);
    }

    proptest! {
        #[test]
        fn a_flipped_layout_is_refused(at in 0usize..400, bit in 0u8..8) {
            let (subject, entries) = sample();
            let mut bytes = encode(&subject, &entries);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&subject, &bytes).is_none());
        }
    }
}
