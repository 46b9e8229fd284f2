//! Backends and bytes that fail.

use std::fs;

use crate::{
    daemon::Nydusd,
    image::{Image, one_file},
};

#[tokio::test]
async fn a_broken_chunk_gives_an_error_and_a_log_line_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    image.dir("/dir");
    image.file("/dir/file", 0o644, &[7; 100_000]);
    let (bootstrap, blob) = image.write(dir.path());
    let sound = fs::read(&blob).unwrap();
    let mut broken = sound.clone();
    broken[70_000] ^= 1;
    fs::write(&blob, broken).unwrap();
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    let path = nydusd.mountpoint.join("dir/file");
    let error = fs::read(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let log = nydusd.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("does not match its digest")).collect();
    let [told] = told[..] else { panic!("told {} times: {log}", told.len()) };
    for part in ["ERROR", "image=/ ", "path=\"/dir/file\"", "backend=\"localfs", "chunk 1 of blob"] {
        assert!(told.contains(part), "{part}: {told}");
    }
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
