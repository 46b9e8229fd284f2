use super::{
    part::{Part, lock_opened},
    *,
};

fn digest(source: &str, digest: Option<&str>) -> Result<Option<String>, UsageError> {
    #[derive(clap::Parser)]
    struct Get {
        #[command(flatten)]
        args: Args,
    }
    let given = ["get", source, "-o", "f"]
        .into_iter()
        .chain(digest.into_iter().flat_map(|digest| ["--digest", digest]));
    wanted_digest(&<Get as clap::Parser>::parse_from(given).args)
}

#[test]
fn what_a_file_must_be_is_said_once() {
    let (one, other) = (format!("sha256:{}", "0".repeat(64)), format!("sha256:{}", "1".repeat(64)));
    let blob = format!("r.example/a@{one}");
    assert_eq!(digest(&blob, None).unwrap(), Some(one.clone()));
    assert_eq!(digest(&blob, Some(&one)).unwrap(), Some(one.clone()));
    assert_eq!(digest("http://h/f", None).unwrap(), None);
    assert_eq!(digest("http://h/f", Some(&other)).unwrap(), Some(other.clone()));
    for (source, said) in
        [(blob.as_str(), Some(other.as_str())), ("http://h/f", Some("md5:0")), ("r.example/a:1", None)]
    {
        assert!(digest(source, said).is_err(), "{source} {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_hashed_again_and_one_that_nobody_can_check_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("file");
    let mut part = Part::open(&target, true).await.unwrap();
    part.write(b"abc").unwrap();
    assert!(Part::open(&target, true).await.is_err(), "two at a time");
    drop(part);
    let mut part = Part::open(&target, true).await.unwrap();
    assert_eq!(part.len(), 3);
    part.write(b"def").unwrap();
    assert_eq!(part.digest(), "sha256:bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
    drop(part);
    assert_eq!(Part::open(&target, false).await.unwrap().len(), 0);
    Part::open(&target, true).await.unwrap().keep().await.unwrap();
    assert!(target.exists() && !dir.path().join("file.part").exists());
}

#[test]
fn a_part_that_was_taken_away_before_it_was_locked_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (path, target) = (dir.path().join("file.part"), dir.path().join("file"));
    let open = || std::fs::File::options().create(true).append(true).open(&path).unwrap();
    assert!(lock_opened(open(), &path, &target).unwrap().is_some());
    let opened = open();
    std::fs::rename(&path, &target).unwrap();
    assert!(lock_opened(opened, &path, &target).unwrap().is_none(), "it has its final name");
    let opened = open();
    std::fs::remove_file(&path).unwrap();
    drop(open());
    assert!(lock_opened(opened, &path, &target).unwrap().is_none(), "another has its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (target, other) = (dir.path().join("file"), dir.path().join("other"));
    std::fs::write(&other, "somebody's").unwrap();
    std::os::unix::fs::symlink(&other, dir.path().join("file.part")).unwrap();
    assert!(Part::open(&target, false).await.is_err());
    assert_eq!(std::fs::read(&other).unwrap(), b"somebody's");
}

#[test]
fn a_password_in_a_url_is_not_shown() {
    let source = Source::parse("http://me:secret@h/f?q").unwrap();
    assert_eq!(source.to_string(), "http://h/f?q");
    assert_eq!(source.name(), "f");
    assert!(Source::parse("http://[h/").is_err());
}
