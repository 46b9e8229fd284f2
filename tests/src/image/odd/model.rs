//! What a layer has brought so far, as far as it decides whether containerd would take one more entry.

use std::collections::BTreeMap;

/// What a path of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory with an entry of its own.
    Directory,
    /// A directory without.
    Implied,
    /// A symbolic link.
    Link,
    /// Anything else that a hard link may point at.
    File,
    /// Taken away.
    Gone,
}

/// Paths of one layer.
#[derive(Debug, Default, Clone)]
pub(super) struct Layer(BTreeMap<Vec<u8>, Kind>);

/// Layers so far, the one in work last.
#[derive(Debug, Default)]
pub(super) struct Layers(Vec<Layer>);

fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

impl Layer {
    fn get(&self, path: &[u8]) -> Option<Kind> {
        self.0.get(path).copied()
    }

    fn below(&self, path: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Kind)> {
        let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        self.0.iter().filter(move |(other, _)| other.starts_with(&prefix))
    }

    /// Whether the path leads through a link, to somewhere this model does not know.
    fn is_elsewhere(&self, path: &[u8]) -> bool {
        ancestors(path).any(|ancestor| self.get(ancestor) == Some(Kind::Link))
    }

    fn has_directories(&self, path: &[u8]) -> bool {
        self.get(path) == Some(Kind::Directory) || self.below(path).any(|(_, kind)| *kind == Kind::Directory)
    }

    fn remove(&mut self, path: &[u8]) {
        let below: Vec<_> = self.below(path).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| _ = self.0.remove(path));
        self.0.remove(path);
    }
}

impl Layers {
    pub(super) fn begin(&mut self) {
        self.0.push(Layer::default());
    }

    fn own(&mut self) -> &mut Layer {
        self.0.last_mut().expect("a layer was begun")
    }

    fn top(&self) -> &Layer {
        self.0.last().expect("a layer was begun")
    }

    /// Files of this layer.
    pub(super) fn files(&self) -> Vec<Vec<u8>> {
        let files = self.top().0.iter().filter(|(_, kind)| **kind == Kind::File);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Adds a path if containerd would take it; gives whether it would.
    pub(super) fn add(&mut self, path: &[u8], kind: Kind) -> bool {
        let (own, is_lowest) = (self.top(), self.0.len() == 1);
        if own.is_elsewhere(path) {
            return true;
        }
        let is_blocked =
            ancestors(path).any(|ancestor| matches!(own.get(ancestor), Some(Kind::File | Kind::Gone)));
        let is_there = own.get(path).is_some();
        let loses_directories = kind != Kind::Directory && own.has_directories(path);
        if is_blocked || loses_directories || (kind == Kind::Gone && is_there && !is_lowest) {
            return false;
        }
        if !ancestors(path).all(|ancestor| own.get(ancestor).is_some() || self.can_imply(ancestor)) {
            return false;
        }
        let ancestors: Vec<_> = ancestors(path).map(<[u8]>::to_vec).collect();
        let own = self.own();
        for ancestor in ancestors {
            own.0.entry(ancestor).or_insert(Kind::Implied);
        }
        if kind != Kind::Directory {
            own.remove(path);
        }
        if kind != Kind::Gone || !is_lowest {
            own.0.insert(path.to_vec(), kind);
        }
        true
    }

    /// Whether containerd finds out without an error what a lower layer has at `path`.
    fn can_imply(&self, path: &[u8]) -> bool {
        for lower in self.0.iter().rev().skip(1) {
            if lower.get(path).is_some() {
                return true;
            }
            let blocks = |ancestor| matches!(lower.get(ancestor), Some(Kind::File | Kind::Gone));
            if ancestors(path).any(blocks) {
                return false;
            }
        }
        true
    }

    /// Whether an opaque mark in the directory would do no more than containerd survives.
    pub(super) fn can_be_opaque(&self, directory: &[u8]) -> bool {
        let own = self.top();
        let goes = |path: &Vec<u8>| own.has_directories(path);
        self.0.len() > 1 || !own.below(directory).any(|(path, kind)| *kind == Kind::Implied && goes(path))
    }

    /// Whether a hard link at `path` to `target` can be made.
    pub(super) fn can_link(&self, path: &[u8], target: &[u8]) -> bool {
        let own = self.top();
        let is_inside = target.starts_with(path) && matches!(target.get(path.len()), None | Some(b'/'));
        own.get(target) == Some(Kind::File) && !is_inside && !own.is_elsewhere(target)
    }
}
