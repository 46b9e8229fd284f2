//! What killed conversions leave behind goes with the next one; what running ones work with does not.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{run, wait_for},
    image::generated,
    programs,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

fn left(out: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(out).into_iter().flatten().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".shoal-")).collect()
}

/// A conversion in a directory, caught once it works on a layer.
fn at_work(dir: &Path) -> Result<Child> {
    let (from, to) =
        (format!("oci:{}", dir.join("layout").display()), format!("oci:{}:a", dir.join("out").display()));
    let mut convert = programs::shoal(["convert", from.as_str(), to.as_str()])?;
    let child = convert.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let before = left(&dir.join("out"));
    wait_for("a layer in work", Duration::from_secs(60), || {
        let new = left(&dir.join("out")).into_iter().filter(|path| !before.contains(path));
        let sizes = new
            .flat_map(|work| fs::read_dir(work).into_iter().flatten())
            .filter_map(|file| file.ok()?.metadata().ok());
        Ok(sizes.map(|file| file.len()).any(|len| len > 0).then_some(()))
    })?;
    Ok(child)
}

fn convert(dir: &Path, tag: &str) -> Result<()> {
    let (from, to) =
        (format!("oci:{}", dir.join("layout").display()), format!("oci:{}:{tag}", dir.join("out").display()));
    run(&mut programs::shoal(["convert", from.as_str(), to.as_str()])?)?;
    Ok(())
}

#[test]
fn the_next_conversion_removes_what_a_killed_one_left_and_nothing_of_a_running_one() -> Result<()> {
    let dir = TempDir::new_in("/var/tmp")?;
    let (dir, out) = (dir.path(), dir.path().join("out"));
    generated::files(dir, 40, 1 << 20)?;
    let mut killed = at_work(dir)?;
    killed.kill()?;
    killed.wait()?;
    let of_killed = left(&out);
    ensure!(!of_killed.is_empty(), "it was killed too late");
    let mut running = at_work(dir)?;
    let pid = Pid::from_raw(i32::try_from(running.id())?);
    kill(pid, Signal::SIGSTOP)?;
    let of_running = left(&out);
    ensure!(of_running.len() == 1 && !of_killed.contains(&of_running[0]), "{of_killed:?}, {of_running:?}");
    convert(dir, "b")?;
    ensure!(left(&out) == of_running, "{:?}", left(&out));
    kill(pid, Signal::SIGCONT)?;
    let status = running.wait().context("wait for the stopped one")?;
    ensure!(status.success() && left(&out).is_empty(), "{status}, {:?}", left(&out));
    Ok(())
}
