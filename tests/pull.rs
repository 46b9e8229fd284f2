//! `shoal pull` leaves a whole image or nothing, whatever happens meanwhile.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{run, wait_for},
    containerd::Release,
    image::generated::files,
    node::Node,
    programs,
    relay::Link,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Slow enough that a pull of the image below takes some seconds.
const SLOW: Link = Link { round_trip: Duration::from_millis(10), bits_per_second: 40_000_000 };
const FILES: u64 = 6;
const LEN: usize = 3 << 20;
const MOMENT: Duration = Duration::from_secs(30);

fn node(link: Link) -> Result<(Node, String)> {
    let node = Node::start("pull", Release::Installed, link)?;
    let layout = files(&node.scratch.dir("image")?, FILES, LEN)?;
    node.registry.push(&layout, "files", "plain")?;
    let name = node.name("files", "plain");
    Ok((node, name))
}

fn pull(node: &Node, image: &str) -> Result<Command> {
    let mut command = programs::shoal(["pull", "--snapshotter", "overlayfs", image, "--address"])?;
    command.arg(node.containerd.socket()).stdin(Stdio::null());
    Ok(command)
}

/// A pull that has begun to fetch.
fn begun(node: &Node, image: &str) -> Result<Child> {
    let before = node.relay.received();
    let child = pull(node, image)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_for("the layer to come", MOMENT, || Ok((node.relay.received() > before + (1 << 20)).then_some(())))?;
    Ok(child)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
}

fn listed(node: &Node, args: &[&str]) -> Result<Vec<String>> {
    let text = run(&mut node.containerd.ctr(args.iter().copied()))?;
    Ok(text.lines().filter(|line| !line.starts_with("KEY")).map(str::to_owned).collect())
}

fn is_whole(node: &Node, image: &str) -> Result<()> {
    ensure!(listed(node, &["images", "list", "-q"])? == [image], "the image is not recorded");
    // Mounting it makes a lease of its own.
    ensure!(listed(node, &["leases", "list", "-q"])?.is_empty(), "a lease is left");
    let view = node.containerd.view("overlayfs", image, &node.scratch.path().join("view"))?;
    let count = std::fs::read_dir(view.path())?.count();
    ensure!(count as u64 == FILES, "{count} files instead of {FILES}");
    Ok(())
}

#[test]
fn two_pulls_at_once_give_one_whole_image() -> Result<()> {
    let (node, image) = node(SLOW)?;
    let mut pulls = [pull(&node, &image)?.spawn()?, pull(&node, &image)?.spawn()?];
    for pull in &mut pulls {
        ensure!(pull.wait()?.success(), "a pull failed");
    }
    is_whole(&node, &image)
}

#[test]
fn an_interrupted_pull_leaves_nothing() -> Result<()> {
    let (node, image) = node(SLOW)?;
    let mut child = begun(&node, &image)?;
    signal(&child, Signal::SIGINT)?;
    ensure!(child.wait()?.code() == Some(1), "the pull did not tell that it failed");
    for what in [&["images", "list", "-q"][..], &["leases", "list", "-q"], &["snapshots", "list"]] {
        let left = listed(&node, what)?;
        ensure!(left.is_empty(), "{what:?}: {left:?}");
    }
    Ok(())
}

#[test]
fn a_pull_after_a_killed_one_is_whole() -> Result<()> {
    let (node, image) = node(SLOW)?;
    let mut child = begun(&node, &image)?;
    signal(&child, Signal::SIGKILL)?;
    child.wait()?;
    // Its lease holds what it brought, and is not ours: containerd drops it in a day.
    for lease in listed(&node, &["leases", "list", "-q"])? {
        run(&mut node.containerd.ctr(["leases", "delete", lease.as_str()]))?;
    }
    run(&mut pull(&node, &image)?)?;
    is_whole(&node, &image)
}

#[test]
fn a_lazy_image_is_refused_by_a_snapshotter_that_cannot_read_it() -> Result<()> {
    let (node, _) = node(Link::DIRECT)?;
    node.convert("files", "lazy", &[])?;
    let error = run(&mut pull(&node, &node.name("files", "lazy"))?).err().context("the pull worked")?;
    ensure!(format!("{error:#}").contains("is a lazy image"), "{error:#}");
    ensure!(listed(&node, &["snapshots", "list"])?.is_empty(), "a snapshot is left");
    Ok(())
}
