//! What containerd's own snapshotter suite asks for, with real mounts: needs root.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

use containerd_snapshots::{Info, Kind, Snapshotter};
use tonic_09::Code;

use suite::{code, map, names, tree, with_suite};

#[path = "snapshotter_conformance/suite.rs"]
mod suite;

const REF: &str = "containerd.io/snapshot.ref";

#[test]
fn child_shows_its_parents_tree_and_keeps_its_changes() {
    with_suite(async |suite| {
        suite
            .layer("base", "", |root| {
                fs::write(root.join("a"), "1").unwrap();
                fs::create_dir(root.join("d")).unwrap();
                fs::write(root.join("d/b"), "2").unwrap();
                symlink("a", root.join("l")).unwrap();
            })
            .await;
        let base = suite.stat("base").await.unwrap();
        assert_eq!((base.kind, base.parent.as_str()), (Kind::Committed, ""));
        assert_eq!(code(suite.stat("work").await), Code::NotFound);

        let mounts = suite.prepare("child", "base").await.unwrap();
        let child = suite.stat("child").await.unwrap();
        assert_eq!((child.kind, child.parent.as_str()), (Kind::Active, "base"));
        assert_eq!(suite.service.mounts("child".into()).await.unwrap(), mounts, "the same mounts every time");
        let lower = suite.tree("base").await;
        suite.mounted(&mounts, |root| {
            assert_eq!(tree(root), lower);
            fs::write(root.join("a"), "changed").unwrap();
            fs::remove_file(root.join("d/b")).unwrap();
            fs::write(root.join("new"), "3").unwrap();
        });
        suite.commit("top", "child").await.unwrap();
        let top = suite.tree("top").await;
        assert_eq!(names(&top), ["a", "d", "l", "new"]);
        assert_eq!(top["a"].2, b"changed");
        assert_eq!(suite.tree("base").await, lower, "the parent does not change");
        assert!(suite.service.usage("top".into()).await.unwrap().inodes >= 3);
    });
}

#[test]
fn codes_are_those_of_containerds_own_snapshotters() {
    with_suite(async |suite| {
        suite.layer("base", "", |_| {}).await;
        suite.layer("child", "base", |_| {}).await;
        suite.prepare("active", "base").await.unwrap();
        suite.view("view", "base").await.unwrap();
        assert_eq!(code(suite.prepare("active", "base").await), Code::AlreadyExists);
        assert_eq!(code(suite.view("active", "base").await), Code::AlreadyExists);
        assert_eq!(code(suite.view("view", "base").await), Code::AlreadyExists);
        assert_eq!(code(suite.prepare("base", "").await), Code::AlreadyExists);
        assert_eq!(code(suite.prepare("k", "nothing").await), Code::NotFound);
        assert_eq!(code(suite.prepare("k", "active").await), Code::InvalidArgument);
        assert_eq!(code(suite.prepare("", "base").await), Code::InvalidArgument);
        assert_eq!(code(suite.commit("base", "active").await), Code::AlreadyExists);
        assert_eq!(code(suite.commit("new", "nothing").await), Code::NotFound);
        assert_eq!(code(suite.commit("new", "view").await), Code::FailedPrecondition);
        assert_eq!(code(suite.commit("new", "base").await), Code::FailedPrecondition);
        assert_eq!(
            code(suite.service.mounts("base".into()).await.map_err(Into::into)),
            Code::FailedPrecondition
        );
        assert_eq!(code(suite.service.usage("nothing".into()).await.map_err(Into::into)), Code::NotFound);
        assert_eq!(code(suite.remove("nothing").await), Code::NotFound);
        assert_eq!(code(suite.list(&["=="]).await), Code::InvalidArgument);
        let refused = suite.remove("base").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("remove"));
        for name in ["child", "active", "view", "base"] {
            suite.remove(name).await.unwrap();
        }
        assert!(suite.list(&[]).await.unwrap().is_empty());
    });
}

#[test]
fn key_and_name_can_be_used_again_once_removed() {
    with_suite(async |suite| {
        suite.layer("base", "", |_| {}).await;
        suite.prepare("k", "base").await.unwrap();
        suite.remove("k").await.unwrap();
        suite.view("k", "base").await.unwrap();
        suite.remove("k").await.unwrap();
        suite.prepare("k", "base").await.unwrap();
        suite.remove("k").await.unwrap();
        suite.remove("base").await.unwrap();
        suite.layer("base", "", |root| fs::write(root.join("second"), "").unwrap()).await;
        assert_eq!(names(&suite.tree("base").await), ["second"]);
        suite.service.clear().await.unwrap();
        assert_eq!(
            fs::read_dir(suite.dir.join("root/snapshots")).unwrap().count(),
            1,
            "what was removed is gone"
        );
    });
}

#[test]
fn view_is_read_only_whatever_it_stands_on() {
    with_suite(async |suite| {
        suite.layer("one", "", |root| fs::write(root.join("a"), "").unwrap()).await;
        suite.layer("two", "one", |root| fs::write(root.join("b"), "").unwrap()).await;
        for parent in ["", "one", "two"] {
            let mounts = suite.view("v", parent).await.unwrap();
            let written = suite.mounted(&mounts, |root| fs::write(root.join("x"), ""));
            assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EROFS), "{parent:?}");
            suite.remove("v").await.unwrap();
        }
    });
}

#[test]
fn changes_to_lower_layers_survive_commit_and_view() {
    with_suite(async |suite| {
        suite
            .layer("one", "", |root| {
                fs::create_dir_all(root.join("etc/deep")).unwrap();
                fs::create_dir(root.join("gone")).unwrap();
                for file in ["etc/deep/file", "gone/old", "moved", "deleted", "owned"] {
                    fs::write(root.join(file), file).unwrap();
                }
            })
            .await;
        suite
            .layer("two", "one", |root| {
                fs::write(root.join("etc/deep/file"), "updated").unwrap();
                fs::remove_dir_all(root.join("gone")).unwrap();
                fs::create_dir(root.join("gone")).unwrap();
                fs::write(root.join("gone/new"), "").unwrap();
                fs::hard_link(root.join("moved"), root.join("here")).unwrap();
                fs::remove_file(root.join("moved")).unwrap();
                fs::remove_file(root.join("deleted")).unwrap();
                chown(root.join("owned"), Some(1), Some(1)).unwrap();
                fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o1700)).unwrap();
                chown(root.join("etc"), Some(7), None).unwrap();
            })
            .await;
        suite.layer("three", "two", |root| fs::rename(root.join("here"), root.join("there")).unwrap()).await;
        let tree = suite.tree("three").await;
        let wanted = ["etc", "etc/deep", "etc/deep/file", "gone", "gone/new", "owned", "there"];
        assert_eq!(names(&tree), wanted);
        assert_eq!(tree["etc/deep/file"].2, b"updated");
        assert_eq!(tree["there"].2, b"moved");
        assert_eq!((tree["etc"].0 & 0o7777, tree["etc"].1, tree["owned"].1), (0o1700, 7, 1));
    });
}

#[test]
fn root_has_mode_0755_and_the_owner_of_its_parent() {
    with_suite(async |suite| {
        suite
            .layer("one", "", |root| {
                assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o755);
                chown(root, Some(11), Some(12)).unwrap();
            })
            .await;
        let mounts = suite.prepare("k", "one").await.unwrap();
        suite.mounted(&mounts, |root| {
            let found = fs::metadata(root).unwrap();
            assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o755, 11, 12));
        });
    });
}

#[test]
fn chain_of_128_layers_shows_every_file() {
    with_suite(async |suite| {
        let mut parent = String::new();
        for n in 1..=128 {
            let name = format!("layer{n}");
            suite.layer(&name, &parent, |root| fs::write(root.join(&name), "").unwrap()).await;
            parent = name;
        }
        assert_eq!(names(&suite.tree(&parent).await).len(), 128);
        let mounts = suite.prepare("top", &parent).await.unwrap();
        assert_eq!(suite.mounted(&mounts, |root| fs::read_dir(root).unwrap().count()), 128);
    });
}

#[test]
fn update_changes_labels_and_nothing_else() {
    with_suite(async |suite| {
        suite.prepare_labelled("k", "", &[("a", "1"), ("b", "2")]).await.unwrap();
        let born = suite.stat("k").await.unwrap();
        assert_eq!(born.created_at, born.updated_at);
        let with = |labels: &[(&str, &str)]| Info {
            name: "k".into(),
            parent: "other".into(),
            kind: Kind::Committed,
            labels: map(labels),
            ..Info::default()
        };
        let updated = suite.update(with(&[("c", "3"), ("a.b/c", "4")]), &[]).await.unwrap();
        assert_eq!(updated.labels, map(&[("c", "3"), ("a.b/c", "4")]));
        assert_eq!((updated.kind, updated.parent.as_str()), (Kind::Active, ""));
        assert_eq!(updated.created_at, born.created_at);
        assert!(updated.updated_at > born.updated_at);
        let updated =
            suite.update(with(&[("a.b/c", "5"), ("x", "y")]), &["labels.a.b/c", "labels.c"]).await.unwrap();
        assert_eq!(updated.labels, map(&[("a.b/c", "5")]), "a key without a value goes");
        let updated = suite.update(with(&[("d", "6")]), &["labels"]).await.unwrap();
        assert_eq!(updated.labels, suite.stat("k").await.unwrap().labels);
        assert_eq!(code(suite.update(with(&[]), &["parent"]).await), Code::InvalidArgument);
        assert_eq!(code(suite.update(Info { name: "no".into(), ..with(&[]) }, &[]).await), Code::NotFound);
    });
}

#[test]
fn remote_layer_is_answered_with_already_exists_and_found_by_containerds_question() {
    with_suite(async |suite| {
        let blob = |chain| {
            let image = ("containerd.io/snapshot/cri.image-ref", "example.com/app:1");
            [(REF, chain), ("containerd.io/snapshot/nydus-blob", "true"), image]
        };
        let lower = suite.prepare_labelled("ns/1/extract-1 sha256:1", "", &blob("sha256:1")).await;
        assert_eq!(code(lower), Code::AlreadyExists);
        let lowest = format!("labels.\"{REF}\"==sha256:1,parent==\"\"");
        assert_eq!(suite.list(&[&lowest]).await.unwrap().len(), 1);
        let nameless =
            suite.prepare_labelled("ns/2/extract-2 sha256:2", "sha256:1", &blob("sha256:2")[..2]).await;
        assert!(nameless.unwrap_err().message().contains("shoal pull"));
        for key in ["ns/2/extract-2 sha256:2", "other/3/extract-2 sha256:2"] {
            assert_eq!(
                code(suite.prepare_labelled(key, "sha256:1", &blob("sha256:2")).await),
                Code::AlreadyExists
            );
        }
        let question = format!("labels.\"{REF}\"==sha256:2,parent==\"sha256:1\"");
        let found = suite.list(&[&question]).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, Kind::Committed);
        assert_eq!(found[0].labels[REF], "sha256:2");
        assert_eq!(suite.list(&[]).await.unwrap().len(), 2, "no active key is left");

        let boot = [(REF, "sha256:3"), ("containerd.io/snapshot/nydus-bootstrap", "true")];
        let mounts = suite.prepare_labelled("boot", &found[0].name, &boot).await.unwrap();
        assert_eq!(mounts[0].r#type, "bind", "the differ writes straight into the layer's directory");
        assert_eq!(code(suite.view("v", &found[0].name).await), Code::FailedPrecondition);
    });
}
