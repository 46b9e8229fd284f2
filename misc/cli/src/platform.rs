//! Which image of an index is ours.

use anyhow::Context;
use oci_spec::image::Descriptor;
use service::exit::UsageError;

/// An operating system and a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// Parses `os/arch[/variant]`.
    pub(crate) fn parse(text: &str) -> Result<Self, UsageError> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture, variant, parts.next()) {
            (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self {
                    os: os.into(),
                    architecture: architecture.into(),
                    variant: variant.map(Into::into),
                })
            }
            _ => Err(UsageError(format!("{text:?} is no platform: it must be os/arch or os/arch/variant"))),
        }
    }

    /// The platform of this machine, in the words of OCI.
    pub(crate) fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// Picks the image of an index. Ordinary images come before lazy twins, whose configuration containerd cannot read.
    pub(crate) fn pick<'a>(&self, manifests: &'a [Descriptor]) -> anyhow::Result<&'a Descriptor> {
        let fitting: Vec<&Descriptor> = manifests.iter().filter(|entry| self.fits(entry)).collect();
        let ordinary = fitting.iter().copied().find(|entry| !is_lazy_twin(entry));
        ordinary.or_else(|| fitting.first().copied()).with_context(|| {
            let offered: Vec<String> = manifests.iter().filter_map(describe).collect();
            format!("the image has no variant for {self}; it offers {}", offered.join(", "))
        })
    }

    fn fits(&self, entry: &Descriptor) -> bool {
        let Some(platform) = entry.platform() else { return false };
        platform.os().to_string() == self.os
            && platform.architecture().to_string() == self.architecture
            && self.fits_variant(platform.variant().as_deref())
    }

    fn fits_variant(&self, offered: Option<&str>) -> bool {
        match (self.architecture.as_str(), self.variant.as_deref(), offered) {
            (_, None, _) | (_, _, None) => true,
            // A newer ARM core runs what was built for an older one.
            ("arm", Some(ours), Some(offered)) => offered <= ours,
            (_, Some(ours), Some(offered)) => ours == offered,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Converters mark lazy images that stand beside the ordinary ones of the same platform.
fn is_lazy_twin(entry: &Descriptor) -> bool {
    entry.artifact_type().as_ref().is_some_and(|kind| kind.to_string().contains("nydus"))
}

fn describe(entry: &Descriptor) -> Option<String> {
    entry.platform().as_ref().map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index(platforms: serde_json::Value) -> Vec<Descriptor> {
        let entry = |(number, platform): (usize, &serde_json::Value)| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{number:064x}"),
                "size": 1,
                "platform": platform,
            })
        };
        let entries: Vec<_> = platforms.as_array().unwrap().iter().enumerate().map(entry).collect();
        serde_json::from_value(entries.into()).unwrap()
    }

    fn picked(platform: &str, manifests: &[Descriptor]) -> usize {
        let entry = Platform::parse(platform).unwrap().pick(manifests).unwrap();
        manifests.iter().position(|other| other == entry).unwrap()
    }

    #[test]
    fn the_entry_of_the_platform_is_picked() {
        let manifests = index(json!([
            {"os": "unknown", "architecture": "unknown"},
            {"os": "linux", "architecture": "arm64", "variant": "v8"},
            {"os": "windows", "architecture": "amd64"},
            {"os": "linux", "architecture": "amd64"},
        ]));
        assert_eq!(picked("linux/amd64", &manifests), 3);
        assert_eq!(picked("linux/arm64", &manifests), 1);
        assert_eq!(picked("linux/arm64/v8", &manifests), 1);
    }

    #[test]
    fn an_arm_core_takes_what_older_ones_run() {
        let manifests = index(json!([
            {"os": "linux", "architecture": "arm", "variant": "v7"},
            {"os": "linux", "architecture": "arm", "variant": "v6"},
        ]));
        assert_eq!(picked("linux/arm/v6", &manifests), 1);
        assert_eq!(picked("linux/arm/v7", &manifests), 0);
    }

    #[test]
    fn an_ordinary_image_comes_before_its_lazy_twin() {
        let platform = json!({"os": "linux", "architecture": "amd64"});
        let mut manifests = index(json!([platform, platform]));
        manifests[0].set_artifact_type(Some("application/vnd.nydus.image.manifest.v1+json".into()));
        assert_eq!(picked("linux/amd64", &manifests), 1);
        assert_eq!(picked("linux/amd64", &manifests[..1]), 0);
    }

    #[test]
    fn a_missing_platform_is_named_with_what_there_is() {
        let manifests = index(json!([{"os": "linux", "architecture": "s390x"}]));
        let error = Platform::parse("linux/amd64").unwrap().pick(&manifests).unwrap_err();
        assert_eq!(error.to_string(), "the image has no variant for linux/amd64; it offers linux/s390x");
    }

    #[test]
    fn a_platform_has_two_or_three_parts() {
        for text in ["linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }
}
