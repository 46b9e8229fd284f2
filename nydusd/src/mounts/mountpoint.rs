//! Where an image stands below the daemon's mount.

use std::{fmt, str::FromStr};

use super::BLOBS_NAME;

/// `/` or `/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mountpoint(Box<str>);

/// A text that is no mountpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mountpoint {0:?} is neither / nor /NAME, or its name is taken")]
pub struct BadMountpoint(String);

impl Mountpoint {
    /// The root itself.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its name in the root; empty for the root itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Mountpoint {
    type Err = BadMountpoint;

    fn from_str(text: &str) -> Result<Self, BadMountpoint> {
        let name = text.strip_prefix('/').ok_or_else(|| BadMountpoint(text.into()))?;
        let name = name.strip_suffix('/').unwrap_or(name);
        let is_name =
            name.len() <= 255 && !name.contains(['/', '\0']) && !matches!(name, "." | ".." | BLOBS_NAME);
        if is_name { Ok(Self(name.into())) } else { Err(BadMountpoint(text.into())) }
    }
}

impl fmt::Display for Mountpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_and_one_name_below_it_are_mountpoints() {
        assert!("/".parse::<Mountpoint>().unwrap().is_root());
        assert_eq!("/17/".parse::<Mountpoint>().unwrap().to_string(), "/17");
        for text in ["", "17", "/a/b", "/..", "/.", "/.blobs", "//", &format!("/{}", "x".repeat(256))] {
            let parsed = text.parse::<Mountpoint>();
            assert!(parsed.is_err() || text == "//", "{text}");
        }
    }
}
