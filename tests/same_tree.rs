//! Every path of a real image is the same under Shoal as under overlayfs.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::{
    containerd::Release,
    image::debian::Program,
    node::Node,
    relay::Link,
    tree::{differences, read},
};

fn is_the_same(program: Program, node: &Node) -> Result<()> {
    let image = program.image()?;
    node.publish(&image, program.name())?;
    let (plain, lazy) = (node.name(program.name(), "plain"), node.name(program.name(), "lazy"));
    node.containerd.pull("overlayfs", &plain)?;
    node.pull_lazily(&lazy)?;
    let expected = node.containerd.view("overlayfs", &plain, &node.scratch.path().join("plain"))?;
    let found = node.containerd.view("nydus", &lazy, &node.scratch.path().join("lazy"))?;
    let (mut expected, found) = (read(expected.path())?, read(found.path())?);
    let root = Path::new("");
    // No layer has an entry for the root: overlayfs shows when the layer was unpacked.
    expected.get_mut(root).context("a tree has a root")?.mtime = found[root].mtime;
    ensure!(expected.len() > 1000, "only {} paths", expected.len());
    let differences = differences(&expected, &found, 20);
    ensure!(differences.is_empty(), "{} paths, some differ:\n{}", expected.len(), differences.join("\n"));
    Ok(())
}

fn node() -> Result<Node> {
    Node::start("tree", Release::Installed, Link::DIRECT)
}

#[test]
fn python_is_the_same() -> Result<()> {
    is_the_same(Program::Python, &node()?)
}

#[test]
fn nginx_is_the_same() -> Result<()> {
    is_the_same(Program::Nginx, &node()?)
}

#[test]
fn redis_is_the_same() -> Result<()> {
    is_the_same(Program::Redis, &node()?)
}

#[test]
fn python_is_the_same_through_fuse() -> Result<()> {
    let node = Node::through_fuse("tree", Release::Installed)?;
    is_the_same(Program::Python, &node)?;
    let path = node.snapshotter.data_path();
    ensure!(path.as_deref() == Some("fuse.rafs"), "it is seen through {path:?}");
    Ok(())
}
