//! Sizes of files, and who may depend on whom.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::step::root;

const WARN_LINES: usize = 400;
const FAIL_LINES: usize = 600;

/// Our crates, and which of ours each may link. Tests may use everything.
const ARROWS: [(&str, &[&str]); 13] = [
    ("nydusd/rafs", &[]),
    ("misc/registry", &[]),
    ("misc/service", &[]),
    ("nydusd/api", &[]),
    ("nydusd/storage", &["p2p-pieces", "rafs", "registry"]),
    ("nydusd", &["storage", "rafs", "nydusd-api", "registry", "service"]),
    ("builder", &["p2p-pieces", "rafs", "registry", "service"]),
    ("misc/cli", &["builder", "registry", "nydusd-api", "service"]),
    ("p2p/api", &[]),
    ("p2p/pieces", &["rafs"]),
    ("p2p", &["p2p-api", "p2p-pieces", "registry", "service"]),
    ("snapshotter", &["nydusd-api", "registry", "service"]),
    ("misc/xtask", &[]),
];
const OURS: [&str; 13] = [
    "rafs",
    "registry",
    "service",
    "nydusd-api",
    "storage",
    "nydusd",
    "builder",
    "p2p-api",
    "p2p-pieces",
    "p2p",
    "shoal",
    "snapshotter",
    "xtask",
];

/// Crates that only some places may name.
const PLACES: [(&str, &[&str]); 4] = [
    ("fuser", &["nydusd/src/fuse", "misc/xtask/src/limits.rs"]),
    (
        "tonic",
        &["snapshotter/src/", "misc/cli/src/containerd", "misc/cli/src/pull", "p2p/src/local/grpc", "tests/"],
    ),
    ("reqwest", &["misc/registry/", "nydusd/storage/src/backend", "misc/xtask/src/limits.rs"]),
    (
        "clap",
        &[
            "misc/service/",
            "misc/xtask/",
            "misc/cli/",
            "builder/src/",
            "nydusd/src/",
            "p2p/src/",
            "snapshotter/src/",
            "tests/src/bin/",
            "tests/swarm/src/bin/",
        ],
    ),
];

/// Checks all limits and tells every breach.
pub(crate) fn check() -> Result<()> {
    let mut breaches = Vec::new();
    for file in sources()? {
        let text = fs::read_to_string(root().join(&file)).with_context(|| file.clone())?;
        let lines = production_lines(&text);
        if lines > FAIL_LINES {
            breaches.push(format!("{file}: {lines} lines, more than {FAIL_LINES}"));
        } else if lines > WARN_LINES {
            eprintln!("    {file}: {lines} lines, more than {WARN_LINES}");
        }
        breaches.extend(misplaced(&file, &text).map(|name| format!("{file}: {name} does not belong here")));
    }
    for (package, allowed) in ARROWS {
        let path = Path::new(package).join("Cargo.toml");
        let text = fs::read_to_string(root().join(&path)).with_context(|| path.display().to_string())?;
        let links = links(&text)?.into_iter().filter(|name| !allowed.contains(&name.as_str()));
        breaches.extend(links.map(|name| format!("{package} must not depend on {name}")));
    }
    ensure!(breaches.is_empty(), "limits:\n{}", breaches.join("\n"));
    Ok(())
}

/// Rust files that git knows or would add.
fn sources() -> Result<Vec<String>> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"];
    let output = Command::new("git").args(args).current_dir(root()).output().context("git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let names = String::from_utf8(output.stdout).context("names of files")?;
    Ok(names.lines().filter(|name| root().join(name).is_file()).map(str::to_owned).collect())
}

/// Lines before the tests of a file; a file of tests has none.
fn production_lines(text: &str) -> usize {
    let tests = |line: &&str| line.starts_with("#[cfg(test)]") || line.starts_with("#![cfg(test)]");
    let all: Vec<_> = text.lines().collect();
    match all.iter().position(tests) {
        // A declaration `mod tests;` in the middle ends nothing.
        Some(at) if all.get(at + 1).is_some_and(|next| next.ends_with(';')) => all.len(),
        Some(at) => at,
        None => all.len(),
    }
}

/// Crates that a file names though it must not.
fn misplaced(file: &str, text: &str) -> impl Iterator<Item = &'static str> {
    PLACES.into_iter().filter(|(_, places)| !places.iter().any(|place| file.starts_with(place))).filter_map(
        |(name, _)| {
            let (path, import) = (format!("{name}::"), format!("use {name}"));
            let named =
                text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
                    line.match_indices(&path)
                        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
                        || line.starts_with(&import) && line[import.len()..].starts_with([':', ';', ' '])
                });
            named.then_some(name)
        },
    )
}

/// Our own crates that a manifest depends on, outside its tests.
fn links(manifest: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("Cargo.toml")?;
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(toml::Table::keys);
    Ok(names.filter(|name| OURS.contains(&name.as_str())).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count_as_production() {
        assert_eq!(production_lines("a\nb\n#[cfg(test)]\nmod tests {\nc\n}\n"), 2);
        assert_eq!(production_lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
    }

    #[test]
    fn a_crate_is_found_outside_its_place_only() {
        let names = |file, text| misplaced(file, text).collect::<Vec<_>>();
        assert_eq!(names("builder/src/convert.rs", "use reqwest::Client;"), ["reqwest"]);
        assert!(names("misc/registry/src/client.rs", "use reqwest::Client;").is_empty());
        assert!(names("nydusd/src/fs.rs", "// fuser::Filesystem\nmod_fuser::x()").is_empty());
        assert_eq!(names("nydusd/src/fs.rs", "fn f(x: fuser::FileAttr)"), ["fuser"]);
    }

    #[test]
    fn dev_dependencies_are_free() {
        let text = "[dependencies]\nrafs.workspace = true\nserde = '1'\n[dev-dependencies]\nbuilder = '1'\n";
        assert_eq!(links(text).unwrap(), ["rafs"]);
    }
}
