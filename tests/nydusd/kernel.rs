//! Images that the kernel reads by itself, by EROFS.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nydusd_api::{DataPath, MountRequest};
use rafs::Kind;

use crate::{
    daemon::Nydusd,
    image::{Image, meta, one_file},
};

/// A request to show an image in the kernel, too.
fn in_kernel(nydusd: &Nydusd, bootstrap: &Path, blobs: &Path, name: &str) -> (MountRequest, PathBuf) {
    let at = nydusd.dir.path().join(name);
    let request = MountRequest { kernel_mountpoint: Some(at.clone()), ..nydusd.request(bootstrap, blobs) };
    (request, at)
}

async fn data_path(nydusd: &Nydusd, mountpoint: &str) -> (DataPath, PathBuf) {
    let mounts = nydusd.client.mounts().await.unwrap();
    let found = mounts.into_iter().find(|image| image.mountpoint == mountpoint).unwrap();
    (found.data_path, found.path)
}

/// What the mount table says of a directory.
fn mounted(at: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(1) == at.to_str())?;
    line.split(' ').nth(2).map(str::to_owned)
}

/// Whether this kernel should be able to: asked of the kernel in another way than the daemon's.
fn kernel_can() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    // The module is loaded by the first mount.
    version >= (6, 18) && fs::read_to_string("/proc/filesystems").unwrap().contains("erofs")
}

#[tokio::test]
async fn an_image_is_read_by_the_kernel_and_gone_after_unmount() {
    let nydusd = Nydusd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    let big: Vec<u8> = (0..700_001_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    image.file("/big", 0o644, &big);
    image.file("/short", 0o755, b"seven b");
    image.file("/empty", 0o644, b"");
    image.add("/link", meta(0o777), Kind::Symlink(b"short".to_vec()));
    let (bootstrap, _) = image.write(dir.path());
    let (request, at) = in_kernel(&nydusd, &bootstrap, dir.path(), "erofs");
    nydusd.client.mount("/a", &request).await.unwrap();
    let (path, seen_at) = data_path(&nydusd, "/a").await;
    assert_eq!(path == DataPath::Erofs, kernel_can(), "{}", nydusd.log());
    if path == DataPath::Fuse {
        return;
    }
    assert_eq!((&seen_at, mounted(&at).as_deref()), (&at, Some("erofs")));
    for root in [at.clone(), nydusd.mountpoint.join("a")] {
        assert_eq!(fs::read(root.join("big")).unwrap(), big);
        assert_eq!(fs::read(root.join("link")).unwrap(), b"seven b");
        assert_eq!(fs::read(root.join("empty")).unwrap(), b"");
    }
    // What stands behind the end of a file in its last block is not another file's.
    let file = fs::File::open(at.join("short")).unwrap();
    assert_eq!(file.read_at(&mut [0; 4096], 0).unwrap(), 7);
    let names: Vec<_> = fs::read_dir(&nydusd.mountpoint).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["a"], "blobs are not listed");

    nydusd.client.umount("/a").await.unwrap();
    assert!(!at.exists());
    assert_eq!(mounted(&at), None);
}

#[tokio::test]
async fn an_image_that_only_its_reader_can_stand_is_seen_through_fuse() {
    let nydusd = Nydusd::start().await;
    let (dir, bootstrap) = one_file("/file", &[7; 20_000]);
    // Another chunk size in the file's inode than in the image: the kernel would look elsewhere.
    let mut bytes = fs::read(&bootstrap).unwrap();
    let format = 0x20_u32 | 4;
    let at = bytes.windows(4).position(|four| four == format.to_le_bytes()).unwrap();
    bytes[at..at + 4].copy_from_slice(&(format - 3).to_le_bytes());
    fs::write(&bootstrap, bytes).unwrap();
    let (request, at) = in_kernel(&nydusd, &bootstrap, dir.path(), "erofs");
    nydusd.client.mount("/a", &request).await.unwrap();
    assert_eq!(data_path(&nydusd, "/a").await, (DataPath::Fuse, nydusd.mountpoint.join("a")));
    assert_eq!(mounted(&at), None);
    assert_eq!(fs::read(nydusd.mountpoint.join("a/file")).unwrap(), [7; 20_000]);
    if kernel_can() {
        assert!(nydusd.log().contains("has another chunk size than the image"), "{}", nydusd.log());
    }
}

#[tokio::test]
async fn a_broken_chunk_gives_the_kernels_reader_an_error_and_heals() {
    let nydusd = Nydusd::start().await;
    let content = vec![7; 300_000];
    let (dir, bootstrap) = one_file("/file", &content);
    let blob = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let blob = blob.filter(|path| path.extension().is_none()).find(|path| path.is_file()).unwrap();
    let sound = fs::read(&blob).unwrap();
    let mut broken = sound.clone();
    broken[100_000] ^= 1;
    fs::write(&blob, &broken).unwrap();
    let (request, _) = in_kernel(&nydusd, &bootstrap, dir.path(), "erofs");
    nydusd.client.mount("/a", &request).await.unwrap();
    let (_, at) = data_path(&nydusd, "/a").await;
    let file = fs::File::open(at.join("file")).unwrap();
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(block, [7; 4096], "chunks beside the broken one are served");
    let error = file.read_exact_at(&mut block, 98_304).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let log = nydusd.log();
    assert!(log.contains("/file") && log.contains("digest"), "{log}");
    fs::write(&blob, &sound).unwrap();
    file.read_exact_at(&mut block, 98_304).unwrap();
    assert_eq!(fs::read(at.join("file")).unwrap(), content);
}

#[tokio::test]
async fn what_a_killed_daemon_left_in_the_kernel_is_replaced() {
    let (dir, bootstrap) = one_file("/file", b"content");
    let mut dead = Nydusd::start().await;
    let at = dir.path().join("erofs");
    let request = |nydusd: &Nydusd| MountRequest {
        kernel_mountpoint: Some(at.clone()),
        ..nydusd.request(&bootstrap, dir.path())
    };
    dead.client.mount("/a", &request(&dead)).await.unwrap();
    dead.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(!dead.ended_well().await);
    let nydusd = Nydusd::start().await;
    nydusd.client.mount("/a", &request(&nydusd)).await.unwrap();
    let (_, seen_at) = data_path(&nydusd, "/a").await;
    assert_eq!(fs::read(seen_at.join("file")).unwrap(), b"content");
    nydusd.client.umount("/a").await.unwrap();
    assert_eq!(mounted(&at), None, "not the dead one either");
}

#[tokio::test]
async fn what_others_have_mounted_or_written_where_an_image_is_to_be_stays() {
    let nydusd = Nydusd::start().await;
    let (dir, bootstrap) = one_file("/file", b"content");
    let (theirs, full) = (dir.path().join("theirs"), dir.path().join("full"));
    fs::create_dir_all(full.join("sub")).unwrap();
    fs::create_dir(&theirs).unwrap();
    let none: Option<&str> = None;
    nix::mount::mount(Some("tmpfs"), &theirs, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    fs::write(theirs.join("kept"), "kept").unwrap();
    let places = [("/a", &theirs), ("/b", &full), ("/c", &nydusd.mountpoint)];
    for (name, at) in places {
        let request =
            MountRequest { kernel_mountpoint: Some(at.clone()), ..nydusd.request(&bootstrap, dir.path()) };
        nydusd.client.mount(name, &request).await.unwrap();
        let seen_at = nydusd.mountpoint.join(&name[1..]);
        assert_eq!(data_path(&nydusd, name).await, (DataPath::Fuse, seen_at.clone()));
        assert_eq!(fs::read(seen_at.join("file")).unwrap(), b"content");
        nydusd.client.umount(name).await.unwrap();
    }
    assert_eq!(fs::read(theirs.join("kept")).unwrap(), b"kept");
    assert!(full.join("sub").exists());
    nix::mount::umount(&theirs).unwrap();
    let request =
        MountRequest { kernel_mountpoint: Some("erofs".into()), ..nydusd.request(&bootstrap, dir.path()) };
    assert!(nydusd.client.mount("/d", &request).await.unwrap_err().to_string().contains("not absolute"));
    // None of this has spoilt it for others.
    let (request, _) = in_kernel(&nydusd, &bootstrap, dir.path(), "erofs");
    nydusd.client.mount("/e", &request).await.unwrap();
    assert_eq!(data_path(&nydusd, "/e").await.0 == DataPath::Erofs, kernel_can(), "{}", nydusd.log());
}

#[tokio::test]
async fn a_daemon_that_is_told_to_end_takes_its_images_out_of_the_kernel() {
    let (dir, bootstrap) = one_file("/file", b"content");
    let mut nydusd = Nydusd::start().await;
    let (request, at) = in_kernel(&nydusd, &bootstrap, dir.path(), "erofs");
    nydusd.client.mount("/a", &request).await.unwrap();
    nydusd.client.exit().await.unwrap();
    assert!(nydusd.ended_well().await, "{}", nydusd.log());
    assert_eq!((mounted(&at), mounted(&nydusd.mountpoint)), (None, None));
}
