//! How a daemon begins and ends.

use std::{fs, os::unix::process::ExitStatusExt, path::Path, process::Command};

use nix::sys::signal::Signal;
use nydusd_api::mount_fuse;

use crate::{daemon::Nydusd, image::one_file};

/// Whether something is mounted there, without asking the file system.
fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == at.to_str())
}

#[tokio::test]
async fn a_descriptor_of_the_caller_outlives_the_daemon() {
    let mut nydusd = Nydusd::start_with(&[], Some(&|at: &Path| mount_fuse(at, "test").unwrap())).await;
    let (dir, bootstrap) = one_file("/a", b"x");
    nydusd.mount("/i", &bootstrap, dir.path()).await;
    assert_eq!(fs::read(nydusd.mountpoint.join("i/a")).unwrap(), b"x");
    nydusd.client.exit().await.unwrap();
    assert!(nydusd.ended_well().await);
    assert!(is_mounted(&nydusd.mountpoint));
}

#[tokio::test]
async fn sigterm_unmounts_and_takes_the_socket_away() {
    let (dir, bootstrap) = one_file("/a", b"x");
    let mut nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    assert!(is_mounted(&nydusd.mountpoint));
    nydusd.signal(Signal::SIGTERM);
    assert!(nydusd.ended_well().await, "{}", nydusd.log());
    assert!(!is_mounted(&nydusd.mountpoint));
    assert!(!nydusd.dir.path().join("api.sock").exists());
}

#[tokio::test]
async fn a_mount_that_a_killed_daemon_left_is_replaced() {
    let (dir, bootstrap) = one_file("/a", b"x");
    let mut nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    nydusd.signal(Signal::SIGKILL);
    assert!(!nydusd.ended_well().await);
    assert_eq!(fs::metadata(&nydusd.mountpoint).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    let device = mount_fuse(&nydusd.mountpoint, "test").unwrap();
    nix::mount::umount2(&nydusd.mountpoint, nix::mount::MntFlags::MNT_DETACH).unwrap();
    drop(device);
    assert!(!is_mounted(&nydusd.mountpoint));
}

#[test]
fn modes_of_the_original_that_are_not_served_are_usage_errors() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nydusd")).args(["virtiofs", "--mountpoint", "/m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{:?}", output.status.signal());
}
