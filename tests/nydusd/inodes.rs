//! What is seen of an image: every kind of inode, and what counts of it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use rafs::{Kind, Meta};

use crate::{
    daemon::Nydusd,
    image::{Image, meta, one_file},
    listing, xattr,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

async fn assert_sample(name: &str, expected: &str, with_times: bool) {
    let sample = golden(name);
    let nydusd = Nydusd::serving(&sample.join("bootstrap"), &sample).await;
    let got = listing::list(&nydusd.mountpoint, with_times);
    let expected = listing::expected(&sample.join(expected));
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected, "{}", nydusd.log());
    }
    assert_eq!(got.len(), expected.len());
}

#[tokio::test]
async fn every_kind_of_inode_is_shown_as_the_original_made_it() {
    assert_sample("zstd", "expected.jsonl.gz", true).await;
}

#[tokio::test]
async fn lz4_and_plain_chunks_are_read() {
    assert_sample("lz4_block", "expected.jsonl.gz", true).await;
    assert_sample("none", "expected.jsonl.gz", true).await;
}

#[tokio::test]
async fn a_merged_image_of_four_layers_is_one_tree() {
    assert_sample("layers", "expected-nomtime.jsonl.gz", false).await;
}

#[tokio::test]
async fn programs_run_and_setuid_and_devices_count() {
    let mut image = Image::new();
    image.dir("/bin");
    image.dir("/dev");
    image.file("/bin/id", 0o4755, &fs::read("/usr/bin/id").unwrap());
    image.add("/dev/null", meta(0o666), Kind::CharDevice(0x103));
    let dir = tempfile::tempdir().unwrap();
    let (bootstrap, _) = image.write(dir.path());
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    use std::os::unix::process::CommandExt;
    fs::set_permissions(nydusd.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(nydusd.mountpoint.join("bin/id")).arg("-u").uid(1234).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
    fs::write(nydusd.mountpoint.join("dev/null"), b"x").unwrap();
}

#[tokio::test]
async fn file_capabilities_count() {
    const NET_BIND_SERVICE: u32 = 1 << 10;
    let mut image = Image::new();
    // Version 2, effective: permitted and inheritable, low and high halves.
    let words = [0x0200_0001u32, NET_BIND_SERVICE, 0, 0, 0];
    let capability = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let kind = image.content(&fs::read("/bin/cat").unwrap());
    let xattrs = [(b"security.capability".to_vec(), capability)].into();
    image.add("/cat", Meta { permissions: 0o755, xattrs, ..Meta::default() }, kind);
    let dir = tempfile::tempdir().unwrap();
    let (bootstrap, _) = image.write(dir.path());
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    fs::set_permissions(nydusd.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    use std::os::unix::process::CommandExt;
    let mut cat = Command::new(nydusd.mountpoint.join("cat"));
    let output = cat.arg("/proc/self/status").uid(1234).gid(1234).output().unwrap();
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(status.contains("CapEff:\t0000000000000400"), "{status} {output:?}");
}

#[tokio::test]
async fn access_control_lists_are_shown_and_count() {
    let mut image = Image::new();
    // user::rw-, user:1234:r--, group::---, mask::r--, other::---
    let acl: Vec<u8> = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 4, 0, 0xd2, 4, 0, 0],
        &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[16, 0, 4, 0, 0xff, 0xff, 0xff, 0xff],
        &[32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    let kind = image.content(b"for one user");
    let xattrs = [(b"system.posix_acl_access".to_vec(), acl.clone())].into();
    image.add("/file", Meta { permissions: 0o640, xattrs, ..Meta::default() }, kind);
    let dir = tempfile::tempdir().unwrap();
    let (bootstrap, _) = image.write(dir.path());
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    fs::set_permissions(nydusd.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = nydusd.mountpoint.join("file");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    assert_eq!(xattr::get(&name, c"system.posix_acl_access").unwrap(), acl);
    let read_as = |uid: u32| {
        use std::os::unix::process::CommandExt;
        Command::new("/bin/cat").arg(&path).uid(uid).gid(4321).output().unwrap()
    };
    assert_eq!(read_as(1234).stdout, b"for one user");
    assert!(!read_as(1235).status.success());
}

#[tokio::test]
async fn statfs_tells_files_and_a_full_disk() {
    let (dir, bootstrap) = one_file("/a", &[5; 9000]);
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    let stat = nix::sys::statvfs::statvfs(&nydusd.mountpoint).unwrap();
    assert_eq!((stat.files(), stat.blocks_free()), (2, 0));
    let inode = fs::metadata(nydusd.mountpoint.join("a")).unwrap();
    assert_eq!(inode.blksize(), 4096);
}
