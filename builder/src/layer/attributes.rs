//! What is left of a header's attributes once Linux and containerd had their say.

use rafs::{Kind, Meta, Tree};

use super::{acl, resolve::resolve};

const CAPABILITY: &[u8] = b"security.capability";
const SETGID: u16 = 0o2000;
/// Linux knows no others of symbolic links.
const LINK_PERMISSIONS: u16 = 0o777;

/// Attributes as they stand in a header, but for what no inode has or the format has no place for.
pub(super) fn as_said(header: &Meta, kind: &Kind) -> Meta {
    let mut meta = header.clone();
    if matches!(kind, Kind::Symlink(_)) {
        meta.permissions = LINK_PERMISSIONS;
    }
    let prefixes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    meta.xattrs.retain(|name, _| {
        matches!(name.as_slice(), acl::ACCESS | acl::DEFAULT)
            || prefixes.iter().any(|prefix| name.starts_with(prefix))
    });
    meta
}

/// Attributes of a new inode in a directory with attributes `parent`.
pub(super) fn of_new(header: &Meta, kind: &Kind, parent: &Meta) -> Meta {
    let mut meta = of_header(header, kind);
    if !matches!(kind, Kind::Symlink(_)) {
        acl::inherit(parent, &mut meta, matches!(kind, Kind::Directory(_)));
        acl::settle(&mut meta);
    }
    meta
}

/// Attributes of a directory that a further entry names.
pub(super) fn of_named_again(header: &Meta, existing: &Meta) -> Meta {
    let mut meta = of_header(header, &Kind::Directory(Default::default()));
    for (name, value) in &existing.xattrs {
        meta.xattrs.entry(name.clone()).or_insert_with(|| value.clone());
    }
    acl::settle(&mut meta);
    meta
}

/// Attributes that a hard link's own header gives to the inode it names.
pub(super) fn of_link(meta: &mut Meta, header: &Meta, kind: &Kind) {
    let mut header = of_header(header, kind);
    // Changing the owner drops capabilities, in the kernel too.
    meta.xattrs.remove(CAPABILITY);
    meta.xattrs.append(&mut header.xattrs);
    if !matches!(kind, Kind::Symlink(_)) {
        meta.permissions = header.permissions;
        acl::settle(meta);
    }
    (meta.uid, meta.gid) = (header.uid, header.gid);
    (meta.mtime, meta.mtime_nsec) = (header.mtime, header.mtime_nsec);
}

/// Attributes of a directory that no entry names, at path `at`. Layers `below`, lowest first, may have it.
pub(super) fn of_implied(parent: &Meta, below: &[Tree], at: &[Vec<u8>]) -> Meta {
    let mut meta = Meta { permissions: 0o755, ..Meta::default() };
    if parent.permissions & SETGID != 0 {
        meta.gid = parent.gid;
    }
    acl::inherit(parent, &mut meta, true);
    if let Some(lower) = directory_below(below, at) {
        (meta.permissions, meta.uid, meta.gid) = (lower.permissions, lower.uid, lower.gid);
        (meta.mtime, meta.mtime_nsec) = (lower.mtime, lower.mtime_nsec);
        for (name, value) in &lower.xattrs {
            let is_inherited = meta.xattrs.contains_key(name);
            // containerd leaves what is there, but the kernel hears that of lists only by their own calls.
            if !is_inherited || matches!(name.as_slice(), acl::ACCESS | acl::DEFAULT) {
                meta.xattrs.insert(name.clone(), value.clone());
            }
        }
    }
    acl::settle(&mut meta);
    meta
}

/// Attributes of the directory at path `at` in the uppermost layer that has something there. Each layer is asked by
/// itself, so that what a layer between them hides is still seen.
fn directory_below<'t>(below: &'t [Tree], at: &[Vec<u8>]) -> Option<&'t Meta> {
    let path: Vec<_> = at.iter().map(Vec::as_slice).collect();
    for tree in below.iter().rev() {
        let place = resolve(tree, &path).ok()?;
        let Some(missing) = place.parts.len().checked_sub(place.missing).and_then(|at| place.parts.get(at))
        else {
            return Some(&tree.inode(place.directory).meta);
        };
        if super::whiteout::takes_away(tree, place.directory, missing) {
            return None;
        }
    }
    None
}

/// The time as containerd sets it: 0 where it is none that 63 bits of nanoseconds can tell.
pub(super) fn time(header: &Meta) -> (i64, u32) {
    const LAST: (i64, u32) = (i64::MAX / 1_000_000_000, 854_775_807);
    let time = (header.mtime, header.mtime_nsec);
    if time.0 < 0 || time > LAST { (0, 0) } else { time }
}

/// Attributes as containerd sets them, before Linux knows where.
fn of_header(header: &Meta, kind: &Kind) -> Meta {
    let mut meta = header.clone();
    if matches!(kind, Kind::Symlink(_)) {
        meta.permissions = LINK_PERMISSIONS;
    }
    (meta.mtime, meta.mtime_nsec) = time(header);
    meta.xattrs.retain(|name, _| is_kept(name, kind));
    meta
}

/// Whether file systems keep an attribute of this name on such an inode; containerd keeps out those of `trusted.`.
fn is_kept(name: &[u8], kind: &Kind) -> bool {
    match name {
        acl::ACCESS => !matches!(kind, Kind::Symlink(_)),
        acl::DEFAULT => matches!(kind, Kind::Directory(_)),
        _ if name.starts_with(b"user.") => matches!(kind, Kind::Directory(_) | Kind::File { .. }),
        _ => name.starts_with(b"security."),
    }
}
