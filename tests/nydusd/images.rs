//! Images that come, change and go in one daemon.

use std::{fs, path::Path, process::Command};

use nydusd_api::{ClientError, MountRequest};

use crate::{
    daemon::Nydusd,
    image::{Image, one_file},
};

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
            assert_eq!(cache["prefetch_unmerged_chunks"], 2);
            assert!(cache["prefetch_data_amount"].as_u64().unwrap() >= 5010, "{cache}");
            assert!(cache["prefetch_begin_time_secs"].as_u64().unwrap() > 1_700_000_000, "{cache}");
            return;
        }
        assert!(start.elapsed().as_secs() < 10, "{cache}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
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
