//! Things that are costly to make, kept in the user's cache directory for the next run.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// `$XDG_CACHE_HOME/shoal`, else `~/.cache/shoal`.
///
/// # Errors
/// Where neither variable is set.
pub fn dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    Ok(base.join("shoal"))
}

/// A directory of the cache: `name` and what `recipe` hashes to. Where it is missing, `make` fills a directory beside
/// it, which then takes its name at once. One process makes it, others wait.
///
/// # Errors
/// Where `make` fails or the cache cannot be written.
pub fn once(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = dir()?.join(format!("{name}-{}", &hex::encode(Sha256::digest(recipe))[..12]));
    if path.exists() {
        return Ok(path);
    }
    let parent = path.parent().context("a cache path has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let lock_path = path.with_extension("lock");
    let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("lock {}", lock_path.display()))?;
    if path.exists() {
        return Ok(path);
    }
    let stage =
        tempfile::Builder::new().prefix(".stage-").tempdir_in(parent).context("stage in the cache")?;
    make(stage.path()).with_context(|| format!("make {name}"))?;
    fs::rename(stage.keep(), &path).with_context(|| format!("name {}", path.display()))?;
    Ok(path)
}
