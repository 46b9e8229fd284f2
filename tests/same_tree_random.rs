//! Random images with every oddity of tars are the same under Shoal as under containerd and overlayfs.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    containerd::Release,
    image::{Layout, layout::Form, odd},
    node::Node,
    relay::Link,
    tree::{Tree, differences, read},
};

/// As many as half a minute has room for. `SHOAL_ODD_SEEDS=FIRST..LAST` tries others.
const SEEDS: std::ops::Range<u64> = 0..16;

/// Makes the image of a seed; gives its layout.
fn image(seed: u64, dir: &Path) -> Result<Layout> {
    let layout = Layout::create(dir)?;
    let forms = [Form::Gzip, Form::Plain, Form::Zstd];
    let layers = odd::layers(seed).into_iter().zip(forms.into_iter().cycle());
    let layers = layers.map(|(tar, form)| layout.add_layer(form, |out| Ok(out.write_all(&tar)?)));
    layout.finish(&layers.collect::<Result<Vec<_>>>()?, &["/none"])?;
    Ok(layout)
}

/// Where no entry names a directory, overlayfs shows when it was unpacked: nothing to hold anyone to.
fn forget_times_of_unpacking(expected: &mut Tree, found: &Tree, begin: i64) {
    for (path, entry) in expected.iter_mut().filter(|(_, entry)| entry.kind == "directory") {
        let is_now = (begin..begin + 3600).contains(&entry.mtime.0);
        if let Some(other) = found.get(path).filter(|_| is_now || path.as_os_str().is_empty()) {
            entry.mtime = other.mtime;
        }
    }
}

/// Whether containerd takes the image; if it does, both trees must be the same.
fn is_the_same(node: &Node, seed: u64, work: &Path) -> Result<bool> {
    let name = format!("odd-{seed}");
    let layout = image(seed, &work.join(&name))?;
    node.registry.push(&layout, &name, "plain")?;
    let begin = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())? - 1;
    let (plain, lazy) = (node.name(&name, "plain"), node.name(&name, "lazy"));
    let unpacked = node.containerd.pull("overlayfs", &plain);
    let converted = node.convert(&name, "lazy", &[]);
    if let Err(error) = unpacked {
        let why = format!("{error:#}");
        ensure!(why.contains("failed to extract layer"), "{why}");
        eprintln!("seed {seed}: containerd refuses it: {}", why.lines().last().unwrap_or_default());
        return Ok(false);
    }
    converted?;
    node.pull_lazily(&lazy)?;
    let point = |kind: &str| -> PathBuf { work.join(format!("{name}-{kind}")) };
    let expected = node.containerd.mount("overlayfs", &plain, &point("plain"))?;
    let found = node.containerd.mount("nydus", &lazy, &point("lazy"))?;
    let (mut expected, found) = (read(expected.path())?, read(found.path())?);
    forget_times_of_unpacking(&mut expected, &found, begin);
    let differences = differences(&expected, &found, 20);
    ensure!(differences.is_empty(), "{} paths, some differ:\n{}", expected.len(), differences.join("\n"));
    Ok(true)
}

#[test]
fn odd_images_are_the_same() -> Result<()> {
    let node = Node::start("odd", Release::Installed, Link::DIRECT)?;
    let work = node.scratch.dir("odd")?;
    let seeds = match std::env::var("SHOAL_ODD_SEEDS") {
        Ok(range) => {
            let (first, last) = range.split_once("..").context("SHOAL_ODD_SEEDS is FIRST..LAST")?;
            first.parse()?..last.parse()?
        }
        Err(_) => SEEDS,
    };
    let count = seeds.end - seeds.start;
    let mut taken = HashSet::new();
    let mut failures = Vec::new();
    for seed in seeds {
        match is_the_same(&node, seed, &work) {
            Ok(true) => drop(taken.insert(seed)),
            Ok(false) => {}
            Err(error) => failures.push(format!("seed {seed}: {error:#}")),
        }
    }
    ensure!(failures.is_empty(), "{} of {count} images differ:\n{}", failures.len(), failures.join("\n"));
    ensure!(2 * taken.len() as u64 > count, "containerd takes only {} of {count} images", taken.len());
    Ok(())
}
