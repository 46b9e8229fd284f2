//! What the API tells and changes.

use std::{fs, time::Duration};

use nydusd_api::ClientError;

use crate::{
    daemon::Nydusd,
    image::{Image, one_file},
};

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
async fn metrics_count_reads() {
    let (dir, bootstrap) = one_file("/a", &[5; 9000]);
    let nydusd = Nydusd::serving(&bootstrap, dir.path()).await;
    fs::read(nydusd.mountpoint.join("a")).unwrap();
    let fs_metrics = nydusd.client.get("/api/v1/metrics?id=/").await.unwrap();
    assert_eq!(fs_metrics["data_read"], 9000);
    assert!(fs_metrics["fop_hits"][9].as_u64().unwrap() > 0);
    // Chunks are given to readers first and stored then.
    let stored = async {
        while nydusd.client.get("/api/v1/metrics/blobcache").await.unwrap()["data_all_ready"] != true {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stored).await.expect("everything is stored in the end");
    let backend = nydusd.client.get("/api/v1/metrics/backend?id=/").await.unwrap();
    assert_eq!((&backend["backend_type"], &backend["read_amount_total"]), (&"localfs".into(), &9000.into()));
    assert!(nydusd.client.get("/api/v1/metrics/inflight").await.unwrap().is_null());
}

#[tokio::test]
async fn both_versions_of_the_api_tell_of_the_daemon() {
    let nydusd = Nydusd::start_with(&["--id", "one"], None).await;
    for version in ["v1", "v2"] {
        let (status, body) = nydusd.call("GET", &format!("/api/{version}/daemon"), "");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["state"], &body["id"]), (200, &"RUNNING".into(), &"one".into()), "{body}");
    }
    for (method, path) in [("GET", "/api/v2/blobs"), ("PUT", "/api/v2/blobs"), ("DELETE", "/api/v2/daemon")] {
        let (status, body) = nydusd.call(method, path, "");
        assert_eq!(status, 501, "{body}");
        assert!(body.contains("UNSUPPORTED") && body.contains(path), "{body}");
    }
}

#[tokio::test]
async fn the_log_level_is_that_of_the_flag_until_the_api_changes_it() {
    let nydusd = Nydusd::start_with(&["--log-level", "warn"], None).await;
    let (dir, bootstrap) = one_file("/a", b"x");
    nydusd.mount("/silently", &bootstrap, dir.path()).await;
    assert_eq!(nydusd.log(), "");
    assert_eq!(nydusd.call("PUT", "/api/v2/daemon", r#"{"log_level":"info"}"#).0, 204);
    nydusd.mount("/aloud", &bootstrap, dir.path()).await;
    assert!(nydusd.log().contains("mounted image=/aloud"), "{}", nydusd.log());
    assert_eq!(nydusd.call("PUT", "/api/v1/daemon", r#"{"log_level":"warning"}"#).0, 204);
    nydusd.client.umount("/aloud").await.unwrap();
    assert!(!nydusd.log().contains("unmounted"), "{}", nydusd.log());
    let (status, body) = nydusd.call("PUT", "/api/v1/daemon", r#"{"log_level":"loud"}"#);
    assert!(status == 400 && body.contains("loud"), "{status} {body}");
}
