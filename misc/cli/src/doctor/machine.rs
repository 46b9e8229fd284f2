//! The kernel and the programs.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileTypeExt,
};

use nix::{sys::utsname::uname, unistd::geteuid};

use super::Check;
use crate::paths;

/// All of them.
pub(super) fn checks() -> Vec<Check> {
    let programs = [
        ("nydusd", "install it beside shoal or in PATH"),
        ("containerd-nydus-grpc", "install it beside shoal or in PATH"),
        ("containerd", "install containerd 1.6 or later"),
        ("runc", "install runc"),
    ];
    let mut checks = vec![kernel(), file_system("fuse"), file_system("overlay"), fuse_device(), root()];
    checks.extend(programs.map(|(name, advice)| program(name, advice)));
    checks
}

fn kernel() -> Check {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    match at_least(&release, (5, 10)) {
        true => Check::ok("kernel", release),
        false => Check::warn("kernel", release, "5.10 and later are tried"),
    }
}

fn at_least(release: &str, least: (u32, u32)) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= least
}

fn file_system(name: &'static str) -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        true => Check::ok("file system", name),
        // It may be a module that is loaded at the first mount.
        false => Check::warn("file system", format!("{name} is not loaded"), "try: modprobe fuse overlay"),
    }
}

fn fuse_device() -> Check {
    const DEVICE: &str = "/dev/fuse";
    const ADVICE: &str = "load the fuse module; in a container, pass the device in";
    match fs::metadata(DEVICE) {
        Ok(found) if found.file_type().is_char_device() => {
            match OpenOptions::new().read(true).write(true).open(DEVICE) {
                Ok(_) => Check::ok("device", DEVICE),
                Err(error) => Check::fail("device", format!("{DEVICE}: {error}"), ADVICE),
            }
        }
        Ok(_) => Check::fail("device", format!("{DEVICE} is no device"), ADVICE),
        Err(error) => Check::fail("device", format!("{DEVICE}: {error}"), ADVICE),
    }
}

fn root() -> Check {
    match geteuid().is_root() {
        true => Check::ok("user", "root"),
        false => Check::warn("user", "not root", "containerd's socket and mounts need root"),
    }
}

fn program(name: &'static str, advice: &'static str) -> Check {
    match paths::program(name) {
        Some(path) => Check::ok("program", path.display().to_string()),
        None => Check::fail("program", format!("{name} is not found"), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert!(at_least("6.1.0-18-amd64", (5, 10)));
        assert!(at_least("5.10", (5, 10)));
        assert!(!at_least("5.9.16", (5, 10)));
        assert!(!at_least("", (5, 10)));
    }
}
