//! cargo-deny, of one version, kept in the user's cache directory.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::step::{cargo, root, run};

const VERSION: &str = "0.19.0";

/// Checks licences, sources and bans. The advisory list is left out: it changes without us.
pub(crate) fn check() -> Result<()> {
    let config = root().join("misc/deny.toml");
    let mut deny = Command::new(program()?);
    deny.current_dir(root()).args(["--locked", "check", "--config"]).arg(config);
    run("deny", deny.args(["bans", "licenses", "sources"]))
}

fn program() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let dir = cache.join(format!("shoal/cargo-deny-{VERSION}"));
    let program = dir.join("bin/cargo-deny");
    if !program.is_file() {
        let mut install = cargo(&["install", "cargo-deny", "--version", VERSION, "--locked", "--root"]);
        // Its own target directory: the workspace's settings and builds are not for it.
        run("install cargo-deny", install.arg(&dir).env_remove("CARGO_TARGET_DIR").current_dir("/"))?;
    }
    Ok(program)
}
