use super::*;

fn entry(path: &str, kind: EntryKind) -> Entry {
    let meta = Meta { permissions: 0o640, uid: 5, mtime: 7, ..Meta::default() };
    Entry { path: path.into(), meta, kind }
}

fn layer(entries: Vec<Entry>) -> Result<Tree, BuildError> {
    at(Position::Unknown, entries)
}

fn at(position: Position<'_>, entries: Vec<Entry>) -> Result<Tree, BuildError> {
    let mut layer = Entries::default();
    for entry in entries {
        layer.push(entry)?;
    }
    layer.unpack(4096, position)
}

fn file(path: &str) -> Entry {
    entry(path, EntryKind::File(1))
}

fn symlink(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::Symlink(target.into()))
}

fn hard_link(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::HardLink(target.into()))
}

fn find(tree: &Tree, path: &str) -> InodeId {
    tree.find(path.as_bytes()).unwrap_or_else(|| panic!("{path} is missing"))
}

#[test]
fn names_are_cleaned_and_missing_parents_implied() {
    let tree = layer(vec![file("./a//b/../c"), file("/x")]).unwrap();
    assert!(is_implied(&tree.inode(find(&tree, "a")).meta));
    find(&tree, "a/c");
    find(&tree, "x");
}

#[test]
fn an_entry_or_link_that_leaves_the_root_is_refused_and_named() {
    for bad in [file("../x"), file("a/../../x"), hard_link("l", "../../etc/shadow")] {
        let name = String::from_utf8(bad.path.clone()).unwrap();
        let error = layer(vec![bad]).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("root"), "{error}");
    }
}

#[test]
fn a_symbolic_link_to_above_the_root_stays_below_it() {
    let tree =
        layer(vec![symlink("up", "../../.."), file("up/x"), symlink("abs", "/d"), file("abs/y")]).unwrap();
    find(&tree, "x");
    find(&tree, "d/y");
}

#[test]
fn entries_below_a_link_of_the_layer_go_where_it_points() {
    let tree = layer(vec![symlink("lib", "usr/lib"), file("lib/so")]).unwrap();
    find(&tree, "usr/lib/so");
}

#[test]
fn a_loop_of_links_and_a_file_as_parent_are_refused() {
    assert!(layer(vec![symlink("a", "b"), symlink("b", "a"), file("a/x")]).is_err());
    assert!(layer(vec![file("f"), file("f/x")]).is_err());
}

#[test]
fn a_later_entry_replaces_but_a_directory_only_changes_a_directory() {
    let directory = || entry("d", EntryKind::Directory);
    let tree = layer(vec![file("d/x"), directory(), file("x"), symlink("x", "d")]).unwrap();
    find(&tree, "d/x");
    assert_eq!(tree.inode(find(&tree, "d")).meta.uid, 5);
    assert!(matches!(tree.inode(find(&tree, "x")).kind, Kind::Symlink(_)));
    let tree = layer(vec![file("d/x"), file("d")]).unwrap();
    assert!(tree.find(b"d/x").is_none());
}

#[test]
fn hard_links_share_one_inode_and_its_last_attributes() {
    let mut second = hard_link("b", "./a");
    second.meta.uid = 99;
    let tree = layer(vec![file("a"), second, hard_link("c", "b")]).unwrap();
    assert_eq!((find(&tree, "a"), find(&tree, "b")), (find(&tree, "b"), find(&tree, "c")));
    assert_eq!(tree.inode(find(&tree, "a")).meta.uid, 5, "c came last");
}

#[test]
fn a_hard_link_to_nothing_of_the_layer_is_kept_for_the_merge() {
    let tree = layer(vec![hard_link("b", "lower/a")]).unwrap();
    assert_eq!(tree.inode(find(&tree, "b")).meta.xattrs[LOWER_LINK], b"lower/a");
}

#[test]
fn the_reserved_attribute_cannot_be_brought_along() {
    let mut bad = file("x");
    bad.meta.xattrs.insert(LOWER_LINK.to_vec(), b"etc/shadow".to_vec());
    assert!(layer(vec![bad]).is_err());
}

#[test]
fn whiteouts_stay_and_what_aufs_left_goes() {
    let tree = layer(vec![file(".wh.x"), file("d/.wh..wh..opq"), file(".wh..wh.plnk/1.2")]).unwrap();
    assert!(matches!(tree.inode(find(&tree, ".wh.x")).kind, Kind::File { size: 0, .. }));
    find(&tree, "d/.wh..wh..opq");
    assert!(tree.find(b".wh..wh.plnk").is_none());
    for bad in [".wh.", ".wh..", ".wh..."] {
        assert!(layer(vec![file(bad)]).is_err(), "{bad}");
    }
}

#[test]
fn names_that_no_file_system_takes_are_refused() {
    assert!(layer(vec![file(&"n".repeat(256))]).is_err());
    assert!(layer(vec![file(&format!("{}/x", "n".repeat(256)))]).is_err());
    assert!(layer(vec![file(&"a/".repeat(2100))]).is_err());
    assert!(layer(vec![symlink("l", "")]).is_err());
}

/// Layers one above the other; gives their trees, lowest first.
fn stack(layers: Vec<Vec<Entry>>) -> Vec<Tree> {
    let mut trees = Vec::new();
    for entries in layers {
        let position = if trees.is_empty() { Position::Lowest } else { Position::Above(&trees) };
        let tree = at(position, entries).unwrap();
        trees.push(tree);
    }
    trees
}

fn directory(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

#[test]
fn in_the_lowest_layer_whiteouts_remove_what_came_before() {
    let entries = || vec![file("a"), file(".wh.a"), file("d/gone"), file("d/.wh.gone"), file("d/kept")];
    let tree = at(Position::Lowest, entries()).unwrap();
    assert!(tree.find(b"a").is_none() && tree.find(b".wh.a").is_none() && tree.find(b"d/gone").is_none());
    find(&tree, "d/kept");
    let tree = at(Position::Lowest, vec![file("a"), file(".wh.a"), file("a/x")]).unwrap();
    find(&tree, "a/x");
}

#[test]
fn an_opaque_mark_in_the_lowest_layer_removes_directories_that_no_entry_names() {
    let tree = at(Position::Lowest, vec![file("d/a"), file("d/s/b"), file("d/.wh..wh..opq/")]).unwrap();
    find(&tree, "d/a");
    assert!(tree.find(b"d/s").is_none());
}

#[test]
fn what_a_layer_brings_after_it_took_it_away_lies_over_what_was_below() {
    let trees = stack(vec![vec![file("d/low")], vec![file(".wh.d"), directory("d")]]);
    assert!(trees[1].find(b".wh.d").is_none() && trees[1].find(b"d/.wh..wh..opq").is_none());
    let trees = stack(vec![vec![file("d/low")], vec![file(".wh.d"), file("d/x")]]);
    find(&trees[1], "d/.wh..wh..opq");
}

#[test]
fn a_directory_that_no_entry_names_is_like_the_one_below() {
    let mut lower = directory("d");
    lower.meta.xattrs.insert(b"user.x".to_vec(), b"1".to_vec());
    let trees = stack(vec![vec![lower, symlink("l", "d")], vec![file("d/a"), file("l/b"), file("new/c")]]);
    for path in ["d", "l"] {
        let meta = &trees[1].inode(find(&trees[1], path)).meta;
        assert_eq!((meta.permissions, meta.uid, meta.mtime), (0o640, 5, 7), "{path}");
        assert_eq!(meta.xattrs[b"user.x".as_slice()], b"1");
    }
    let meta = &trees[1].inode(find(&trees[1], "new")).meta;
    assert_eq!((meta.permissions, meta.uid, meta.mtime), (0o755, 0, 0));
}

#[test]
fn attributes_are_left_out_where_containerd_leaves_them_out() {
    let mut odd = [file("f"), symlink("l", "f"), entry("p", EntryKind::Fifo)];
    for entry in &mut odd {
        entry.meta.mtime = -5;
        for name in ["trusted.x", "user.x", "security.capability", "strange.x"] {
            entry.meta.xattrs.insert(name.into(), b"v".to_vec());
        }
    }
    let tree = at(Position::Lowest, odd.to_vec()).unwrap();
    for (path, expected) in [("f", 2), ("l", 1), ("p", 1)] {
        let meta = &tree.inode(find(&tree, path)).meta;
        assert_eq!((meta.xattrs.len(), meta.mtime), (expected, 0), "{path}");
    }
    let tree = layer(odd.to_vec()).unwrap();
    assert_eq!(tree.inode(find(&tree, "f")).meta.xattrs.len(), 3, "only what the format has no place for");
}

#[test]
fn links_are_followed_one_pass_after_another() {
    let tree = layer(vec![directory("c/d"), symlink("a", "b"), symlink("b", "c/d"), file("a/x")]).unwrap();
    find(&tree, "c/d/x");
    assert!(layer(vec![symlink("l", "l/l/l"), file("l/x")]).is_err());
}
