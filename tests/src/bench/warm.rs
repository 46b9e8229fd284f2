//! A container's file system once its data is there: overlay over nydusd against overlay over ext4.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    first_touch::InMemory,
    placement::share_in_order,
    report::{Gate, Row, median},
};
use crate::{
    command::{command, run},
    containerd::Release,
    image::{Layout, debian::Program, generated::noise, layer, layout::Form},
    node::{Node, drop_page_cache},
    relay::Link,
};

const BIG: usize = 256 << 20;
const MANY: usize = 6000;
const MIB: usize = 1 << 20;
/// Imports of the workload, without what prints.
const PYTHON: &str = "import json, asyncio, http.server, sqlite3, ssl, numpy, flask, requests";

type Measure = fn(&Path) -> Result<Duration>;

/// In the order they run in each round: the first pass of each is the cold one where a row says so.
const MEASURES: [(&str, Option<f64>, Measure); 6] = [
    ("stat of 6,000 shuffled files", Some(0.6), stat_shuffled),
    ("python import", Some(0.9), python_import),
    ("find", None, find),
    ("ls -lR", None, list_long),
    ("mmap of 256 MB", None, read_mapped),
    ("random reads of 4 KiB", None, random_reads),
];

/// Measures all of it.
///
/// # Errors
/// Where something does not run.
pub fn measure(rounds: usize) -> Result<Vec<Row>> {
    let node = Node::start("warm", Release::Installed, Link::DIRECT)?;
    node.publish(&image(&node)?, "warm")?;
    let (plain, lazy) = (node.name("warm", "plain"), node.name("warm", "lazy"));
    node.containerd.pull("overlayfs", &plain)?;
    node.pull_lazily(&lazy)?;
    let theirs = node.containerd.mount("overlayfs", &plain, &node.scratch.path().join("plain"))?;
    let ours = node.containerd.mount("nydus", &lazy, &node.scratch.path().join("lazy"))?;
    let (theirs, ours) = (theirs.path(), ours.path());
    let mut rows = vec![first_touch(&node, rounds, theirs)?];
    one_pass(ours)?;
    rows.push(compare("first warm pass of 256 MB", rounds, [theirs, ours], one_pass)?);
    rows.push(compare("256 MB with the page cache dropped", rounds, [theirs, ours], |root| {
        drop_page_cache()?;
        one_pass(root)
    })?);
    rows.extend(third_passes(rounds, [theirs, ours])?);
    for (name, gate, measure) in MEASURES {
        measure(ours)?;
        measure(theirs)?;
        let row = compare(name, rounds, [theirs, ours], measure)?;
        rows.push(gate.map_or_else(|| row.clone(), |least| row.clone().gate(Gate::AtLeast(least))));
    }
    Ok(rows)
}

/// Empty cache and blobs in memory, against the page cache dropped and files on the disk.
fn first_touch(node: &Node, rounds: usize, theirs: &Path) -> Result<Row> {
    let mut image = InMemory::take(node, "warm")?;
    let (mut disk, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        drop_page_cache()?;
        disk.push(one_pass(theirs)?);
        ours.push(image.sample()?);
    }
    Ok(Row::speed("first touch of 256 MB / overlayfs from disk", median(disk), median(ours)))
}

/// The third pass after each time that the page cache was filled anew, and how the kernel had placed the pages. FUSE
/// gets them one by one, wherever one is free, and ext4 in runs: on a machine whose free memory is in pieces, that
/// costs more than all else does. One filling would measure that one's luck.
fn third_passes(rounds: usize, roots: [&Path; 2]) -> Result<[Row; 2]> {
    let (mut times, mut shares) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..rounds {
        drop_page_cache()?;
        for ((root, times), shares) in roots.iter().zip(&mut times).zip(&mut shares) {
            one_pass(root)?;
            one_pass(root)?;
            times.push(one_pass(root)?);
            shares.push(share_in_order(&root.join("bench/big"))?);
        }
    }
    let [theirs, ours] = times.map(median);
    let [their_share, our_share] = shares.map(|mut shares: Vec<f64>| {
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    });
    Ok([
        Row::speed("sequential read of 256 MB, third pass", theirs, ours).gate(Gate::AtLeast(0.6)),
        Row::share("its pages that are in order in memory", their_share, our_share, "%"),
    ])
}

/// Medians of interleaved rounds.
fn compare(
    name: &str,
    rounds: usize,
    roots: [&Path; 2],
    measure: impl Fn(&Path) -> Result<Duration>,
) -> Result<Row> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.push(measure(roots[0])?);
        ours.push(measure(roots[1])?);
    }
    Ok(Row::speed(name, median(theirs), median(ours)))
}

/// The python image with one big file and many small ones.
fn image(node: &Node) -> Result<Layout> {
    let base = Program::Python.image()?;
    let tree = node.scratch.dir("bench-tree")?;
    fs::create_dir_all(tree.join("bench/many"))?;
    let mut big = File::create(tree.join("bench/big"))?;
    for part in 0..(BIG / MIB) as u64 {
        // Half of it can be compressed.
        big.write_all(&noise(part, MIB / 2))?;
        big.write_all(&vec![b'x'; MIB / 2])?;
    }
    for number in 0..MANY {
        let dir = tree.join(format!("bench/many/{}", number % 60));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(number.to_string()), noise(number as u64, 2000))?;
    }
    let layout = Layout::create(&node.scratch.dir("bench-layout")?)?;
    let mut layers = Vec::new();
    for layer in base.manifest()?.1.layers() {
        let tar = flate2::read::GzDecoder::new(File::open(base.blob(layer.digest().digest()))?);
        layers.push(layout.add_layer(Form::Zstd, |out| {
            let mut tar = tar;
            std::io::copy(&mut tar, out)?;
            Ok(())
        })?);
    }
    layers.push(layout.add_layer(Form::Zstd, |out| layer::write(&tree, out))?);
    layout.finish(&layers, Program::Python.args())?;
    Ok(layout)
}

pub(super) fn one_pass(root: &Path) -> Result<Duration> {
    let mut file = File::open(root.join("bench/big"))?;
    let mut buffer = vec![0; MIB];
    let start = Instant::now();
    while file.read(&mut buffer)? > 0 {}
    Ok(start.elapsed())
}

fn stat_shuffled(root: &Path) -> Result<Duration> {
    // A fixed walk through all numbers: 6007 is prime to 6000.
    let paths: Vec<_> = (0..MANY)
        .map(|step| step * 6007 % MANY)
        .map(|number| root.join(format!("bench/many/{}/{number}", number % 60)))
        .collect();
    let start = Instant::now();
    for path in paths {
        black_box(fs::metadata(path)?);
    }
    Ok(start.elapsed())
}

fn timed(program: &str, args: &[&str], root: &Path) -> Result<Duration> {
    let mut command = command("chroot", [root]);
    command.arg(program).args(args).env("PYTHONDONTWRITEBYTECODE", "1");
    let start = Instant::now();
    run(&mut command)?;
    Ok(start.elapsed())
}

fn python_import(root: &Path) -> Result<Duration> {
    timed("python3", &["-c", PYTHON], root)
}

fn find(root: &Path) -> Result<Duration> {
    timed("find", &["/usr", "/bench"], root)
}

fn list_long(root: &Path) -> Result<Duration> {
    timed("ls", &["-lR", "/usr", "/bench"], root)
}

fn read_mapped(root: &Path) -> Result<Duration> {
    const SUM: &str = "import mmap; f = open('/bench/big', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); \
                       print(sum(m[i] for i in range(0, len(m), 4096)))";
    timed("python3", &["-c", SUM], root)
}

fn random_reads(root: &Path) -> Result<Duration> {
    let file = File::open(root.join("bench/big")).context("open the big file")?;
    let mut buffer = [0; 4096];
    let start = Instant::now();
    let mut at = 1_u64;
    for _ in 0..20_000 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        file.read_exact_at(&mut buffer, (at >> 33) % (BIG as u64 / 4096) * 4096)?;
    }
    Ok(start.elapsed())
}
