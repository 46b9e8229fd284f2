//! From nothing to the ready line, behind a link: overlayfs, lazily, and lazily with a recorded list.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::report::{Gate, Row};
use crate::{
    command::run,
    containerd::Release,
    image::debian::Program,
    node::{Node, Start, drop_page_cache},
    programs,
    registry::Registry,
    relay::Link,
    scratch::Scratch,
};

const TAGS: [(&str, &str); 3] = [("overlayfs", "plain"), ("nydus", "lazy"), ("nydus", "traced")];

/// Measures all programs on both links.
///
/// # Errors
/// Where something does not run.
pub fn measure(rounds: usize) -> Result<Vec<Row>> {
    let store = Store::fill()?;
    let mut rows = Vec::new();
    for (link_name, link) in [("200 Mbit/s", Link::ORDINARY), ("1 Gbit/s", Link::FAST)] {
        for program in Program::ALL {
            let starts = store.starts(program, link, rounds)?;
            let gated = program == Program::Python && link == Link::ORDINARY;
            rows.extend(compare(&format!("{} {link_name}", program.name()), starts, program, gated)?);
        }
    }
    Ok(rows)
}

fn compare(name: &str, starts: [Start; 3], program: Program, gated: bool) -> Result<Vec<Row>> {
    let [plain, lazy, traced] = starts;
    let image = megabytes(program.image()?.layer_bytes()?);
    let mut rows = Vec::new();
    for (kind, start, time, bytes) in [("lazy", lazy, 0.5, 0.33), ("traced", traced, 0.35, 0.28)] {
        let times = (plain.total().as_secs_f64(), start.total().as_secs_f64());
        let row = Row::share(format!("{name} {kind}: time"), times.0, times.1, "s");
        rows.push(if gated { row.gate(Gate::AtMost(time)) } else { row });
        let row =
            Row::share(format!("{name} {kind}: bytes of the layers"), image, megabytes(start.bytes), "MB");
        rows.push(if gated { row.gate(Gate::AtMost(bytes)) } else { row });
    }
    Ok(rows)
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A registry's directory with every image in every form; nodes come and go around it.
struct Store {
    scratch: Scratch,
}

impl Store {
    fn fill() -> Result<Self> {
        let store = Self { scratch: Scratch::new("store")? };
        for program in Program::ALL {
            let node = store.node(Link::DIRECT)?;
            node.publish(&program.image()?, program.name())?;
            let list = store.scratch.path().join(format!("{}.list", program.name()));
            trace(&node, program, &list)?;
            node.convert(program.name(), "traced", &["--prefetch", &list.to_string_lossy()])?;
        }
        Ok(store)
    }

    fn blobs(&self) -> PathBuf {
        self.scratch.path().join("registry")
    }

    /// A node that has never seen an image.
    fn node(&self, link: Link) -> Result<Node> {
        let scratch = Scratch::new("cold")?;
        let registry = Registry::start(&self.blobs())?;
        Node::with_registry(scratch, registry, Release::Installed, link)
    }

    /// The median of each way, rounds interleaved.
    fn starts(&self, program: Program, link: Link, rounds: usize) -> Result<[Start; 3]> {
        let mut all: [Vec<Start>; 3] = Default::default();
        for _ in 0..rounds {
            for ((snapshotter, tag), starts) in TAGS.into_iter().zip(&mut all) {
                let node = self.node(link)?;
                drop_page_cache()?;
                starts.push(node.cold_start(snapshotter, &node.name(program.name(), tag), program.args())?);
            }
        }
        Ok(all.map(|mut starts| {
            starts.sort_by_key(Start::total);
            starts[starts.len() / 2]
        }))
    }
}

/// Records what a start reads, as a user would.
fn trace(node: &Node, program: Program, list: &Path) -> Result<()> {
    let image = node.name(program.name(), "lazy");
    let mut trace = programs::shoal(["trace", "--output"])?;
    run(trace.arg(list).arg(image).arg("--").args(program.args()))?;
    fs::metadata(list)?;
    Ok(())
}
