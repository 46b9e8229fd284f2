//! Kubernetes pulls, runs and enters a lazy image.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use anyhow::{Context, Result, ensure};
use integration_tests::{
    containerd::Release,
    cri::Cri,
    image::debian::{Program, base},
    node::Node,
    relay::Link,
};

fn pulls_runs_and_executes(release: Release) -> Result<()> {
    let image = Program::Redis.image()?;
    let node = Node::start("cri", release, Link::DIRECT)?;
    node.registry.push(&base()?, "pause", "plain")?;
    node.publish(&image, "redis")?;
    let lazy = node.name("redis", "lazy");
    let before = node.relay.received();
    let cri = Cri::connect(node.containerd.socket())?;
    let said = || format!("{}\n{}", node.containerd.said(), node.snapshotter.said());
    cri.pull(&lazy).with_context(said)?;
    let pulled = node.relay.received() - before;
    ensure!(pulled * 5 < image.layer_bytes()?, "the pull took {pulled} bytes: it was not lazy");
    let pod = cri.run(&lazy, &["sleep", "600"]).with_context(said)?;
    let version = cri.exec(&pod, &["redis-server", "--version"]).with_context(said)?;
    ensure!(version.contains("Redis server"), "{version}");
    cri.remove(&pod)
}

#[test]
fn the_installed_containerd_pulls_runs_and_executes() -> Result<()> {
    pulls_runs_and_executes(Release::Installed)
}

#[test]
fn containerd_2_pulls_runs_and_executes() -> Result<()> {
    pulls_runs_and_executes(Release::Unstable)
}
