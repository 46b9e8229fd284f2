//! A container starts from a registry while most of its image has not been fetched.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use anyhow::{Result, ensure};
use integration_tests::{command::run, containerd::Release, image::debian::Program, node::Node, relay::Link};

fn starts_lazily(node: &Node) -> Result<()> {
    let image = Program::Python.image()?;
    node.publish(&image, "python")?;
    let start = node.cold_start("nydus", &node.name("python", "lazy"), Program::Python.args())?;
    let all = image.layer_bytes()?;
    ensure!(start.bytes * 2 < all, "{} of {all} bytes were fetched", start.bytes);
    ensure!(node.snapshotter.data_path().is_some(), "nothing is mounted");
    // A plain image works beside it, through the same snapshotter.
    let plain = node.name("python", "plain");
    node.containerd.pull("nydus", &plain)?;
    run(&mut node.containerd.run("nydus", &plain, "plain", Program::Python.args()))?;
    Ok(())
}

#[test]
fn a_container_of_the_installed_containerd_starts_lazily() -> Result<()> {
    starts_lazily(&Node::start("lazy", Release::Installed, Link::DIRECT)?)
}

#[test]
fn a_container_of_containerd_2_starts_lazily() -> Result<()> {
    starts_lazily(&Node::start("lazy", Release::Unstable, Link::DIRECT)?)
}

#[test]
fn an_image_that_the_transfer_service_pulls_starts_lazily() -> Result<()> {
    let image = Program::Python.image()?;
    let node = Node::start("transfer", Release::Unstable, Link::DIRECT)?;
    node.publish(&image, "python")?;
    let lazy = node.name("python", "lazy");
    let before = node.relay.received();
    node.containerd.transfer("nydus", &lazy)?;
    run(&mut node.containerd.run("nydus", &lazy, "lazy", Program::Python.args()))?;
    let (bytes, all) = (node.relay.received() - before, image.layer_bytes()?);
    ensure!(bytes * 2 < all, "{bytes} of {all} bytes were fetched");
    ensure!(node.snapshotter.data_path().is_some(), "nothing is mounted");
    Ok(())
}
