//! Images of the original tools: each is served whole, or refused by name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nydusd_api::ClientError;
use rafs::blob::read_toc;

use crate::{daemon::Nydusd, listing};

/// Those that tests of inodes mount are named here too, so that none is forgotten.
const SERVED: [&str; 6] = ["zstd", "lz4_block", "none", "mib", "batch", "layers"];
const REFUSED: [(&str, &str); 3] = [
    ("enc", "encryption is not supported"),
    ("tarfs", "tarfs image (its chunks have no digests) is not supported"),
    ("zran", "gzip layer with random-access contexts (zran) is not supported"),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

async fn is_served(sample: &str) {
    let dir = golden(sample);
    let nydusd = Nydusd::serving(&dir.join("bootstrap"), &dir).await;
    let got = listing::list(&nydusd.mountpoint, true);
    let expected = listing::expected(&dir.join("expected.jsonl.gz"));
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected, "{}", nydusd.log());
    }
    assert_eq!(got.len(), expected.len());
}

#[tokio::test]
async fn files_of_several_chunks_are_read() {
    is_served("mib").await;
}

#[tokio::test]
async fn chunks_that_were_compressed_together_are_read() {
    is_served("batch").await;
}

/// The bootstrap of a sample; one stands in its blob.
fn bootstrap(sample: &str, aside: &Path) -> PathBuf {
    let plain = golden(sample).join("bootstrap");
    if plain.exists() {
        return plain;
    }
    let mut files = fs::read_dir(golden(sample)).unwrap().map(|entry| entry.unwrap().path());
    let blob =
        fs::read(files.find(|path| path.extension().is_some_and(|end| end == "nydus")).unwrap()).unwrap();
    let toc = read_toc(&blob[blob.len() - 4096..], blob.len() as u64).unwrap().unwrap();
    let part = toc.iter().find(|part| part.name == "image.boot").unwrap();
    let begin = usize::try_from(part.compressed_offset).unwrap();
    let stored = &blob[begin..begin + usize::try_from(part.compressed_size).unwrap()];
    let path = aside.join("bootstrap");
    fs::write(&path, part.decode(stored).unwrap()).unwrap();
    path
}

#[tokio::test]
async fn what_could_not_be_read_is_not_mounted_and_the_reason_is_named() {
    let nydusd = Nydusd::start().await;
    for (sample, reason) in REFUSED {
        let aside = tempfile::tempdir().unwrap();
        let request = nydusd.request(&bootstrap(sample, aside.path()), &golden(sample));
        match nydusd.client.mount("/image", &request).await {
            Err(ClientError::Refused { status: 400, message, .. }) => {
                assert!(message.contains(reason), "{sample}: {message}");
            }
            other => panic!("{sample}: {other:?}"),
        }
        assert!(!nydusd.mountpoint.join("image").exists());
    }
}

#[test]
fn no_sample_is_forgotten() {
    let mut known: Vec<_> = SERVED.into_iter().chain(REFUSED.map(|(name, _)| name)).collect();
    let mut samples: Vec<_> = fs::read_dir(golden(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    known.sort_unstable();
    samples.sort_unstable();
    assert_eq!(samples, known);
}
