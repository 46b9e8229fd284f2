//! `shoal trace` lists what a command reads, in a form that `shoal convert` takes.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::{
    command::run,
    image::debian::base,
    programs,
    registry::Registry,
    scratch::{Scratch, mounts_below},
};

/// A registry with a lazy image of Debian's base system.
fn lazy_base() -> Result<(Scratch, Registry, String)> {
    let scratch = Scratch::new("trace")?;
    let registry = Registry::start(&scratch.path().join("registry"))?;
    registry.push(&base()?, "base", "plain")?;
    let (plain, lazy) =
        (format!("{}/base:plain", registry.address()), format!("{}/base:lazy", registry.address()));
    run(&mut programs::shoal(["convert", &plain, &lazy])?)?;
    Ok((scratch, registry, lazy))
}

#[test]
fn a_trace_lists_what_the_command_reads_in_order() -> Result<()> {
    let (scratch, _registry, image) = lazy_base()?;
    // Not the files of users and groups: runc reads those before the command starts.
    let mut trace =
        programs::shoal(["trace", &image, "--", "/bin/cat", "/etc/debian_version", "/etc/issue"])?;
    let list = run(trace.env("TMPDIR", scratch.path()))?;
    let place = |path: &str| list.lines().position(|line| line == path || line == format!("/usr{path}"));
    let order = [place("/bin/cat"), place("/etc/debian_version"), place("/etc/issue")];
    ensure!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} in {list}");
    ensure!(place("/etc/shadow").is_none(), "what was not read is listed");
    ensure!(mounts_below(scratch.path()).is_empty(), "a mount is left");
    Ok(())
}

#[test]
fn a_command_that_does_not_end_is_ended_and_its_list_counts() -> Result<()> {
    let (scratch, _registry, image) = lazy_base()?;
    let start = Instant::now();
    let mut trace = programs::shoal(["trace", "--timeout", "2", &image, "--", "/bin/sleep", "600"])?;
    let list = run(trace.env("TMPDIR", scratch.path()))?;
    ensure!(list.contains("/bin/sleep"), "{list}");
    ensure!(start.elapsed() < Duration::from_secs(60), "it took {:?}", start.elapsed());
    ensure!(mounts_below(scratch.path()).is_empty(), "a mount is left");
    Ok(())
}

#[test]
fn a_plain_image_is_refused_with_advice() -> Result<()> {
    let scratch = Scratch::new("trace-plain")?;
    let registry = Registry::start(&scratch.path().join("registry"))?;
    registry.push(&base()?, "base", "plain")?;
    let image = format!("{}/base:plain", registry.address());
    let Err(error) = run(&mut programs::shoal(["trace", &image, "--", "true"])?) else {
        anyhow::bail!("the trace worked")
    };
    ensure!(format!("{error:#}").contains("shoal convert"), "{error:#}");
    Ok(())
}

#[test]
fn a_command_that_fails_is_told_and_its_list_written() -> Result<()> {
    let (scratch, _registry, image) = lazy_base()?;
    let list = scratch.path().join("list");
    let mut trace = programs::shoal(["trace", "--output"])?;
    trace.arg(&list).args([&image, "--", "/bin/sh", "-c", "exit 3"]).env("TMPDIR", scratch.path());
    ensure!(run(&mut trace).is_err(), "the trace tells of no failure");
    ensure!(std::fs::read_to_string(&list)?.contains("/bin/"), "the list is empty");
    Ok(())
}
