//! The demo runs, ends clean, and ends clean when it is interrupted.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{output, wait_for},
    scratch::processes_naming,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn demo(dir: &Path) -> Command {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.env("TMPDIR", dir);
    // Our programs lie beside the demo: have them built.
    integration_tests::programs::path("shoal").unwrap();
    demo
}

fn is_clean(dir: &Path) -> Result<()> {
    let left: Vec<_> = fs::read_dir(dir)?.map(|entry| entry.unwrap().file_name()).collect();
    ensure!(left.is_empty(), "left in the directory: {left:?}");
    let processes = processes_naming(dir);
    ensure!(processes.is_empty(), "left running: {processes:?}");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&*dir.to_string_lossy()), "left mounted:\n{mounts}");
    Ok(())
}

#[test]
fn the_demo_shows_both_ways_and_ends_clean() -> Result<()> {
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let output = output(&mut demo(dir.path()), Duration::from_secs(900))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("overlayfs") && said.contains("Shoal"), "{said}");
    is_clean(dir.path())
}

#[test]
fn an_interrupted_demo_ends_clean() -> Result<()> {
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let mut child = demo(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_for("containerd to start", Duration::from_secs(600), || {
        ensure!(child.try_wait()?.is_none(), "the demo ended before it could be interrupted");
        Ok((processes_naming(dir.path()).len() > 2).then_some(()))
    })?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let status =
        wait_for("the end", Duration::from_secs(60), || Ok(child.try_wait()?)).context("it does not end")?;
    ensure!(!status.success(), "an interrupted run is not a success");
    is_clean(dir.path())
}
