//! `shoal explain` over real nydusd, real nodes of the piece network and a real registry. Needs root and FUSE.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{run, wait_for},
    programs,
    reader_bed::{FILES, ReaderBed, Share},
    relay::Link,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// What is told of the image on a node.
struct Told(Value);

impl Told {
    fn of(bed: &ReaderBed, node: usize, flags: &[&str]) -> Result<Self> {
        let told: Value = serde_json::from_str(&say(bed, node, &[&["--json"], flags].concat())?)?;
        Ok(Self(told.get(0).context("one image")?.clone()))
    }

    /// Chunks of one source, by the summary.
    fn count(&self, source: &str) -> u64 {
        let figures =
            self.0["sources"].as_array().unwrap().iter().find(|figures| figures["source"] == source);
        figures.map_or(0, |figures| figures["chunks"].as_u64().unwrap())
    }

    fn reads_because(&self, kind: &str) -> u64 {
        let figures = self.0["reasons"].as_array().unwrap().iter().find(|figures| figures["kind"] == kind);
        figures.map_or(0, |figures| figures["reads"].as_u64().unwrap())
    }

    fn chunks(&self) -> &[Value] {
        self.0["chunks"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// What the command prints of a node's image.
fn say(bed: &ReaderBed, node: usize, flags: &[&str]) -> Result<String> {
    let mut explain = programs::shoal(["explain", "--apisock"])?;
    run(explain.arg(bed.readers[node].api()).args(flags))
}

/// Mounts the image of the only reader again, with the cache that it left, or without.
fn mount_again(bed: &mut ReaderBed, keep: bool) -> Result<()> {
    drop(bed.readers.pop());
    let cache = bed.scratch.path().join(format!("reader-{}/cache", bed.readers.len()));
    if !keep {
        remove(&cache)?;
    }
    bed.mount(None)
}

fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).with_context(|| dir.display().to_string())
}

#[test]
fn chunks_of_the_registry_say_why_and_after_a_remount_they_are_the_cache_s() -> Result<()> {
    let mut bed = ReaderBed::start(1, Share::All, Link::DIRECT)?;
    bed.nodes[0].kill()?;
    bed.mount(None)?;
    bed.read(0, 0..FILES / 2)?;
    let told = Told::of(&bed, 0, &["--chunks"])?;
    let registry = told.count("registry");
    ensure!(registry >= FILES / 2 && told.count("absent") > 0, "{}", told.0);
    ensure!(told.reads_because("away") == told.0["reads"].as_u64().unwrap(), "{}", told.0);
    let of_registry: Vec<_> = told.chunks().iter().filter(|chunk| chunk["source"] == "registry").collect();
    ensure!(of_registry.len() as u64 == registry, "the summary and the chunks differ");
    for chunk in of_registry {
        let reason = chunk["reason"].as_str().unwrap_or_default();
        ensure!(reason.starts_with("p2pd is away: "), "{chunk}");
        ensure!(chunk["wait_us"].as_u64() > Some(0) && chunk["read"]["bytes"].as_u64() > Some(0), "{chunk}");
    }
    let file = Told::of(&bed, 0, &["--file", "/0"])?;
    ensure!(!file.chunks().is_empty() && file.chunks().iter().all(|chunk| chunk["is_read"] == true));
    let shown = say(&bed, 0, &["--slowest", "3"])?;
    println!("{shown}");
    let how_urgent = shown.contains("demand") || shown.contains("read-ahead");
    ensure!(shown.contains("p2pd is away") && shown.contains("  /") && how_urgent, "{shown}");
    ensure!(say(&bed, 0, &["--file", "/nothing"]).is_err(), "a file that is not there");

    mount_again(&mut bed, true)?;
    bed.read(0, 0..FILES / 2)?;
    let told = Told::of(&bed, 0, &[])?;
    ensure!(told.count("cache") >= registry && told.count("registry") == 0, "{}", told.0);
    ensure!(told.0["reads"] == 0, "{}", told.0);
    Ok(())
}

#[test]
fn chunks_of_the_network_say_who_gave_them() -> Result<()> {
    let mut bed = ReaderBed::start(2, Share::All, Link::DIRECT)?;
    bed.mount(None)?;
    bed.introduced(0)?;
    bed.read(0, 0..FILES)?;
    let told = Told::of(&bed, 0, &[])?;
    ensure!(told.count("p2p-origin") > 0 && told.count("registry") == 0, "{}", told.0);
    bed.mount(None)?;
    bed.introduced(1)?;
    bed.read(1, 0..FILES)?;
    let told = Told::of(&bed, 1, &["--chunks"])?;
    ensure!(told.count("p2p-peers") > 0 && told.count("p2p-origin") == 0, "{}", told.0);
    ensure!(told.count("registry") + told.count("absent") == 0, "{}", told.0);
    // p2pd keeps its pieces though nydusd loses its cache.
    mount_again(&mut bed, false)?;
    bed.introduced(1)?;
    bed.read(1, 0..FILES)?;
    let told = Told::of(&bed, 1, &[])?;
    ensure!(told.count("p2p-here") >= FILES && told.count("p2p-peers") == 0, "{}", told.0);
    Ok(())
}

#[test]
fn chunks_of_an_image_of_another_builder_come_from_other_nodes_though_the_registry_has_lost_them()
-> Result<()> {
    let mut bed = ReaderBed::start(2, Share::All, Link::DIRECT)?;
    bed.drop_lists()?;
    bed.mount_all()?;
    (0..2).try_for_each(|node| bed.introduced(node))?;
    bed.read(0, 0..FILES)?;
    let told = Told::of(&bed, 0, &[])?;
    ensure!(told.count("p2p-origin") >= FILES && told.count("registry") == 0, "{}", told.0);
    bed.lose_blobs()?;
    // In another order, and by parts of what the first has read at once.
    for number in (0..FILES).rev() {
        bed.read(1, number..number + 1)?;
    }
    let told = Told::of(&bed, 1, &[])?;
    ensure!(told.count("p2p-peers") >= FILES && told.count("p2p-origin") == 0, "{}", told.0);
    ensure!(told.count("registry") + told.count("absent") == 0, "{}", told.0);
    let kept =
        |from| bed.nodes[1].figure(&format!("shoal_p2p_pieces_total{{from=\"{from}\",fate=\"kept\"}}"));
    ensure!(kept("peer")? >= FILES && kept("origin")? == 0, "{} and {}", kept("peer")?, kept("origin")?);
    let status = bed.nodes[1].status()?;
    let blobs = status["blobs"].as_array().unwrap();
    ensure!(blobs.iter().all(|blob| blob["checked_by"] == "chunks"), "{status}");
    println!("an image of another builder: {:.3} copies", bed.copies());
    Ok(())
}

#[test]
fn what_is_not_shared_says_so() -> Result<()> {
    let mut bed = ReaderBed::start(1, Share::Nothing, Link::DIRECT)?;
    bed.registry.guard()?;
    // Of "me:pw", as docker's configuration has it.
    bed.mount(Some("bWU6cHc="))?;
    // It is refused when the registry has said that not everybody may read it.
    let refused = || Ok(bed.readers[0].said().contains("p2pd does not serve the blob").then_some(()));
    wait_for("the refusal", PATIENCE, refused)?;
    bed.read(0, 0..FILES)?;
    let told = Told::of(&bed, 0, &[])?;
    ensure!(told.count("registry") >= FILES, "{}", told.0);
    ensure!(told.reads_because("refused") > 0, "{}", told.0);
    Ok(())
}

#[test]
fn a_p2pd_killed_in_mid_read_is_seen_in_the_reasons() -> Result<()> {
    let slow = Link { round_trip: Duration::from_millis(2), bits_per_second: 100_000_000 };
    let mut bed = ReaderBed::start(2, Share::All, slow)?;
    bed.mount_all()?;
    bed.introduced(0)?;
    bed.read_and(0, || bed.nodes[0].kill())?;
    let told = Told::of(&bed, 0, &["--chunks"])?;
    ensure!(told.count("p2p-origin") > 0 && told.count("registry") > 0, "{}", told.0);
    // It depends on the instant of the kill whether its answer had begun.
    ensure!(told.reads_because("away") + told.reads_because("broke-off") > 0, "{}", told.0);
    let of_registry = told.chunks().iter().filter(|chunk| chunk["source"] == "registry");
    for chunk in of_registry {
        let reason = chunk["reason"].as_str().unwrap_or_default();
        ensure!(reason.starts_with("p2pd is away") || reason.starts_with("p2pd broke off"), "{chunk}");
    }
    Ok(())
}
