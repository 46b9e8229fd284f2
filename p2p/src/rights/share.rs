//! Which repositories are shared.

use registry::Repository;

/// Patterns of repositories whose content every member and every local program may read.
#[derive(Debug, Clone, Default)]
pub struct ShareList(Vec<String>);

impl ShareList {
    /// Patterns `HOST/NAME`, or `HOST/PREFIX*` for all that begin so.
    #[must_use]
    pub const fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether a repository is shared.
    #[must_use]
    pub fn contains(&self, repository: &Repository) -> bool {
        let name = repository.to_string();
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shared_whole_and_prefixes_with_a_star() {
        let share = ShareList::new(vec!["example.com/app".into(), "example.com/public/*".into()]);
        let contains = |name| share.contains(&Repository::parse(name).unwrap());
        assert!(contains("example.com/app") && contains("example.com/public/a/b"));
        assert!(
            !contains("example.com/app2") && !contains("example.com/publi") && !contains("example.org/app")
        );
        assert!(!ShareList::default().contains(&Repository::parse("example.com/app").unwrap()));
    }
}
