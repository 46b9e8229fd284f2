//! Our own programs, as built by the same cargo that built this one.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::command::{command, output};

/// Building without a cache takes minutes on a small machine.
const BUILD: Duration = Duration::from_secs(1800);
const PACKAGES: [&str; 5] = ["builder", "nydusd", "p2p", "shoal", "snapshotter"];

/// Path of one of our programs.
///
/// # Errors
/// Where it is not there and cannot be built.
pub fn path(name: &str) -> Result<PathBuf> {
    Ok(dir()?.join(name))
}

/// Our user's command.
///
/// # Errors
/// As [`path`].
pub fn shoal<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    Ok(command(path("shoal")?, args))
}

/// A program of ours lies beside the others; a test lies in `deps` below them, and has them built once.
fn dir() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = DIR.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    dir.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn find() -> Result<PathBuf> {
    let own = env::current_exe().context("find our own program")?;
    let dir = own.parent().context("a program lies in a directory")?;
    let Some(profile_dir) = dir.parent().filter(|_| dir.ends_with("deps")) else { return Ok(dir.to_owned()) };
    let mut build =
        command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), ["build", "--quiet", "--bins"]);
    build.args(PACKAGES.iter().flat_map(|name| ["-p", name]));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    let target = profile_dir.parent().context("a profile lies in the target directory")?;
    let output =
        output(build.env("CARGO_TARGET_DIR", target).current_dir(env!("CARGO_MANIFEST_DIR")), BUILD)?;
    ensure!(output.status.success(), "build our programs:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(profile_dir.to_owned())
}
