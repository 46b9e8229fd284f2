//! Paths in a layer's tree, links followed as containerd follows them.
//!
//! It expands the links of a path one pass after another, and mostly takes `..` of a target as text. A link in the middle
//! is therefore not always gone through as the kernel would; what images rely on comes out the same.

use std::collections::VecDeque;

use rafs::{InodeId, Kind, Tree};

pub(super) type Problem = &'static str;

/// As containerd: more links in one path are a loop.
const MAX_LINKS: u32 = 255;
/// As Linux: more links that the kernel goes through at once are a loop.
const MAX_KERNEL_LINKS: u32 = 40;
pub(super) const MAX_NAME: usize = 255;
pub(super) const MAX_PATH: usize = 4095;
const NO_DIRECTORY: Problem = "lies below something that is no directory";
const LOOP: Problem = "lies behind a loop of symbolic links";

/// A directory, or the place where it could be.
#[derive(Debug)]
pub(crate) struct Place {
    /// The deepest directory of the path that is there.
    pub(crate) directory: InodeId,
    /// The path from the root, without links.
    pub(crate) parts: Vec<Vec<u8>>,
    /// How many parts at its end are not there.
    pub(crate) missing: usize,
}

/// Parts of a path without `.`, `..` and empty ones.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.len() > MAX_PATH {
        return Err("has a path of more than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("has a name with a NUL in it");
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or("leaves the root")?),
            _ => parts.push(part),
        }
    }
    match parts.iter().any(|part| part.len() > MAX_NAME) {
        true => Err("has a name of more than 255 bytes"),
        false => Ok(parts),
    }
}

/// The directory at `path`; `None` where there is none.
pub(crate) fn directory_at(tree: &Tree, path: &[&[u8]]) -> Result<Option<InodeId>, Problem> {
    let place = resolve(tree, path)?;
    Ok((place.missing == 0).then_some(place.directory))
}

/// The inode at `path`, all of its links followed; `None` where there is none.
pub(super) fn inode_at(tree: &Tree, path: &[&[u8]]) -> Option<InodeId> {
    match follow(tree, path).ok()? {
        End::Directory(place) => (place.missing == 0).then_some(place.directory),
        End::Other(id) => Some(id),
    }
}

/// Where `path` leads, all of its links followed.
pub(crate) fn resolve(tree: &Tree, path: &[&[u8]]) -> Result<Place, Problem> {
    match follow(tree, path)? {
        End::Directory(place) => Ok(place),
        End::Other(_) => Err(NO_DIRECTORY),
    }
}

/// What a path ends at.
enum End {
    /// A directory that is or could be.
    Directory(Place),
    /// Another inode.
    Other(InodeId),
}

fn follow(tree: &Tree, path: &[&[u8]]) -> Result<End, Problem> {
    let mut parts: Vec<_> = path.iter().map(|part| part.to_vec()).collect();
    let mut links = 0;
    // As names in tars are; what a pass makes of several parts begins at the root.
    let mut is_relative = true;
    loop {
        if parts.iter().any(|part| part == b"..") {
            parts = expand(tree, &parts, (&mut links, &mut is_relative))?;
            continue;
        }
        let (mut directory, mut found) = (Tree::ROOT, 0);
        while let Some(id) = parts.get(found).and_then(|part| child(tree, directory, part)) {
            if tree.children(id).is_none() {
                break;
            }
            (directory, found) = (id, found + 1);
        }
        match parts.get(found).and_then(|part| child(tree, directory, part)) {
            None => return Ok(End::Directory(Place { directory, missing: parts.len() - found, parts })),
            Some(id) if matches!(tree.inode(id).kind, Kind::Symlink(_)) => {
                parts = expand(tree, &parts, (&mut links, &mut is_relative))?;
            }
            Some(id) if found + 1 == parts.len() => return Ok(End::Other(id)),
            Some(_) => return Err(NO_DIRECTORY),
        }
    }
}

/// One pass over a path: each part that is a link gives way to its target. The target of a link that ends the path, and
/// that begins at the root as it stands, keeps its `..` for the next pass.
fn expand(
    tree: &Tree,
    parts: &[Vec<u8>],
    (links, is_relative): (&mut u32, &mut bool),
) -> Result<Vec<Vec<u8>>, Problem> {
    let is_single = std::mem::replace(is_relative, false) && parts.len() == 1;
    let mut out: Vec<Vec<u8>> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        if part == b".." {
            out.pop();
            continue;
        }
        let Some(target) = link_at(tree, &out, part)? else {
            out.push(part.clone());
            continue;
        };
        *links += 1;
        if *links > MAX_LINKS {
            return Err(LOOP);
        }
        let is_absolute = target.starts_with(b"/");
        let is_kept = number + 1 == parts.len() && (is_absolute || is_single);
        *is_relative = is_single && !is_absolute;
        if is_absolute {
            out.clear();
        }
        for step in target.split(|b| *b == b'/') {
            match step {
                b"" | b"." => {}
                // Above the root is the root, as in a chroot.
                b".." if !is_kept => drop(out.pop()),
                _ => out.push(step.to_vec()),
            }
        }
        let len: usize = out.iter().map(|part| part.len() + 1).sum();
        if len > MAX_PATH || out.iter().any(|part| part.len() > MAX_NAME) {
            return Err("lies behind a symbolic link whose target is too long");
        }
    }
    Ok(out)
}

/// The target of the link `name` in the directory at `parents`, if that is one.
fn link_at<'t>(tree: &'t Tree, parents: &[Vec<u8>], name: &[u8]) -> Result<Option<&'t [u8]>, Problem> {
    let Some(directory) = enter(tree, parents)? else { return Ok(None) };
    let inode = child(tree, directory, name).map(|id| tree.inode(id));
    Ok(match inode.map(|inode| &inode.kind) {
        Some(Kind::Symlink(target)) => Some(target),
        _ => None,
    })
}

/// The directory that the kernel finds at `parts`. Behind an absolute link it finds the machine's files: nothing here.
fn enter(tree: &Tree, parts: &[Vec<u8>]) -> Result<Option<InodeId>, Problem> {
    let mut left: VecDeque<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut stack = vec![Tree::ROOT];
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if matches!(part, b"" | b".") {
            continue;
        }
        if part == b".." {
            stack.pop();
        }
        let Some(at) = stack.last().copied() else { return Ok(None) };
        if part == b".." {
            continue;
        }
        let Some(id) = child(tree, at, part) else { return Ok(None) };
        match &tree.inode(id).kind {
            Kind::Directory(_) => stack.push(id),
            Kind::Symlink(target) if target.starts_with(b"/") => return Ok(None),
            Kind::Symlink(target) => {
                links += 1;
                if links > MAX_KERNEL_LINKS {
                    return Err(LOOP);
                }
                target.split(|b| *b == b'/').rev().for_each(|step| left.push_front(step));
            }
            _ => return Err(NO_DIRECTORY),
        }
    }
    Ok(stack.last().copied())
}

fn child(tree: &Tree, directory: InodeId, name: &[u8]) -> Option<InodeId> {
    tree.children(directory)?.get(name).copied()
}
