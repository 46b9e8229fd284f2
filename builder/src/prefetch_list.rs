//! Files that a start reads: whose chunks come first, and which the image tells to fetch ahead of use.

use std::collections::{HashMap, HashSet};

use rafs::{InodeId, Tree};

use crate::layer::{clean, directory_at};

/// Paths of an image in the order of their first use. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefetchList {
    paths: std::sync::Arc<Paths>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Paths {
    in_order: Vec<Vec<u8>>,
    ranks: HashMap<Vec<u8>, usize>,
}

impl PrefetchList {
    /// Reads a list: one absolute path a line. Offset and length behind it are passed over, as the format's prefetch table
    /// holds whole inodes. So are empty lines, lines that begin with `#` and paths that leave the root.
    ///
    /// The root itself is passed over too: it stands for the whole image, and fetching that is not a lazy start. It is
    /// also what callers of `nydus-image` send who have no hint to give.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut paths = Paths::default();
        for line in text.split(|b| *b == b'\n') {
            let line = without_numbers(line.trim_ascii());
            if !line.starts_with(b"/") {
                continue;
            }
            let Ok(parts) = clean(line) else { continue };
            let path = parts.join(&b'/');
            if !path.is_empty() && !paths.ranks.contains_key(&path) {
                paths.ranks.insert(path.clone(), paths.in_order.len());
                paths.in_order.push(path);
            }
        }
        Self { paths: std::sync::Arc::new(paths) }
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.in_order.is_empty()
    }

    /// Place in the list of `path`, or of the nearest directory above it that is listed.
    pub(crate) fn rank(&self, path: &[u8]) -> Option<usize> {
        let mut parts = clean(path).ok()?;
        while !parts.is_empty() {
            if let Some(rank) = self.paths.ranks.get(&parts.join(&b'/')) {
                return Some(*rank);
            }
            parts.pop();
        }
        None
    }

    /// The listed inodes that `tree` has, in list order, links followed.
    #[must_use]
    pub fn inodes(&self, tree: &Tree) -> Vec<InodeId> {
        let mut seen = HashSet::new();
        let find = |path: &Vec<u8>| {
            let parts: Vec<_> = path.split(|b| *b == b'/').collect();
            let (name, parents) = parts.split_last()?;
            let directory = directory_at(tree, parents).ok()??;
            tree.children(directory)?.get(*name).copied()
        };
        self.paths.in_order.iter().filter_map(find).filter(|id| seen.insert(*id)).collect()
    }
}

/// A path may hold spaces, so only two numbers at the end count as offset and length.
fn without_numbers(line: &[u8]) -> &[u8] {
    let cut = |line: &'_ [u8]| {
        let at = line.iter().rposition(|b| matches!(b, b' ' | b'\t'))?;
        let is_number = at + 1 < line.len() && line[at + 1..].iter().all(u8::is_ascii_digit);
        is_number.then_some(at)
    };
    let Some(at) = cut(line) else { return line };
    let Some(at) = cut(&line[..at]) else { return line };
    &line[..at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_order_and_drops_ranges_comments_and_the_root() {
        let list = PrefetchList::parse(
            b"/\n# start\n/usr//bin/python\n/lib/a b\t0 4096\n/usr/bin/python\nrelative\n",
        );
        assert_eq!(list.paths.in_order, [b"usr/bin/python".to_vec(), b"lib/a b".to_vec()]);
    }

    #[test]
    fn a_listed_directory_stands_for_what_is_below_it() {
        let list = PrefetchList::parse(b"/etc/ssl\n/etc\n");
        assert_eq!(list.rank(b"./etc/ssl/certs/x.pem"), Some(0));
        assert_eq!(list.rank(b"etc/passwd"), Some(1));
        assert_eq!(list.rank(b"usr/lib"), None);
    }
}
