//! Which images of an index are wanted.

use oci_spec::image::{Descriptor, ImageIndex, Platform};

use super::{ConvertError, Platforms, manifest::is_plain_image};

/// The wanted images of an index, in its order.
pub(super) fn select(
    index: &ImageIndex,
    wanted: &Platforms,
    what: &str,
) -> Result<Vec<Descriptor>, ConvertError> {
    let images: Vec<_> = index.manifests().iter().filter(|found| is_plain_image(found)).collect();
    let wanted = match wanted {
        Platforms::All if images.is_empty() => {
            return Err(ConvertError::image(what, "it has no image to convert"));
        }
        Platforms::All => return Ok(images.into_iter().cloned().collect()),
        // Nothing to choose from, and nothing said against it.
        Platforms::Host if images.len() == 1 && images[0].platform().is_none() => {
            return Ok(vec![images[0].clone()]);
        }
        Platforms::Host => vec![host()],
        Platforms::Listed(list) => list.clone(),
    };
    let mut chosen = Vec::new();
    for name in wanted {
        let name = normal(&name);
        // Without a variant any will do, the first one being the registry's choice.
        let fits = |found: &&&Descriptor| {
            let found = found.platform().as_ref().map(describe).unwrap_or_default();
            found == name || found.strip_prefix(&name).is_some_and(|rest| rest.starts_with('/'))
        };
        let Some(found) = images.iter().find(fits) else {
            let have: Vec<_> =
                images.iter().filter_map(|found| found.platform().as_ref().map(describe)).collect();
            return Err(ConvertError::image(
                what,
                format!("it has no image for {name}, only for {}", have.join(", ")),
            ));
        };
        if !chosen.iter().any(|other: &Descriptor| other.digest() == found.digest()) {
            chosen.push((**found).clone());
        }
    }
    Ok(chosen)
}

fn describe(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os(), platform.architecture());
    if let Some(variant) = platform.variant() {
        text = format!("{text}/{variant}");
    }
    normal(&text)
}

/// Other spellings of the same: what `uname` says, and variants that go without saying.
fn normal(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let mut parts = text.split('/');
    let (os, arch, variant) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let arch = match arch {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" | "x86" => "386",
        "armhf" => "arm",
        other => other,
    };
    match (arch, variant) {
        (_, None | Some("")) | ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => format!("{os}/{arch}"),
        (_, Some(variant)) => format!("{os}/{arch}/{variant}"),
    }
}

fn host() -> String {
    normal(&format!("linux/{}", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_one() {
        assert_eq!(normal("linux/x86_64"), "linux/amd64");
        assert_eq!(normal("Linux/arm64/v8"), "linux/arm64");
        assert_eq!(normal("linux/arm/v7"), "linux/arm/v7");
    }
}
