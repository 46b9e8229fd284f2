//! Where our other programs are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Finds a program: beside our own first, so that one build works together, then in PATH.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let found = beside.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join(name));
    // Debian keeps runc where a user's PATH does not look.
    found.chain([Path::new("/usr/sbin").join(name)]).find(|file| file.is_file())
}
