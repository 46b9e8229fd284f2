//! What breaks during a run is told to the reader in time, and heals.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::wait_for,
    containerd::Release,
    image::generated::{files, noise},
    node::Node,
    relay::Link,
    scratch::Mounted,
};

const FILES: u64 = 8;
const LEN: usize = 3 << 20;
/// Longest time until a read gives up, and some.
const ANSWER: Duration = Duration::from_secs(90);

fn node() -> Result<(Node, Mounted)> {
    let node = Node::start("fault", Release::Installed, Link::DIRECT)?;
    let layout = files(&node.scratch.dir("image")?, FILES, LEN)?;
    node.publish(&layout, "files")?;
    let lazy = node.name("files", "lazy");
    node.pull_lazily(&lazy)?;
    let view = node.containerd.view("nydus", &lazy, &node.scratch.path().join("view"))?;
    Ok((node, view))
}

fn check(view: &Path, number: u64) -> Result<()> {
    let bytes = fs::read(view.join(number.to_string())).with_context(|| format!("read {number}"))?;
    ensure!(bytes == noise(number, LEN), "file {number} is wrong");
    Ok(())
}

fn is_refused_in_time(view: &Path, number: u64) -> Result<()> {
    let start = Instant::now();
    let error = fs::read(view.join(number.to_string())).err().context("the read worked")?;
    ensure!(error.raw_os_error() == Some(5), "{error} is not EIO");
    ensure!(start.elapsed() < ANSWER, "EIO only after {:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_registry_that_is_down_gives_eio_in_time_and_heals() -> Result<()> {
    let (mut node, view) = node()?;
    check(view.path(), 0)?;
    node.registry.stop()?;
    check(view.path(), 0).context("what was fetched stays readable")?;
    is_refused_in_time(view.path(), FILES - 1)?;
    node.registry.restart()?;
    wait_for("the image to heal", ANSWER, || Ok(check(view.path(), FILES - 1).ok()))
}

#[test]
fn a_blob_flipped_in_the_registry_gives_eio_and_heals() -> Result<()> {
    let (node, view) = node()?;
    let manifest = node.registry.manifest("files", "lazy")?;
    let digest = manifest["layers"][0]["digest"].as_str().context("the image has a data layer")?;
    let file = node.registry.blob_file(digest.trim_start_matches("sha256:"));
    let right = fs::read(&file)?;
    let half = right.len() / 2;
    let flipped: Vec<u8> =
        right.iter().enumerate().map(|(at, byte)| if at < half { !byte } else { *byte }).collect();
    fs::write(&file, flipped)?;
    is_refused_in_time(view.path(), 0)?;
    fs::write(&file, right)?;
    wait_for("the image to heal", ANSWER, || Ok(check(view.path(), 0).ok()))
}

#[test]
fn new_containers_work_within_five_seconds_of_a_crash() -> Result<()> {
    let (node, view) = node()?;
    check(view.path(), 0)?;
    node.snapshotter.crash_daemons()?;
    let start = Instant::now();
    let lazy = node.name("files", "lazy");
    let again = wait_for("a new mount", Duration::from_secs(5), || {
        let point = node.scratch.path().join("again");
        let view = node.containerd.view("nydus", &lazy, &point);
        Ok(view.ok().filter(|view| check(view.path(), 1).is_ok()))
    })?;
    ensure!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    check(again.path(), FILES - 1)
}

#[test]
fn a_killed_snapshotter_costs_no_container_its_image_and_the_next_one_finds_the_daemon() -> Result<()> {
    let (mut node, view) = node()?;
    check(view.path(), 0)?;
    let daemons = node.snapshotter.daemons();
    node.snapshotter.crash_and_restart()?;
    check(view.path(), 1).context("what was not fetched before")?;
    let lazy = node.name("files", "lazy");
    // containerd waits a while before it connects again.
    let again = wait_for("a new mount", ANSWER, || {
        Ok(node.containerd.view("nydus", &lazy, &node.scratch.path().join("again")).ok())
    })?;
    check(again.path(), FILES - 1)?;
    let found = node.snapshotter.daemons();
    ensure!(found == daemons, "{daemons:?} became {found:?}");
    // Its death is noticed at once too, though it is no child of this snapshotter: nobody is sent to its mounts.
    node.snapshotter.crash_daemons()?;
    let after = node.containerd.view("nydus", &lazy, &node.scratch.path().join("after"))?;
    check(after.path(), 2)
}
