use super::*;

/// A header made by hand, so that every oddity can be.
fn header(name: &str, kind: u8, size: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..name.len()].copy_from_slice(name.as_bytes());
    record[100..108].copy_from_slice(b"0000755\0");
    record[108..116].copy_from_slice(b"0000001\0");
    record[116..124].copy_from_slice(b"0000002\0");
    record[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    record[136..148].copy_from_slice(b"00000000017\0");
    record[156] = kind;
    record[257..263].copy_from_slice(b"ustar\0");
    record[263..265].copy_from_slice(b"00");
    seal(record)
}

fn seal(mut record: [u8; RECORD]) -> [u8; RECORD] {
    record[148..156].fill(b' ');
    let sum: u32 = record.iter().map(|b| u32::from(*b)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

fn content(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(RECORD), 0);
    padded
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let len =
            (1..).find(|digits| (body.len() + digits).to_string().len() == *digits).unwrap() + body.len();
        text.extend_from_slice(len.to_string().as_bytes());
        text.extend_from_slice(&body);
    }
    [header("pax", b'x', text.len() as u64).to_vec(), content(&text)].concat()
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    [header(name, b'0', bytes.len() as u64).to_vec(), content(bytes)].concat()
}

/// Every entry with its content, or the first error.
fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, BuildError> {
    let mut source = TarSource::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = source.next_entry()? {
        let size = if let EntryKind::File(size) = entry.kind { size } else { 0 };
        let mut content = vec![0xee; usize::try_from(size).unwrap()];
        source.read_content(&mut content)?;
        all.push((entry, content));
    }
    Ok(all)
}

fn one(bytes: &[u8]) -> (Entry, Vec<u8>) {
    read(bytes).unwrap().pop().unwrap()
}

#[test]
fn a_plain_entry_has_its_attributes_and_content() {
    let (entry, content) = one(&file("a/b", b"hello"));
    assert_eq!((entry.path.as_slice(), content.as_slice()), (&b"a/b"[..], &b"hello"[..]));
    let meta = entry.meta;
    assert_eq!((meta.permissions, meta.uid, meta.gid, meta.mtime), (0o755, 1, 2, 15));
}

#[test]
fn long_names_of_both_kinds_replace_the_short_ones() {
    let long = "d/".repeat(150) + "end";
    let name = long.clone() + "\0";
    let gnu = [header("././@LongLink", b'L', name.len() as u64).to_vec(), content(name.as_bytes())].concat();
    assert_eq!(one(&[gnu, file("short", b"")].concat()).0.path, long.as_bytes());
    let link = pax(&[("path", long.as_bytes()), ("linkpath", b"t\xff")]);
    let (entry, _) = one(&[link, header("short", b'2', 0).to_vec()].concat());
    assert_eq!((entry.path.as_slice(), entry.kind), (long.as_bytes(), EntryKind::Symlink(b"t\xff".to_vec())));
}

#[test]
fn pax_numbers_times_and_binary_attributes_count() {
    let records: [(&str, &[u8]); 6] = [
        ("uid", b"3000000000"),
        ("gid", b"70000"),
        ("mtime", b"-1.25"),
        ("size", b"3"),
        ("SCHILY.xattr.user.bin", b"a\nb=c\0\n"),
        ("SCHILY.xattr.user.empty", b""),
    ];
    let mut big = header("f", b'0', 0o7777).to_vec();
    big.extend_from_slice(&content(b"abc"));
    let (entry, content) = one(&[pax(&records), big].concat());
    assert_eq!(content, b"abc");
    let meta = entry.meta;
    assert_eq!((meta.uid, meta.gid, meta.mtime, meta.mtime_nsec), (3_000_000_000, 70000, -2, 750_000_000));
    assert_eq!(meta.xattrs[b"user.bin".as_slice()], b"a\nb=c\0\n");
    assert_eq!(meta.xattrs[b"user.empty".as_slice()], b"");
}

#[test]
fn pax_times_keep_their_nanoseconds() {
    let records = pax(&[("mtime", b"1600000000.123456789123")]);
    let meta = one(&[records, file("f", b"")].concat()).0.meta;
    assert_eq!((meta.mtime, meta.mtime_nsec), (1_600_000_000, 123_456_789));
}

#[test]
fn global_headers_are_passed_over_and_base_256_numbers_read() {
    let global = [header("g", b'g', 5).to_vec(), content(b"12345")].concat();
    let mut record = header("f", b'0', 0);
    record[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 1, 0, 0]);
    record[136..148].fill(0xff);
    let meta = one(&[global, seal(record).to_vec()].concat()).0.meta;
    assert_eq!((meta.uid, meta.mtime), (65536, -1));
}

#[test]
fn devices_have_the_kernels_number() {
    let mut record = header("d", b'3', 0);
    record[329..337].copy_from_slice(b"0000454\0");
    record[337..345].copy_from_slice(b"0210560\0");
    let kind = one(&seal(record)).0.kind;
    assert_eq!(kind, EntryKind::CharDevice(encode_rdev(300, 70000)));
}

#[test]
fn sparse_files_of_every_form_have_their_holes() {
    let mut expected = vec![0; 5000];
    expected[512..1024].fill(b'x');
    expected[4096..4099].fill(b'y');
    let stored = [vec![b'x'; 512], vec![b'y'; 3]].concat();
    let form_0_0 = pax(&[
        ("GNU.sparse.size", b"5000"),
        ("GNU.sparse.offset", b"512"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"3"),
    ]);
    let form_0_1 = pax(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"512,512,4096,3")]);
    for form in [form_0_0, form_0_1] {
        assert!(one(&[form, file("f", &stored)].concat()).1 == expected);
    }
    let form_1_0 = pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"5000"),
    ]);
    let with_map = [content(b"2\n512\n512\n4096\n3\n"), stored.clone()].concat();
    let (entry, content_1_0) = one(&[form_1_0, file("GNUSparseFile.0/f", &with_map)].concat());
    assert!(entry.path == b"real" && content_1_0 == expected);
    let mut gnu = header("f", b'S', stored.len() as u64);
    for (at, number) in [(386, 512), (398, 512), (410, 4096), (422, 3), (483, 5000)] {
        gnu[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
    }
    assert!(one(&[seal(gnu).to_vec(), content(&stored)].concat()).1 == expected);
}

#[test]
fn a_sparse_map_that_does_not_fit_its_content_is_refused() {
    for map in [b"512,512,100,3".as_slice(), b"0,512", b"0,9000", b"18446744073709551615,512"] {
        let form = pax(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", map)]);
        assert!(read(&[form, file("f", &[1; 515])].concat()).is_err(), "{}", map.escape_ascii());
    }
}

#[test]
fn a_wrong_checksum_is_refused_and_the_entry_before_it_named() {
    let mut bytes = [file("good", b"x"), file("bad", b"")].concat();
    bytes[1024] ^= 1;
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.contains("good") && error.contains("checksum"), "{error}");
}

#[test]
fn a_cut_off_entry_is_refused_and_named() {
    let bytes = file("cut", &[1; 2000]);
    let error = read(&bytes[..1500]).unwrap_err().to_string();
    assert!(error.contains("cut"), "{error}");
    assert!(read(&bytes[..300]).is_err());
}

#[test]
fn unknown_types_are_refused_and_named() {
    let error = read(&header("odd", b'Z', 0)).unwrap_err().to_string();
    assert!(error.contains("odd") && error.contains('Z'), "{error}");
}

#[test]
fn what_follows_the_end_mark_is_not_an_entry() {
    let end = [file("a", b""), vec![0; 1024], file("b", b"")].concat();
    assert_eq!(read(&end).unwrap().len(), 1);
    assert_eq!(read(&file("a", b"")).unwrap().len(), 1, "a missing end mark");
}

#[test]
fn broken_pax_records_are_refused() {
    for text in [&b"5 a=b"[..], b"99 a=b\n", b"x a=b\n", b"4 a\n\n", b"6 =ab\n"] {
        let bytes = [header("pax", b'x', text.len() as u64).to_vec(), content(text), file("f", b"")].concat();
        assert!(read(&bytes).is_err(), "{}", text.escape_ascii());
    }
}

#[test]
fn announced_sizes_alone_take_no_memory() {
    assert!(read(&header("x", b'x', 1 << 32)).is_err());
    assert!(read(&header("L", b'L', (1 << 33) - 1)).is_err());
}

#[test]
fn garbled_tars_give_entries_or_errors_but_never_panic() {
    let sparse = pax(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"512,512,4096,3")]);
    let whole = [file("a/b", b"hello"), sparse, file("f", &[1; 515]), header("l", b'1', 0).to_vec()].concat();
    let mut seed = 7_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % (1 << 31)).unwrap()
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random() % 6 {
            let at = random() % bytes.len();
            bytes[at] = u8::try_from(random() % 256).unwrap();
            // A right checksum lets the damage through to the other fields.
            let record = at / RECORD * RECORD;
            let sealed = seal(bytes[record..record + RECORD].try_into().unwrap());
            bytes[record..record + RECORD].copy_from_slice(&sealed);
        }
        let mut source = TarSource::new(&bytes[..]);
        while let Ok(Some(entry)) = source.next_entry() {
            if matches!(entry.kind, EntryKind::File(_)) && source.read_content(&mut [0; 700]).is_err() {
                break;
            }
        }
    }
}
