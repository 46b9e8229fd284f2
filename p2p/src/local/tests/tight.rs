//! Disks without room for what is asked for.

use super::*;
use crate::scratch::Disk;

const MIB: usize = 1 << 20;

/// A node whose pieces are on a disk of 8 MiB, and a blob without a list.
struct Tight {
    scene: Scene,
    disk: Disk,
    digest: String,
    bytes: Vec<u8>,
}

impl Tight {
    async fn new(mib: usize) -> Self {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::new(8 << 20));
        std::os::unix::fs::symlink(disk.path(), dir.path().join("1")).unwrap();
        let scene = scene_on(dir, 1, u64::MAX, &[]).await;
        let mut bytes = vec![0; mib * MIB];
        fastrand::Rng::with_seed(4).fill(&mut bytes);
        let digest = scene.registry.put_blob(bytes.clone());
        Self { scene, disk, digest, bytes }
    }

    fn stored(&self) -> u64 {
        self.scene.locals[0].engine.store().bytes()
    }

    async fn introduce(&self) -> StatusCode {
        let uri = format!("/v1/blobs/{}?repository={}/shared", self.digest, self.scene.registry.host());
        self.scene.call(0, Request::put(uri).body(Body::empty()).unwrap()).await.0
    }

    /// Reads one MiB; what is said where that is refused.
    async fn read(&self, number: usize) -> Result<(), (StatusCode, String)> {
        let range = format!("bytes={}-{}", number * MIB, (number + 1) * MIB - 1);
        let request = Request::get(format!("/v1/blobs/{}?unchecked=true", self.digest));
        let request = request.header(header::RANGE, range).body(Body::empty()).unwrap();
        let (status, body) = self.scene.call(0, request).await;
        if status != StatusCode::PARTIAL_CONTENT {
            return Err((status, String::from_utf8(body).unwrap()));
        }
        assert!(body == self.bytes[number * MIB..(number + 1) * MIB]);
        Ok(())
    }
}

fn is_full(refused: Result<(), (StatusCode, String)>) {
    let (status, message) = refused.unwrap_err();
    assert!(
        status == StatusCode::INSUFFICIENT_STORAGE && message.contains("bytes free"),
        "{status}: {message}"
    );
}

#[tokio::test]
async fn a_blob_that_does_not_fit_the_disk_comes_whole_from_the_registry_and_is_not_begun() {
    let tight = Tight::new(12).await;
    let (digest, host) = (&tight.digest, tight.scene.registry.host());
    let pull = format!("/v2/shared/blobs/{digest}?ns={host}");
    let (status, body) = tight.scene.call(0, Request::get(pull).body(Body::empty()).unwrap()).await;
    assert!(status == StatusCode::OK && body == tight.bytes);
    assert_eq!(tight.stored(), 0);
}

#[tokio::test]
async fn of_a_blob_that_does_not_fit_the_disk_parts_are_read_until_it_is_full() {
    let tight = Tight::new(12).await;
    assert_eq!(tight.introduce().await, StatusCode::OK);
    for number in 0..4 {
        tight.read(number).await.unwrap();
    }
    let mut last = Ok(());
    for number in 4..12 {
        last = tight.read(number).await;
    }
    is_full(last);
    tight.read(0).await.expect("what is here is read");
    let asked = tight.scene.registry.requests().len();
    assert!(asked <= 13, "{asked} requests for how long it is and for each MiB once");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tight.scene.registry.requests().len(), asked, "nobody waits for what did not fit");
}

#[tokio::test]
async fn a_disk_that_others_fill_meanwhile_refuses_until_there_is_room_again() {
    let tight = Tight::new(4).await;
    assert_eq!(tight.introduce().await, StatusCode::OK);
    tight.read(0).await.unwrap();
    let filler = tight.disk.path().join("filler");
    std::fs::write(&filler, vec![7; 7 * MIB - (MIB >> 2)]).unwrap();
    is_full(tight.read(1).await);
    tight.read(0).await.unwrap();
    std::fs::remove_file(filler).unwrap();
    for number in 1..4 {
        tight.read(number).await.unwrap();
    }
}
