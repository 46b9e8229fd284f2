//! nydusd as a process: what is seen in its mounts, what its API does, how it ends. Needs root and FUSE.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "nydusd/daemon.rs"]
mod daemon;
#[path = "nydusd/image.rs"]
mod image;
#[path = "nydusd/listing.rs"]
mod listing;
#[path = "nydusd/samples.rs"]
mod samples;
#[allow(unreachable_pub, reason = "shared with the tests' own library")]
#[path = "src/xattr.rs"]
mod xattr;

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
};

use daemon::Nydusd;
use image::{Image, meta};
use nix::sys::signal::Signal;
use nydusd_api::{ClientError, MountRequest, mount_fuse};
use rafs::{Kind, Meta};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// An image of one file, and where its parts are.
fn one_file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    image.file(name, 0o644, content);
    let (bootstrap, _) = image.write(dir.path());
    (dir, bootstrap)
}

/// Whether something is mounted there, without asking the file system.
fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == at.to_str())
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
async fn images_come_and_go_in_one_daemon() {
    let nydusd = Nydusd::start().await;
    let ((a_dir, a), (b_dir, b)) = (one_file("/a", b"one"), one_file("/b", b"two"));
    nydusd.mount("/first", &a, a_dir.path()).await;
    assert_eq!(fs::read(nydusd.mountpoint.join("first/a")).unwrap(), b"one");
    assert!(!nydusd.mountpoint.join("second").exists());
    nydusd.mount("/second", &b, b_dir.path()).await;
    let mut names: Vec<_> =
        fs::read_dir(&nydusd.mountpoint).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(fs::read(nydusd.mountpoint.join("second/b")).unwrap(), b"two");

    nydusd.client.umount("/first").await.unwrap();
    assert!(!nydusd.mountpoint.join("first").exists());
    assert_eq!(fs::read_dir(&nydusd.mountpoint).unwrap().count(), 1);
    nydusd.mount("/first", &b, b_dir.path()).await;
    assert!(!nydusd.mountpoint.join("first/a").exists());
    assert_eq!(fs::read(nydusd.mountpoint.join("first/b")).unwrap(), b"two");

    let status = nydusd.client.status().await.unwrap();
    assert_eq!(status.backend_collection.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_call_that_cannot_be_done_says_why_and_changes_nothing() {
    let nydusd = Nydusd::start().await;
    let (dir, bootstrap) = one_file("/a", b"x");
    nydusd.mount("/a", &bootstrap, dir.path()).await;
    let request = |source: &str| nydusd.request(Path::new(source), dir.path());
    let refused = async |at: &str, request: &MountRequest| match nydusd.client.mount(at, request).await {
        Err(ClientError::Refused { status, message, .. }) => (status, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("/a", &request(bootstrap.to_str().unwrap())).await.0, 400);
    assert_eq!(refused("/", &request(bootstrap.to_str().unwrap())).await.0, 400);
    let (status, message) = refused("/b", &request("/dev/null")).await;
    assert_eq!(status, 400);
    assert!(message.contains("/dev/null") && message.contains("no regular file"), "{message}");
    assert!(matches!(
        nydusd.client.umount("/b").await.unwrap_err(),
        ClientError::Refused { status: 404, .. }
    ));
    let unsupported = nydusd.client.get("/api/v1/daemon/fuse/sendfd").await.unwrap_err();
    assert!(matches!(unsupported, ClientError::Refused { status: 501, .. }));
    assert_eq!(fs::read(nydusd.mountpoint.join("a/a")).unwrap(), b"x");
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
async fn a_broken_chunk_gives_an_error_and_a_log_line_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    image.file("/file", 0o644, &[7; 100_000]);
    let (bootstrap, blob) = image.write(dir.path());
    let sound = fs::read(&blob).unwrap();
    let mut broken = sound.clone();
    broken[70_000] ^= 1;
    fs::write(&blob, broken).unwrap();
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    let path = nydusd.mountpoint.join("file");
    let error = fs::read(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let log = nydusd.log();
    assert!(log.contains("chunk 1 of blob") && log.contains("does not match its digest"), "{log}");
    assert!(log.contains("image=/ "), "{log}");
    fs::write(&blob, sound).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 100_000]);
}

/// A web server that takes connections and says nothing.
async fn silent_server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

#[tokio::test]
async fn a_silent_backend_costs_its_readers_the_deadline_and_others_nothing() {
    let ((dir, bootstrap), (other_dir, other)) = (one_file("/a", &[1; 5000]), one_file("/b", b"two"));
    let nydusd = Nydusd::start().await;
    let mut request = nydusd.request(&bootstrap, dir.path());
    request.config = serde_json::json!({ "device": {
        "backend": { "type": "http-proxy", "config": { "addr": silent_server().await, "deadline_secs": 2 } },
        "cache": { "config": { "work_dir": nydusd.dir.path().join("cache") } },
    }})
    .to_string();
    nydusd.client.mount("/silent", &request).await.unwrap();
    let path = nydusd.mountpoint.join("silent/a");
    let started = std::time::Instant::now();
    let reader = tokio::task::spawn_blocking(move || fs::read(path));
    while nydusd.client.get("/api/v1/metrics/inflight").await.unwrap().is_null() {
        assert!(started.elapsed().as_secs() < 2);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    nydusd.mount("/sound", &other, other_dir.path()).await;
    assert_eq!(fs::read(nydusd.mountpoint.join("sound/b")).unwrap(), b"two");
    assert!(started.elapsed().as_secs() < 2, "the sound image did not wait for the silent one");
    let error = reader.await.unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!((2..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert!(nydusd.log().contains("image=/silent"), "{}", nydusd.log());
    assert!(!nydusd.client.get("/api/v1/daemon/events").await.unwrap().as_array().unwrap().is_empty());
}

#[tokio::test]
async fn unmounting_ends_readers_that_wait() {
    let (dir, bootstrap) = one_file("/a", &[1; 5000]);
    let nydusd = Nydusd::start().await;
    let mut request = nydusd.request(&bootstrap, dir.path());
    request.config = serde_json::json!({ "device": {
        "backend": { "type": "http-proxy", "config": { "addr": silent_server().await, "deadline_secs": 60 } },
        "cache": { "config": { "work_dir": nydusd.dir.path().join("cache") } },
    }})
    .to_string();
    nydusd.client.mount("/silent", &request).await.unwrap();
    let path = nydusd.mountpoint.join("silent/a");
    let reader = tokio::task::spawn_blocking(move || fs::read(path));
    while nydusd.client.get("/api/v1/metrics/inflight").await.unwrap().is_null() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    nydusd.client.umount("/silent").await.unwrap();
    // The read itself gets EIO; the kernel may try once more, and the image is gone then.
    let errno = reader.await.unwrap().unwrap_err().raw_os_error();
    assert!(matches!(errno, Some(libc::EIO | libc::ESTALE)), "{errno:?}");
}

#[tokio::test]
async fn credentials_are_exchanged_while_mounted_and_never_shown() {
    let (dir, bootstrap) = one_file("/a", b"x");
    let nydusd = Nydusd::start().await;
    let mut request = nydusd.request(&bootstrap, dir.path());
    request.config = serde_json::json!({ "device": {
        "backend": { "type": "registry", "config": { "host": "127.0.0.1:1", "repo": "team/app", "typo": 1 } },
        "cache": { "config": { "work_dir": nydusd.dir.path().join("cache") } },
    }})
    .to_string();
    nydusd.client.mount("/i", &request).await.unwrap();
    nydusd.client.set_registry_auth("/i", "dXNlcjpwYXNz").await.unwrap();
    let wrong = nydusd.client.set_registry_auth("/i", "no base64").await.unwrap_err();
    assert!(matches!(wrong, ClientError::Refused { status: 400, .. }));
    let config = nydusd.client.get("/api/v1/config?id=/i").await.unwrap().to_string();
    assert!(config.contains("team/app") && !config.contains("dXNlcjpwYXNz"), "{config}");
    assert!(nydusd.log().contains("device.backend.config.typo"), "{}", nydusd.log());
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

#[tokio::test]
async fn a_trace_names_what_was_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    image.dir("/d");
    image.file("/d/second", 0o644, &[1; 5000]);
    image.file("/first", 0o644, &[2; 10]);
    image.file("/never", 0o644, &[3; 10]);
    let (bootstrap, _) = image.write(dir.path());
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    nydusd.client.start_trace("/").await.unwrap();
    fs::read(nydusd.mountpoint.join("first")).unwrap();
    fs::read(nydusd.mountpoint.join("d/second")).unwrap();
    let trace = nydusd.client.trace("/").await.unwrap();
    let paths: Vec<_> = trace.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["/first", "/d/second"]);
    assert!(trace[1].ranges[0].0 == 0 && trace[1].ranges[0].1 >= 5000);
}

#[tokio::test]
async fn a_remounted_image_shows_the_new_tree_at_once() {
    let ((a_dir, a), (b_dir, b)) = (one_file("/a", b"one"), one_file("/b", b"two"));
    for at in ["/", "/image"] {
        let nydusd = Nydusd::start().await;
        nydusd.mount(at, &a, a_dir.path()).await;
        let root = nydusd.mountpoint.join(at.trim_start_matches('/'));
        assert_eq!(fs::read(root.join("a")).unwrap(), b"one");
        assert!(!root.join("b").exists());
        nydusd.client.remount(at, &nydusd.request(&b, b_dir.path())).await.unwrap();
        assert!(!root.join("a").exists(), "{at}");
        assert_eq!(fs::read(root.join("b")).unwrap(), b"two");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn what_is_to_be_prefetched_comes_without_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    image.dir("/d");
    image.file("/d/listed by its directory", 0o644, &[1; 5000]);
    image.file("/asked for", 0o644, &[2; 10]);
    image.tree.prefetch = vec![image.tree.find(b"/d").unwrap()];
    let (bootstrap, _) = image.write(dir.path());
    let nydusd = Nydusd::start().await;
    let mut request = nydusd.request(&bootstrap, dir.path());
    request.prefetch_files = Some(vec!["/asked for".into(), "/not there".into()]);
    nydusd.client.mount("/i", &request).await.unwrap();
    let start = std::time::Instant::now();
    loop {
        let cache = nydusd.client.get("/api/v1/metrics/blobcache?id=/i").await.unwrap();
        if cache["data_all_ready"] == true {
            assert_eq!(cache["total"], 0);
            return;
        }
        assert!(start.elapsed().as_secs() < 10, "{cache}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn metrics_count_reads() {
    let (dir, bootstrap) = one_file("/a", &[5; 9000]);
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    fs::read(nydusd.mountpoint.join("a")).unwrap();
    let fs_metrics = nydusd.client.get("/api/v1/metrics?id=/").await.unwrap();
    assert_eq!(fs_metrics["data_read"], 9000);
    assert!(fs_metrics["fop_hits"][9].as_u64().unwrap() > 0);
    let cache = nydusd.client.get("/api/v1/metrics/blobcache").await.unwrap();
    assert_eq!(cache["data_all_ready"], true);
    let backend = nydusd.client.get("/api/v1/metrics/backend?id=/").await.unwrap();
    assert_eq!((&backend["backend_type"], &backend["read_amount_total"]), (&"localfs".into(), &9000.into()));
    assert!(nydusd.client.get("/api/v1/metrics/inflight").await.unwrap().is_null());
}

#[tokio::test]
async fn memory_stays_small_with_many_files() {
    let mut image = Image::new();
    let mut many = Image::new();
    image.file("/a", 0o644, b"x");
    for d in 0..100 {
        many.dir(&format!("/{d}"));
        for f in 0..1000 {
            many.file(&format!("/{d}/{f}"), 0o644, b"");
        }
    }
    many.file("/big", 0o644, &vec![7; 256 << 20]);
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (image.write(dir.path()).0, many.write(dir.path()).0);
    let nydusd = Nydusd::start().await;
    nydusd.mount("/small", &small, dir.path()).await;
    fs::read(nydusd.mountpoint.join("small/a")).unwrap();
    let with_one = nydusd.anonymous_memory();
    assert!(with_one < 20 << 20, "{with_one}");
    nydusd.mount("/large", &large, dir.path()).await;
    let found = Command::new("find").arg(nydusd.mountpoint.join("large")).arg("-ls").output().unwrap();
    assert_eq!(found.stdout.iter().filter(|byte| **byte == b'\n').count(), 100_102);
    let more = nydusd.anonymous_memory().saturating_sub(with_one);
    fs::read(nydusd.mountpoint.join("large/big")).unwrap();
    let busy = nydusd.anonymous_memory();
    println!("after reading 256 MiB: {busy}");
    assert!(busy < 32 << 20, "{busy}");
    println!("with one small image {with_one}, with 100,000 files {more} more");
    assert!(more <= 12 << 20, "{more}");
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

#[test]
fn modes_of_the_original_that_are_not_served_are_usage_errors() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nydusd")).args(["virtiofs", "--mountpoint", "/m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{:?}", output.status.signal());
}
