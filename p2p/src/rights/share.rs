//! Which repositories are shared.

use registry::{FileUrl, Repository};

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
        self.matches(&repository.to_string())
    }

    /// Whether what a web server says is shared as it is.
    #[must_use]
    pub fn contains_file(&self, url: &FileUrl) -> bool {
        self.matches(url.as_str())
    }

    fn matches(&self, name: &str) -> bool {
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
        let file = |url| share.contains_file(&FileUrl::parse(url).unwrap());
        assert!(!file("https://example.com/app") && !file("https://files.example/other"));
        let share = ShareList::new(vec!["https://files.example/public/*".into()]);
        let file = |url| share.contains_file(&FileUrl::parse(url).unwrap());
        assert!(file("https://files.example/public/a?b") && file("HTTPS://Files.Example:443/x/../public/c"));
        assert!(!file("http://files.example/public/a") && !file("https://files.example/public/../a"));
        assert!(!ShareList::default().contains(&Repository::parse("example.com/app").unwrap()));
    }
}
