use std::time::Duration;

use super::*;

async fn open(dir: &Path) -> Database {
    Database::open(&dir.join("metadata.db")).await.unwrap()
}

fn new(kind: Kind, name: &str, parent: &str) -> NewSnapshot {
    let parent = Some(parent.to_owned()).filter(|parent| !parent.is_empty());
    NewSnapshot { name: name.into(), parent, kind, labels: Labels::default() }
}

async fn make(database: &Database, kind: Kind, name: &str, parent: &str) -> Result<SnapshotId, MetaError> {
    database.create(new(kind, name, parent), |_, _| Ok(())).await
}

async fn layer(database: &Database, name: &str, parent: &str) {
    make(database, Kind::Active, "work", parent).await.unwrap();
    database.commit(name, "work", &Labels::default(), Usage { bytes: 7, inodes: 3 }).await.unwrap();
}

#[tokio::test]
async fn keys_and_committed_names_share_one_space() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    assert!(matches!(make(&database, Kind::Active, "a", "").await, Err(MetaError::Exists { .. })));
    make(&database, Kind::View, "k", "a").await.unwrap();
    assert!(matches!(make(&database, Kind::Active, "k", "a").await, Err(MetaError::Exists { .. })));
}

#[tokio::test]
async fn parent_must_be_there_and_committed() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    assert!(matches!(make(&database, Kind::Active, "k", "none").await, Err(MetaError::NotFound { .. })));
    make(&database, Kind::Active, "k", "").await.unwrap();
    assert!(matches!(
        make(&database, Kind::Active, "l", "k").await,
        Err(MetaError::ParentNotCommitted { .. })
    ));
}

#[tokio::test]
async fn commit_replaces_labels_and_takes_the_key_away() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    let mut active = new(Kind::Active, "k", "");
    active.labels = [("old", "1")].into();
    let id = database.create(active, |_, _| Ok(())).await.unwrap();
    database.commit("a", "k", &[("new", "2")].into(), Usage { bytes: 7, inodes: 3 }).await.unwrap();
    let committed = database.get("a").await.unwrap();
    assert_eq!((committed.id, committed.kind), (id, Kind::Committed));
    assert_eq!(committed.labels, [("new", "2")].into());
    assert_eq!(committed.usage, Usage { bytes: 7, inodes: 3 });
    assert_eq!(committed.created, committed.updated);
    assert!(matches!(database.get("k").await, Err(MetaError::NotFound { .. })));
    let again = database.commit("b", "a", &Labels::default(), Usage::default()).await;
    assert!(matches!(again, Err(MetaError::NotActive { .. })));
}

#[tokio::test]
async fn snapshot_with_children_stays() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    layer(&database, "b", "a").await;
    let refused = database.remove("a").await.unwrap_err();
    assert!(refused.to_string().contains("remove"), "containerd's suite looks for this word");
    database.remove("b").await.unwrap();
    database.remove("a").await.unwrap();
    assert!(database.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn numbers_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    let first = make(&database, Kind::Active, "k", "").await.unwrap();
    database.remove("k").await.unwrap();
    assert!(make(&database, Kind::Active, "k", "").await.unwrap() > first);
}

#[tokio::test]
async fn failed_directories_leave_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    let failing = |_: SnapshotId, _: &[Record]| Err(io::Error::other("disk full"));
    let failed = database.create(new(Kind::Active, "k", ""), failing).await;
    assert!(matches!(failed, Err(MetaError::Directories { .. })));
    make(&database, Kind::Active, "k", "").await.unwrap();
}

#[tokio::test]
async fn update_moves_the_time_of_change_forward_only() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    let before = database.get("a").await.unwrap();
    let after = database.update("a", |labels| labels.0.clear()).await.unwrap();
    assert!(after.updated > before.updated);
    assert_eq!(after.created, before.created);
    assert_eq!(database.get("a").await.unwrap(), after);
}

fn remote(key: &str, parent: &str, chain_id: &str) -> NewSnapshot {
    let mut new = new(Kind::Active, key, parent);
    new.labels = [(SNAPSHOT_REF, chain_id)].into();
    new
}

#[tokio::test]
async fn remote_layer_is_committed_once_under_its_chain_id() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    let racing = (0..8).map(|n| {
        let database = database.clone();
        async move { database.commit_remote("sha256:1", remote(&format!("k{n}"), "", "sha256:1")).await }
    });
    for result in futures_util::future::join_all(racing).await {
        result.unwrap();
    }
    let all = database.list().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].name.as_str(), all[0].kind, all[0].content),
        ("sha256:1", Kind::Committed, Content::Remote)
    );
    assert_eq!(all[0].labels.chain_id(), Some("sha256:1"));
}

#[tokio::test]
async fn remote_layer_on_another_parent_is_another_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    layer(&database, "b", "").await;
    for (key, parent) in [("k1", "a"), ("k2", "b"), ("k3", "b")] {
        database.commit_remote("sha256:1", remote(key, parent, "sha256:1")).await.unwrap();
    }
    let all = database.list().await.unwrap();
    let layers: Vec<_> = all.iter().filter(|record| record.content == Content::Remote).collect();
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[1].parent.as_deref(), Some("b"), "containerd asks with the parent it gave");
}

#[tokio::test]
async fn chain_lists_parents_nearest_first_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    let mut parent = String::new();
    for n in 0..128 {
        let name = format!("layer{n}");
        layer(&database, &name, &parent).await;
        parent = name;
    }
    let chain = database.chain(&parent).await.unwrap();
    assert_eq!(chain.len(), 128);
    assert!(chain.iter().zip((0..128).rev()).all(|(record, n)| record.name == format!("layer{n}")));
}

#[tokio::test]
async fn only_layers_below_containers_and_views_are_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    layer(&database, "b", "a").await;
    layer(&database, "c", "a").await;
    assert!(database.in_use().await.unwrap().is_empty());
    make(&database, Kind::View, "v", "b").await.unwrap();
    let mut names: Vec<_> = database.in_use().await.unwrap().into_iter().map(|record| record.name).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn everything_answered_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    make(&database, Kind::Active, "k", "a").await.unwrap();
    let before = database.list().await.unwrap();
    // As after a kill: nothing is closed.
    let again = open(dir.path()).await;
    assert_eq!(again.list().await.unwrap(), before);
}

#[tokio::test]
async fn database_of_another_program_or_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("metadata.db"), vec![0x5a; 8192]).unwrap();
    let refused = Database::open(&dir.path().join("metadata.db")).await.unwrap_err();
    assert!(refused.to_string().contains("--root"));
    let newer = dir.path().join("newer.db");
    let database = Database::open(&newer).await.unwrap();
    sqlx::query("PRAGMA user_version = 99").execute(&database.write).await.unwrap();
    assert!(matches!(Database::open(&newer).await, Err(MetaError::Newer { version: 99, .. })));
}

#[tokio::test]
async fn list_does_not_wait_for_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path()).await;
    layer(&database, "a", "").await;
    let _writing = database.begin().await.unwrap();
    let listed = tokio::time::timeout(Duration::from_secs(5), database.list()).await;
    assert_eq!(listed.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_owner_reads_the_labels() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let _database = open(dir.path()).await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.file_name());
    }
}
