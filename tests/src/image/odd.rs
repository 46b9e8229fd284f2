//! Random layers with every oddity that tars of layers can have.

mod model;

use self::model::{Kind, Layers};
use super::raw_tar::{RawEntry, end};

/// A source of numbers; the same seed gives the same ones.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..8).for_each(|_| _ = random.below(2));
        random
    }

    /// One below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).expect("an index")]
    }
}

/// What the generator remembers, to come back to it: not what an unpacker would have.
#[derive(Debug, Default)]
struct Memory {
    directories: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    links: Vec<Vec<u8>>,
    layers: Layers,
}

/// Tars of an image's layers, lowest first. containerd takes most of them, and not all.
#[must_use]
pub fn layers(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut memory = Memory::default();
    let count = 2 + random.below(4);
    (0..count).map(|_| layer(&mut random, &mut memory)).collect()
}

fn layer(random: &mut Random, memory: &mut Memory) -> Vec<u8> {
    memory.layers.begin();
    let mut tar = Vec::new();
    let only_whiteouts = random.one_in(8);
    let entries = if random.one_in(10) { 0 } else { 4 + random.below(26) };
    for _ in 0..entries {
        let entry = match random.below(if only_whiteouts { 3 } else { 16 }) {
            0 | 1 => whiteout(random, memory),
            2 => opaque(random, memory),
            3..=6 => file(random, memory),
            7..=9 => directory(random, memory),
            10 | 11 => symlink(random, memory),
            12 | 13 => hard_link(random, memory),
            _ => special(random, memory),
        };
        tar.extend(entry.map(|entry| entry.bytes()).unwrap_or_default());
    }
    tar.extend(end());
    tar
}

const OPAQUE: &[u8] = b".wh..wh..opq";
const NAMES: [&[u8]; 14] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"lib",
    b"usr",
    b"x",
    b"y",
    b"\xc3\xa4 b",
    b"\xff\xfe",
    b".wh",
    b".whx",
    b"n\nl",
];

fn name(random: &mut Random) -> Vec<u8> {
    if random.one_in(25) {
        let len = 90 + usize::try_from(random.below(160)).expect("small");
        return vec![*random.pick(b"lmn"); len];
    }
    random.pick(&NAMES).to_vec()
}

/// A path for an entry: mostly below what is there, sometimes through links or below nothing.
fn place(random: &mut Random, memory: &Memory) -> Vec<u8> {
    let parent = match random.below(12) {
        0 | 1 => Vec::new(),
        2 if !memory.links.is_empty() => random.pick(&memory.links).clone(),
        3 => [name(random), name(random)].join(&b'/'),
        4 if !memory.directories.is_empty() => {
            [random.pick(&memory.directories).clone(), name(random)].join(&b'/')
        }
        _ if !memory.directories.is_empty() => random.pick(&memory.directories).clone(),
        _ => Vec::new(),
    };
    let name = name(random);
    if parent.is_empty() { name } else { [parent, name].join(&b'/') }
}

/// Again a path that is known, or a new one.
fn again(random: &mut Random, memory: &Memory) -> Vec<u8> {
    let known = [&memory.files, &memory.directories, &memory.links];
    let list = *random.pick(&known);
    if random.one_in(3) && !list.is_empty() { random.pick(list).clone() } else { place(random, memory) }
}

/// The same path in another spelling.
fn spelt(random: &mut Random, path: &[u8]) -> Vec<u8> {
    match random.below(9) {
        0 => [b"./", path].concat(),
        1 => [b"/", path].concat(),
        2 => [path, b"/"].concat(),
        3 => [b".//", path].concat(),
        4 => [b"q/../", path].concat(),
        _ => path.to_vec(),
    }
}

fn entry(random: &mut Random, kind: u8, path: &[u8]) -> RawEntry {
    let modes = [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0, 0o6711];
    let ids = [0, 0, 1, 1000, 65534, 65536, 3_000_000_000];
    let times = [
        (1_600_000_000, 0),
        (1, 0),
        (0, 0),
        (0, 1),
        (-5, 0),
        (-2, 750_000_000),
        (1_600_000_000, 123_456_789),
        (1 << 31, 0),
        (1 << 33, 5),
        (9_223_372_036, 854_775_807),
        (9_223_372_036, 854_775_808),
        (1 << 40, 0),
    ];
    RawEntry {
        name: spelt(random, path),
        kind,
        mode: *random.pick(&modes),
        owner: (*random.pick(&ids), *random.pick(&ids)),
        mtime: *random.pick(&times),
        xattrs: xattrs(random, kind),
        is_gnu: random.one_in(2),
        ..RawEntry::default()
    }
}

fn xattrs(random: &mut Random, kind: u8) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    if !random.one_in(4) {
        return all;
    }
    let mut capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    capability[4] = u8::try_from(random.below(200)).expect("a byte");
    let choices: [(&str, Vec<u8>); 8] = [
        ("user.a", b"value".to_vec()),
        ("user.\u{e4}", b"a\nb=c\0".to_vec()),
        ("user.empty", Vec::new()),
        ("trusted.t", b"no".to_vec()),
        ("security.capability", capability),
        ("strange.s", b"s".to_vec()),
        ("system.posix_acl_access", acl(random)),
        ("system.posix_acl_default", acl(random)),
    ];
    for _ in 0..1 + random.below(2) {
        let (name, value) = random.pick(&choices).clone();
        // The kernel refuses a default list of anything but a directory, and so would containerd.
        if (name != "system.posix_acl_default" || kind == b'5') && all.iter().all(|(have, _)| *have != name) {
            all.push((name.to_owned(), value));
        }
    }
    all
}

/// An access control list, with entries for someone or plain.
fn acl(random: &mut Random) -> Vec<u8> {
    let bits = |random: &mut Random| u16::try_from(random.below(8)).expect("three bits");
    let mut entries = vec![(1_u16, bits(random), u32::MAX)];
    let is_more = !random.one_in(3);
    if is_more {
        entries.push((2, bits(random), 1000));
    }
    entries.push((4, bits(random), u32::MAX));
    if is_more {
        entries.push((8, bits(random), 70_000));
        entries.push((0x10, bits(random), 0));
    }
    entries.push((0x20, bits(random), 0));
    let mut value = vec![2, 0, 0, 0];
    for (tag, bits, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Whether an entry goes into the layer: seldom one that containerd will not take.
fn is_taken(random: &mut Random, memory: &mut Memory, path: &[u8], kind: Kind) -> bool {
    memory.layers.add(path, kind) || random.one_in(400)
}

fn file(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    let path = again(random, memory);
    let kind = *random.pick(b"00000\0");
    let mut entry = entry(random, kind, &path);
    if entry.kind == 0 {
        // Of this type a name that ends so is a directory.
        entry.name = path.clone();
    }
    let len = *random.pick(&[0, 1, 5, 511, 512, 513, 5000, 70_000]);
    entry.content = super::generated::noise(random.below(5), len);
    if random.one_in(6) && len >= 512 {
        sparse(random, &mut entry);
    }
    let is_taken = is_taken(random, memory, &path, Kind::File);
    memory.files.push(path);
    is_taken.then_some(entry)
}

/// Makes a file sparse in one of the ways of PAX.
fn sparse(random: &mut Random, entry: &mut RawEntry) {
    let len = entry.content.len();
    let map = format!("4096,{len},{},0", len + 20_000);
    let size = (len + 20_000).to_string().into_bytes();
    match random.below(3) {
        0 => {
            let blocks = b"2".to_vec();
            let pairs = [
                ("GNU.sparse.size", size),
                ("GNU.sparse.numblocks", blocks),
                ("GNU.sparse.map", map.into_bytes()),
            ];
            entry.pax = pairs.map(|(key, value)| (key.to_owned(), value)).to_vec();
        }
        1 => {
            entry.pax =
                vec![("GNU.sparse.size".into(), size), ("GNU.sparse.numblocks".into(), b"2".to_vec())];
            for (number, key) in map.split(',').zip(["offset", "numbytes"].iter().cycle()) {
                entry.pax.push((format!("GNU.sparse.{key}"), number.as_bytes().to_vec()));
            }
        }
        _ => {
            let pairs = [
                ("GNU.sparse.major", b"1".to_vec()),
                ("GNU.sparse.minor", b"0".to_vec()),
                ("GNU.sparse.realsize", size),
                ("GNU.sparse.name", entry.name.clone()),
            ];
            entry.pax = pairs.map(|(key, value)| (key.to_owned(), value)).to_vec();
            let mut text = format!("2\n{}\n", map.replace(',', "\n")).into_bytes();
            text.resize(512, 0);
            entry.content = [text, entry.content.clone()].concat();
            entry.name = b"GNUSparseFile.0/f".to_vec();
        }
    }
}

fn directory(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    if random.one_in(30) {
        return Some(entry(random, b'5', b"."));
    }
    let path = again(random, memory);
    let entry = entry(random, b'5', &path);
    let is_taken = is_taken(random, memory, &path, Kind::Directory);
    memory.directories.push(path);
    is_taken.then_some(entry)
}

fn symlink(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    let path = again(random, memory);
    let mut entry = entry(random, b'2', &path);
    entry.mode = 0o777;
    let known = if random.one_in(4) { &memory.links } else { &memory.directories };
    let to = if known.is_empty() { name(random) } else { random.pick(known).clone() };
    entry.link = match random.below(7) {
        0 => [b"../", to.as_slice()].concat(),
        1 => [b"../../../", to.as_slice()].concat(),
        2 => [to.as_slice(), b"/../", &name(random)].concat(),
        3 => name(random),
        4 => to,
        _ => [b"/", to.as_slice()].concat(),
    };
    let is_taken = is_taken(random, memory, &path, Kind::Link);
    memory.links.push(path);
    is_taken.then_some(entry)
}

fn hard_link(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    let path = again(random, memory);
    let mut entry = entry(random, b'1', &path);
    let own = if random.one_in(200) { memory.files.clone() } else { memory.layers.files() };
    if own.is_empty() {
        return None;
    }
    let target = random.pick(&own).clone();
    let can_be = memory.layers.can_link(&path, &target) || random.one_in(400);
    entry.link = if random.one_in(4) { [b"./", target.as_slice()].concat() } else { target };
    (can_be && is_taken(random, memory, &path, Kind::File)).then_some(entry)
}

fn special(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    let path = again(random, memory);
    let kind = *random.pick(b"34663g");
    let mut entry = entry(random, kind, &path);
    match entry.kind {
        b'g' => {
            let content = b"20 comment=whatever\n".to_vec();
            let is_taken = is_taken(random, memory, &path, Kind::Gone);
            return is_taken.then_some(RawEntry { name: path, kind: b'g', content, ..RawEntry::default() });
        }
        b'3' if random.one_in(4) => entry.device = (0, 0),
        b'3' | b'4' => entry.device = *random.pick(&[(1, 3), (300, 70_000), (8, 1)]),
        _ => {}
    }
    is_taken(random, memory, &path, Kind::File).then_some(entry)
}

/// Takes a name away: mostly one that a lower layer has.
fn whiteout(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    let path = again(random, memory);
    if !is_taken(random, memory, &path, Kind::Gone) {
        return None;
    }
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (parent, name) = path.split_at(at);
    let marker: &[u8] = if random.one_in(12) { b".wh..wh." } else { b".wh." };
    Some(entry(random, b'0', &[parent, marker, name].concat()))
}

fn opaque(random: &mut Random, memory: &mut Memory) -> Option<RawEntry> {
    let directory = match (random.below(16), memory.directories.is_empty()) {
        (0, _) => Vec::new(),
        (1..=11, false) => random.pick(&memory.directories).clone(),
        _ => place(random, memory),
    };
    let path = if directory.is_empty() { OPAQUE.to_vec() } else { [&directory, OPAQUE].join(&b'/') };
    if !(memory.layers.can_be_opaque(&directory) && is_taken(random, memory, &path, Kind::Link)) {
        return None;
    }
    let mut entry = entry(random, b'0', &path);
    entry.xattrs.clear();
    Some(entry)
}
