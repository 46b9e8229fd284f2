use super::*;
use crate::{
    layer::{Entries, Position},
    source::{Entry, EntryKind},
};

pub(super) const DIRECTORY: EntryKind = EntryKind::Directory;

fn file() -> EntryKind {
    EntryKind::File(0)
}

/// One layer; the owner of every entry is the layer's number.
pub(super) fn layer(number: u32, entries: &[(&str, EntryKind)]) -> Tree {
    unpacked(number, entries, Position::Unknown)
}

fn unpacked(number: u32, entries: &[(&str, EntryKind)], position: Position<'_>) -> Tree {
    let mut layer = Entries::default();
    for (path, kind) in entries {
        let meta = Meta { permissions: 0o755, uid: number, mtime: i64::from(number), ..Meta::default() };
        layer.push(Entry { path: (*path).into(), meta, kind: kind.clone() }).unwrap();
    }
    layer.unpack(4096, position).unwrap()
}

pub(super) fn merge(rules: Rules, layers: Vec<Tree>) -> Tree {
    let mut overlay = Overlay::new(4096, rules);
    for layer in layers {
        overlay.push(&layer, "layer").unwrap();
    }
    overlay.finish()
}

/// Paths with their owners.
pub(super) fn list(tree: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![(String::new(), Tree::ROOT)];
    while let Some((path, id)) = todo.pop() {
        for (name, child) in tree.children(id).into_iter().flatten() {
            let path = format!("{path}/{}", String::from_utf8_lossy(name));
            all.push(format!("{path} {}", tree.inode(*child).meta.uid));
            todo.push((path, *child));
        }
    }
    all.sort();
    all
}

#[test]
fn whiteouts_remove_lower_entries_and_are_not_shown() {
    let lower = layer(1, &[("a", file()), ("d/b", file()), ("d/c", file())]);
    let upper = layer(2, &[(".wh.a", file()), ("d/.wh.b", file()), (".wh.none", file())]);
    assert_eq!(list(&merge(Rules::Nydus, vec![lower, upper])), ["/d 0", "/d/c 1"]);
}

#[test]
fn whiteouts_of_the_lowest_layer_are_not_shown() {
    let only = layer(1, &[(".wh.a", file()), ("d/.wh..wh..opq", file()), ("d/x", file())]);
    assert_eq!(list(&merge(Rules::Nydus, vec![only])), ["/d 0", "/d/x 1"]);
}

#[test]
fn an_opaque_directory_hides_what_was_below_but_not_its_own_layer() {
    let lower = layer(1, &[("d", DIRECTORY), ("d/a", file()), ("d/s/b", file())]);
    let upper = layer(2, &[("d/new", file()), ("d", DIRECTORY), ("d/.wh..wh..opq", file())]);
    assert_eq!(list(&merge(Rules::Nydus, vec![lower, upper])), ["/d 2", "/d/new 2"]);
}

#[test]
fn a_whiteout_and_an_entry_of_one_name_leave_only_the_entry() {
    let lower = layer(1, &[("d/old", file())]);
    let upper = layer(2, &[("d/new", file()), (".wh.d", file())]);
    assert_eq!(list(&merge(Rules::Nydus, vec![lower, upper])), ["/d 0", "/d/new 2"]);
}

#[test]
fn types_change_both_ways() {
    let lower = layer(1, &[("d/x", file()), ("f", file())]);
    let upper = layer(2, &[("d", file()), ("f/x", file())]);
    assert_eq!(list(&merge(Rules::Nydus, vec![lower, upper])), ["/d 2", "/f 0", "/f/x 2"]);
}

#[test]
fn an_implied_directory_keeps_the_lower_attributes_and_a_real_one_replaces_them() {
    let lower = || layer(1, &[("d", DIRECTORY), ("d/a", file())]);
    let implied = merge(Rules::Nydus, vec![lower(), layer(2, &[("d/b", file())])]);
    assert_eq!(list(&implied), ["/d 1", "/d/a 1", "/d/b 2"]);
    let real = merge(Rules::Nydus, vec![lower(), layer(2, &[("d", DIRECTORY)])]);
    assert_eq!(list(&real), ["/d 2", "/d/a 1"]);
}

#[test]
fn an_implied_directory_over_nothing_has_plain_attributes() {
    let tree = merge(Rules::Containerd, vec![unpacked(1, &[("d/a", file())], Position::Lowest)]);
    let meta = &tree.inode(tree.find(b"d").unwrap()).meta;
    assert_eq!((meta.permissions, meta.mtime, meta.mtime_nsec), (0o755, 0, 0));
}

#[test]
fn link_counts_are_those_of_the_layer_whatever_is_left_of_its_names() {
    let link = EntryKind::HardLink(b"a".to_vec());
    let lower = unpacked(1, &[("a", file()), ("b", link), ("c", file())], Position::Lowest);
    let upper = unpacked(2, &[(".wh.b", file())], Position::Above(&[]));
    let tree = merge(Rules::Containerd, vec![lower, upper]);
    assert_eq!(list(&tree), ["/a 1", "/c 1"]);
    assert_eq!(tree.links, BTreeMap::from([(tree.find(b"a").unwrap(), 2)]));
}

#[test]
fn hard_links_stay_together_until_a_layer_replaces_one() {
    let link = |target: &str| EntryKind::HardLink(target.into());
    let lower = || layer(1, &[("a", file()), ("b", link("a")), ("c", link("a"))]);
    let tree = merge(Rules::Nydus, vec![lower(), layer(2, &[("b", file())])]);
    assert_eq!(tree.find(b"a"), tree.find(b"c"));
    assert_ne!(tree.find(b"a"), tree.find(b"b"));
    let across = merge(Rules::Nydus, vec![lower(), layer(2, &[("new", link("a")), (".wh.a", file())])]);
    assert_eq!(across.find(b"new"), across.find(b"c"));
    assert!(across.inode(across.find(b"new").unwrap()).meta.xattrs.is_empty());
}

#[test]
fn a_hard_link_to_nothing_is_refused_and_named() {
    let lost = layer(1, &[("b", EntryKind::HardLink(b"no/such".to_vec()))]);
    let error = Overlay::new(4096, Rules::Nydus).push(&lost, "layer").unwrap_err().to_string();
    assert!(error.contains("no/such"), "{error}");
}

#[test]
fn containerds_rules_hide_device_whiteouts_and_the_roots_attributes() {
    let devices = [("w", EntryKind::CharDevice(0)), ("null", EntryKind::CharDevice(0x103))];
    let mut odd = unpacked(1, &devices, Position::Above(&[]));
    odd.inode_mut(Tree::ROOT).meta.permissions = 0o700;
    let tree = merge(Rules::Containerd, vec![layer(0, &[("w", file())]), odd]);
    assert_eq!(list(&tree), ["/null 1"]);
    assert_eq!(tree.inode(Tree::ROOT).meta.permissions, 0o755);
}

#[test]
fn layers_of_another_chunk_size_are_refused() {
    let mut overlay = Overlay::new(8192, Rules::Nydus);
    assert!(matches!(overlay.push(&layer(1, &[]), "upper"), Err(BuildError::Mismatch { .. })));
}
