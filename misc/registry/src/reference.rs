//! Image references.

use crate::RegistryError;

/// A repository at a registry: `example.com:5000/team/app`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// Host, with port where one was given; `docker.io` for short names.
    pub host: String,
    /// Path: `team/app`, `library/redis`.
    pub path: String,
}

/// An image: a repository and a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// The tag, `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest, `sha256:<hex>`; wins over the tag.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses a reference as docker and containerd do (`redis` is `docker.io/library/redis:latest`).
    ///
    /// # Errors
    /// [`RegistryError::Reference`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let _ = text;
        todo!()
    }
}
