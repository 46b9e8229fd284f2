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
        let fits =
            |found: &&&Descriptor| fits(&found.platform().as_ref().map(describe).unwrap_or_default(), &name);
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

/// Refuses an image that stands alone where another platform than its own is asked for.
pub(super) fn check(platform: &str, wanted: &Platforms, what: &str) -> Result<(), ConvertError> {
    let Platforms::Listed(wanted) = wanted else { return Ok(()) };
    let found = normal(platform);
    match wanted.iter().map(|name| normal(name)).find(|name| !fits(&found, name)) {
        None => Ok(()),
        Some(name) => Err(ConvertError::image(what, format!("it is no image for {name}, but for {found}"))),
    }
}

/// Whether an image will do. Without a variant any will, the first one being the registry's choice.
fn fits(found: &str, wanted: &str) -> bool {
    found.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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

    #[test]
    fn an_image_alone_is_of_the_wanted_platform_or_refused() {
        let check = |names: &[&str]| {
            check("linux/amd64", &Platforms::Listed(names.iter().map(|&name| name.into()).collect()), "image")
        };
        check(&["linux/x86_64"]).unwrap();
        let refused = check(&["linux/amd64", "linux/s390x"]).unwrap_err().to_string();
        assert!(refused.contains("no image for linux/s390x, but for linux/amd64"), "{refused}");
    }
}
