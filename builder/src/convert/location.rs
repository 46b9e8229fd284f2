//! Where images stand: registries, OCI layout directories, and archives of those.

use std::path::PathBuf;

use registry::Reference;

use super::ConvertError;

/// A place for an image, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Registry(Reference),
    Directory { path: PathBuf, tag: Option<String> },
    Archive { path: PathBuf, tag: Option<String> },
}

impl Location {
    pub(super) fn parse(text: &str) -> Result<Self, ConvertError> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = split_tag(rest);
            return Ok(Self::Directory { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = split_tag(rest);
            return Ok(Self::Archive { path, tag });
        }
        let reference = Reference::parse(text);
        reference.map(Self::Registry).map_err(|source| ConvertError::Location { text: text.into(), source })
    }

    /// A place that an image is written to.
    pub(super) fn parse_target(text: &str) -> Result<Self, ConvertError> {
        match Self::parse(text)? {
            Self::Registry(Reference { digest: Some(_), .. }) => {
                Err(ConvertError::TargetDigest { text: text.into() })
            }
            target => Ok(target),
        }
    }
}

/// A tag holds no slash, so a colon before one is part of the path.
fn split_tag(text: &str) -> (PathBuf, Option<String>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.is_empty() && !tag.contains('/') && !path.is_empty() => {
            (path.into(), Some(tag.into()))
        }
        _ => (text.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_in_a_directory_name_is_not_a_tag() {
        let place = |text| Location::parse(text).unwrap();
        let directory = |path: &str, tag: Option<&str>| Location::Directory {
            path: path.into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(place("oci:/a/b"), directory("/a/b", None));
        assert_eq!(place("oci:a:v1"), directory("a", Some("v1")));
        assert_eq!(place("oci:/a:b/c"), directory("/a:b/c", None));
        let archive = Location::Archive { path: "x.tar".into(), tag: Some("v1".into()) };
        assert_eq!(place("oci-archive:x.tar:v1"), archive);
    }

    #[test]
    fn a_target_has_no_digest_and_both_have_a_name() {
        let digest = format!("host/name@sha256:{}", "0".repeat(64));
        assert!(Location::parse(&digest).is_ok());
        assert!(Location::parse_target(&digest).unwrap_err().is_usage());
        assert!(Location::parse_target("host/name:tag").is_ok());
        assert!(Location::parse("").unwrap_err().is_usage());
    }
}
