use proptest::prelude::*;
use rafs::Encoder;

use super::*;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

fn codec(compressor: Compressor) -> Codec {
    Codec { compressor, digest: DigestAlgorithm::Blake3 }
}

/// A chunk that is stored as it is.
fn raw(offset: u64, len: u32) -> ListedChunk {
    ListedChunk { offset, stored: len, plain: len, is_compressed: false, digest: Digest([1; 32]) }
}

/// A blob of these chunks, and their list.
fn blob(codec: Codec, chunks: &[&[u8]], gap: usize) -> (Vec<u8>, ChunkList) {
    let (mut bytes, mut listed) = (Vec::new(), Vec::new());
    let mut encoder = Encoder::new(codec.compressor).unwrap();
    for (number, chunk) in chunks.iter().enumerate() {
        if number > 0 {
            bytes.extend(std::iter::repeat_n(0xee, gap));
        }
        let encoded = encoder.encode(chunk);
        let stored = encoded.unwrap_or(chunk);
        listed.push(ListedChunk {
            offset: bytes.len() as u64,
            stored: u32::try_from(stored.len()).unwrap(),
            plain: u32::try_from(chunk.len()).unwrap(),
            is_compressed: encoded.is_some(),
            digest: codec.digest.digest(chunk),
        });
        bytes.extend_from_slice(stored);
    }
    (bytes, ChunkList::new(codec, listed).unwrap())
}

fn part<'a>(list: &ChunkList, bytes: &'a [u8], piece: PieceIndex) -> &'a [u8] {
    let place = list.layout().range(piece);
    &bytes[usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap()]
}

fn places(chunks: &[ListedChunk]) -> Vec<Range<u64>> {
    cut::places(chunks)
}

#[test]
fn a_piece_is_good_when_every_chunk_in_it_has_its_digest_and_not_otherwise() {
    let text = b"shoal ".repeat(9000);
    let noise: Vec<u8> = (0..70_000_u32).flat_map(|at| at.wrapping_mul(at).to_le_bytes()).collect();
    let chunks: [&[u8]; 4] = [&text, &noise, &text[..100], &[0; 5000]];
    for compressor in [Compressor::None, Compressor::Lz4Block, Compressor::Zstd] {
        for digest in [DigestAlgorithm::Blake3, DigestAlgorithm::Sha256] {
            let (bytes, list) = blob(Codec { compressor, digest }, &chunks, 0);
            let piece = list.layout().piece(0).unwrap();
            assert_eq!(list.layout().count().get(), 1, "{compressor}");
            assert!(list.vouches_for(piece, &bytes), "{compressor}");
            assert!(!list.vouches_for(piece, &bytes[1..]) && !list.vouches_for(piece, &[]));
            for at in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                assert!(!list.vouches_for(piece, &flipped), "{compressor} {digest} {at}");
            }
        }
    }
}

#[test]
fn pieces_are_whole_chunks_up_to_about_the_usual_size() {
    let chunks: Vec<_> = (0..10).map(|number| raw(number * 300 * u64::from(KIB), 300 * KIB)).collect();
    let group = 3 * 300 * u64::from(KIB);
    assert_eq!(
        places(&chunks),
        [0..group, group..2 * group, 2 * group..3 * group, 3 * group..3 * group + group / 3]
    );
    let large = [raw(0, 10), raw(10, 5 * MIB), raw(10 + 5 * u64::from(MIB), 10)];
    let end = 10 + 5 * u64::from(MIB);
    assert_eq!(places(&large), [0..10, 10..end, end..end + 10], "a large chunk is a piece by itself");
    let full = [raw(0, MIB - 1), raw(u64::from(MIB) - 1, 1), raw(u64::from(MIB), 1)];
    assert_eq!(places(&full), [0..u64::from(MIB), u64::from(MIB)..u64::from(MIB) + 1]);
}

#[test]
fn what_lies_between_chunks_is_in_a_piece_only_where_it_fills_a_block() {
    let (near, far) = ([raw(0, 10), raw(4096, 10)], [raw(0, 10), raw(4106, 10)]);
    assert_eq!(places(&near), [Range { start: 0, end: 4106 }]);
    assert_eq!(places(&far), [0..10, 4106..4116]);
}

#[test]
fn no_piece_is_unpacked_to_much_more_than_it_may_be() {
    let small = |number: u64| ListedChunk { plain: 12 * MIB, is_compressed: true, ..raw(number * 500, 500) };
    let chunks: Vec<_> = (0..5).map(small).collect();
    assert_eq!(places(&chunks), [0..1000, 1000..2000, 2000..2500]);
}

#[test]
fn what_lies_between_chunks_is_kept_as_zeros() {
    let (bytes, list) = blob(codec(Compressor::None), &[&[1; 100], &[2; 100]], 30);
    let piece = list.layout().piece(0).unwrap();
    let clean = list.without_gaps(piece, &bytes).unwrap();
    assert_eq!(clean, [&[1; 100][..], &[0; 30], &[2; 100]].concat());
    assert!(list.vouches_for(piece, &clean));
    assert_eq!(list.without_gaps(piece, &clean), None);
    assert_eq!(
        list.without_gaps(piece, &bytes[..50]),
        None,
        "a piece that is short is not cleaned but refused"
    );
}

#[test]
fn the_bytes_of_a_list_are_fixed() {
    let (_, list) = blob(codec(Compressor::Zstd), &[b"abc"], 0);
    let digest = blake3::hash(b"abc");
    let header = b"SHOALCHK\x01\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0";
    let record = b"\0\0\0\0\0\0\0\0\x03\0\0\0\x03\0\0\0";
    assert_eq!(list.encode(), [&header[..], record, digest.as_bytes()].concat());
    assert_eq!(list.digest(), blake3::hash(&list.encode()).as_bytes());
}

#[test]
fn hostile_chunks_are_refused_by_their_place() {
    let compressed = |plain| ListedChunk { plain, is_compressed: true, ..raw(10, 10) };
    let cases: [(&[ListedChunk], usize, &str); 9] = [
        (&[raw(10, 10), raw(0, 10)], 1, "before the end"),
        (&[raw(0, 10), raw(9, 10)], 1, "before the end"),
        (&[raw(0, 10), raw(0, 10)], 1, "before the end"),
        (&[raw(0, 10), raw(u64::MAX - 5, 10)], 1, "beyond the end"),
        (&[raw(0, 0)], 0, "empty"),
        (&[raw(0, 16 * MIB + 1)], 0, "larger"),
        (&[raw(0, 10), compressed(16 * MIB + 1)], 1, "larger"),
        (&[raw(0, 10), compressed(0)], 1, "empty"),
        (&[ListedChunk { plain: 11, ..raw(0, 10) }], 0, "another length"),
    ];
    for (chunks, place, words) in cases {
        let error = ChunkList::new(codec(Compressor::Zstd), chunks.to_vec()).unwrap_err();
        assert!(matches!(error, ChunkListError::Chunk { number, .. } if number == place), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let nothing = ChunkList::new(codec(Compressor::None), vec![compressed(10)]).unwrap_err();
    assert!(nothing.to_string().contains("compressed by nothing"), "{nothing}");
    assert_eq!(ChunkList::new(codec(Compressor::Zstd), vec![]), Err(ChunkListError::Count(0)));
    let many = (0..=ChunkList::MOST as u64).map(|at| raw(at, 1)).collect();
    assert_eq!(
        ChunkList::new(codec(Compressor::Zstd), many),
        Err(ChunkListError::Count(ChunkList::MOST + 1))
    );
    let gzip = ChunkList::new(codec(Compressor::Gzip), vec![raw(0, 1)]);
    assert!(matches!(gzip, Err(ChunkListError::Codec { .. })));
}

#[test]
fn foreign_and_hostile_bytes_are_told_apart() {
    let bytes = ChunkList::new(codec(Compressor::Zstd), vec![raw(0, 10), raw(10, 10)]).unwrap().encode();
    let changed = |at: usize, byte: u8| {
        let mut changed = bytes.clone();
        changed[at] = byte;
        ChunkList::decode(&changed)
    };
    assert_eq!(ChunkList::decode(&bytes[..31]), Err(ChunkListError::Foreign));
    assert_eq!(changed(0, b'X'), Err(ChunkListError::Foreign));
    assert_eq!(changed(31, 1), Err(ChunkListError::Foreign));
    assert_eq!(changed(8, 2), Err(ChunkListError::Version(2)));
    assert_eq!(changed(12, 3), Err(ChunkListError::Codec { what: "compressor", number: 3 }));
    assert_eq!(changed(15, 1), Err(ChunkListError::Codec { what: "digest", number: 256 }));
    assert!(
        matches!(changed(16, 19), Err(ChunkListError::Chunk { number: 1, .. })),
        "a blob that ends before"
    );
    assert!(
        matches!(changed(27, 0xff), Err(ChunkListError::Length { .. })),
        "a count that the bytes are not of"
    );
    assert!(matches!(changed(HEADER + RECORD, 9), Err(ChunkListError::Chunk { number: 1, offset: 9, .. })));
    assert!(matches!(ChunkList::decode(&bytes[..bytes.len() - 1]), Err(ChunkListError::Length { .. })));
}

#[test]
fn a_chunk_that_unpacks_to_more_or_less_than_listed_is_wrong() {
    let zeros = vec![0; 16 << 20];
    let stored = Encoder::new(Compressor::Zstd).unwrap().encode(&zeros).unwrap().to_vec();
    for plain in [100, 8 * MIB, 16 * MIB - 1] {
        let chunk = ListedChunk {
            plain,
            is_compressed: true,
            digest: DigestAlgorithm::Blake3.digest(&zeros[..plain as usize]),
            ..raw(0, u32::try_from(stored.len()).unwrap())
        };
        let list = ChunkList::new(codec(Compressor::Zstd), vec![chunk]).unwrap();
        assert!(!list.vouches_for(list.layout().piece(0).unwrap(), &stored), "{plain}");
    }
}

proptest! {
    #[test]
    fn pieces_are_of_whole_chunks_in_order_and_hold_every_one(
        sizes in prop::collection::vec((1_u32..2 * MIB, 0_u64..9000), 1..60),
    ) {
        let mut free = 0;
        let chunks: Vec<_> = sizes.iter().map(|(len, gap)| {
            let chunk = raw(free + gap, *len);
            free = chunk.place().end;
            chunk
        }).collect();
        let list = ChunkList::new(codec(Compressor::None), chunks.clone()).unwrap();
        let layout = list.layout();
        let held: Vec<_> = layout.pieces().flat_map(|piece| {
            let place = layout.range(piece);
            let within = list.within(&place).map(|(chunk, _)| *chunk).collect::<Vec<_>>();
            assert!(place.start == within[0].offset && place.end == within[within.len() - 1].place().end);
            assert!(within.len() == 1 || place.end - place.start <= u64::from(MIB));
            within
        }).collect();
        prop_assert_eq!(held, chunks);
        prop_assert_eq!(ChunkList::decode(&list.encode()).unwrap(), list);
    }

    #[test]
    fn what_is_decoded_is_encoded_to_the_same_bytes(
        header in prop::collection::vec(0_u8..3, 20), records in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = [MAGIC.as_slice(), &1_u32.to_le_bytes(), &header].concat();
        bytes.extend(&records);
        if let Ok(list) = ChunkList::decode(&bytes) {
            prop_assert_eq!(list.encode(), bytes);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_list_is_another_list_or_none(at in 0_usize..HEADER + 3 * RECORD, bit in 0..8) {
        let (_, list) = blob(codec(Compressor::Zstd), &[&[1; 100], &[2; 5000], b"abc"], 10);
        let mut bytes = list.encode();
        bytes[at] ^= 1_u8 << bit;
        if let Ok(other) = ChunkList::decode(&bytes) {
            prop_assert_ne!(other.digest(), list.digest());
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}

#[test]
fn each_piece_of_a_large_blob_is_checked_by_its_own_chunks() {
    let chunks: Vec<Vec<u8>> =
        (0..8_u32).map(|seed| (0..MIB / 8).flat_map(|at| (at ^ seed << 9).to_le_bytes()).collect()).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let (bytes, list) = blob(codec(Compressor::None), &chunks, 0);
    let pieces: Vec<_> = list.layout().pieces().collect();
    assert_eq!(pieces.len(), 4);
    for piece in &pieces {
        assert!(list.vouches_for(*piece, part(&list, &bytes, *piece)));
        assert!(
            pieces
                .iter()
                .all(|other| other == piece || !list.vouches_for(*other, part(&list, &bytes, *piece)))
        );
    }
}
