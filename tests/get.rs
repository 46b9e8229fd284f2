//! `shoal get` before real web servers and a real registry, and before servers that misbehave. Needs root.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "support/web.rs"]
mod web;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command::{output, run, wait_for},
    daemon::Daemon,
    image::generated::noise,
    p2pd::P2pd,
    programs,
    registry::{Registry, free_address},
    scratch::{Mounted, Scratch},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::web::{Odd, Web, chunk, head};

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(120);

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `shoal get SOURCE -o FILE`, by the network only where a flag says so.
fn get(source: &str, file: &Path, flags: &[&str]) -> Result<Command> {
    let mut get = programs::shoal(["get", source, "--json", "--output"])?;
    get.arg(file);
    if !flags.contains(&"--p2p-socket") {
        get.arg("--no-p2p");
    }
    get.args(flags);
    Ok(get)
}

/// What it reports.
fn report(source: &str, file: &Path, flags: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&run(&mut get(source, file, flags)?)?)?)
}

/// What it complains of.
fn complaint(source: &str, file: &Path, flags: &[&str]) -> Result<String> {
    let output = output(&mut get(source, file, flags)?, LONG)?;
    ensure!(!output.status.success(), "it should fail: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn part(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Checks that a file is there, whole, and that its bytes came from where they should: from before, and from the server.
fn is(file: &Path, bytes: &[u8], report: &Value, from: [usize; 2]) -> Result<()> {
    let told = ["resumed_bytes", "server_bytes"].map(|key| report[key].as_u64());
    ensure!(told == from.map(|bytes| Some(bytes as u64)), "{report}");
    ensure!(fs::read(file)? == bytes && !part(file).exists(), "the file is another");
    Ok(())
}

#[test]
fn a_file_of_an_ordinary_web_server_comes_whole_and_also_along_a_redirect() -> Result<()> {
    let scratch = Scratch::new("get-whole")?;
    let (web, bytes) = (Web::start(&scratch.dir("web")?)?, noise(1, 3 * MIB + 5));
    fs::write(web.dir().join("a file"), &bytes)?;
    let (file, url) = (scratch.path().join("file"), web.url("a%20file"));
    is(&file, &bytes, &report(&url, &file, &[])?, [0, bytes.len()])?;
    let other = Odd::start(move |_, _| head("302 Found", &[("Location", &url), ("Content-Length", "0")]))?;
    let redirected = report(&other.url("f"), &file, &["--digest", &sha256(&bytes)])?;
    is(&file, &bytes, &redirected, [0, bytes.len()])
}

#[test]
fn killed_half_way_it_goes_on_where_it_was() -> Result<()> {
    let scratch = Scratch::new("get-killed")?;
    let (registry, bytes) = (Registry::start(&scratch.dir("registry")?)?, noise(2, 8 * MIB + 3));
    fs::write(scratch.path().join("blob"), &bytes)?;
    let digest = registry.push_blob("app", &scratch.path().join("blob"))?;
    let url = format!("http://{}/v2/app/blobs/{digest}", registry.address());
    let blob = format!("{}/app@{digest}", registry.address());
    for (number, source) in [url, blob].iter().enumerate() {
        let file = scratch.path().join(format!("file-{number}"));
        let mut slow = get(source, &file, &["--digest", &digest, "--rate-limit", "2MiB"])?;
        let mut slow = Daemon::start("shoal get", &mut slow, &scratch.path().join("get.log"))?;
        wait_for("a quarter of it", LONG, || {
            let here = fs::metadata(part(&file)).map_or(0, |part| part.len());
            Ok((here > 2 * MIB as u64).then_some(()))
        })?;
        slow.crash()?;
        let here = usize::try_from(fs::metadata(part(&file))?.len())?;
        ensure!(!file.exists() && here < bytes.len(), "it was through already");
        let rest = report(source, &file, &["--digest", &digest])?;
        is(&file, &bytes, &rest, [here, bytes.len() - here])?;
    }
    Ok(())
}

#[test]
fn what_a_server_cannot_go_on_with_begins_anew_and_comes_once() -> Result<()> {
    let scratch = Scratch::new("get-anew")?;
    // Python's server knows no ranges.
    let (web, bytes) = (Web::start(&scratch.dir("web")?)?, noise(3, MIB));
    fs::write(web.dir().join("f"), &bytes)?;
    let (file, digest) = (scratch.path().join("file"), sha256(&bytes));
    fs::write(part(&file), &bytes[..MIB / 2])?;
    is(&file, &bytes, &report(&web.url("f"), &file, &["--digest", &digest])?, [0, MIB])?;
    ensure!(web.asked_for("f")? == 1, "it was asked again");

    let whole = bytes.clone();
    let wrong = Odd::start(move |asked, _| match asked.contains("range: bytes=") {
        true => [
            head("206 Partial Content", &[("Content-Range", "bytes 0-9/1048576"), ("Content-Length", "10")]),
            b"0123456789".to_vec(),
        ]
        .concat(),
        false => [head("200 OK", &[("Content-Length", "1048576")]), whole.clone()].concat(),
    })?;
    fs::write(part(&file), &bytes[..MIB / 2])?;
    is(&file, &bytes, &report(&wrong.url("f"), &file, &["--digest", &digest])?, [0, MIB])?;

    // Nothing says what a URL without a digest was before.
    fs::write(part(&file), &bytes[..MIB / 2])?;
    is(&file, &bytes, &report(&wrong.url("f"), &file, &[])?, [0, MIB])
}

#[test]
fn a_part_that_is_wrong_or_too_long_costs_a_download_from_the_begin() -> Result<()> {
    let scratch = Scratch::new("get-part")?;
    let (registry, bytes) = (Registry::start(&scratch.dir("registry")?)?, noise(4, MIB));
    fs::write(scratch.path().join("blob"), &bytes)?;
    let digest = registry.push_blob("app", &scratch.path().join("blob"))?;
    let url = format!("http://{}/v2/app/blobs/{digest}", registry.address());
    let file = scratch.path().join("file");
    let mut wrong = bytes[..MIB / 2].to_vec();
    wrong[9] ^= 1;
    let long = [&bytes[..], b"more"].concat();
    for here in [&wrong, &long] {
        fs::write(part(&file), here)?;
        is(&file, &bytes, &report(&url, &file, &["--digest", &digest])?, [0, MIB])?;
    }
    fs::write(part(&file), &bytes)?;
    is(&file, &bytes, &report(&url, &file, &["--digest", &digest])?, [MIB, 0])
}

#[test]
fn a_body_that_is_too_short_or_too_long_is_no_file() -> Result<()> {
    let scratch = Scratch::new("get-length")?;
    let (file, bytes) = (scratch.path().join("file"), noise(5, 1000));
    let half = bytes[..500].to_vec();
    let short =
        Odd::start(move |_, _| [head("200 OK", &[("Content-Length", "1000")]), half.clone()].concat())?;
    complaint(&short.url("f"), &file, &[])?;
    complaint(&short.url("f"), &file, &["--digest", &sha256(&bytes)])?;
    ensure!(!file.exists() && fs::read(part(&file))? == bytes[..500], "half a file");

    let endless = Odd::start(|_, stream| {
        let range = [("Content-Range", "bytes 500-999/1000"), ("Transfer-Encoding", "chunked")];
        stream.send(&head("206 Partial Content", &range));
        while stream.send(&chunk(&[7; 4096])) {}
        Vec::new()
    })?;
    let said = complaint(&endless.url("f"), &file, &["--digest", &sha256(&bytes)])?;
    ensure!(said.contains("instead of"), "{said}");
    ensure!(!file.exists() && fs::metadata(part(&file))?.len() <= 1000, "more than was promised");
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_what_cannot_fit_is_not_begun() -> Result<()> {
    let scratch = Scratch::new("get-full")?;
    let disk = Mounted::new(["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &scratch.path().join("disk"))?;
    let file = disk.path().join("file");
    let endless = Odd::start(|_, stream| {
        stream.send(&head("200 OK", &[("Transfer-Encoding", "chunked")]));
        while stream.send(&chunk(&[7; 65536])) {}
        Vec::new()
    })?;
    let said = complaint(&endless.url("f"), &file, &[])?;
    ensure!(said.contains("the disk is full") && said.contains("file.part"), "{said}");
    ensure!(!file.exists(), "a part under the name of the whole");
    let large = Odd::start(|_, _| head("200 OK", &[("Content-Length", "2000000")]))?;
    fs::remove_file(part(&file))?;
    let said = complaint(&large.url("f"), &file, &[])?;
    ensure!(said.contains("needs 2000000 bytes"), "{said}");
    Ok(())
}

#[test]
fn a_wrong_digest_leaves_no_file_and_asks_once() -> Result<()> {
    let scratch = Scratch::new("get-wrong")?;
    let web = Web::start(&scratch.dir("web")?)?;
    fs::write(web.dir().join("f"), b"something else")?;
    let file = scratch.path().join("file");
    let said = complaint(&web.url("f"), &file, &["--digest", &sha256(b"something")])?;
    ensure!(said.contains(&sha256(b"something else")), "{said}");
    ensure!(!file.exists() && !part(&file).exists(), "a wrong file was kept");
    ensure!(web.asked_for("f")? == 1, "it was asked again");
    fs::write(&file, b"an older one")?;
    complaint(&web.url("f"), &file, &["--digest", &sha256(b"something")])?;
    ensure!(fs::read(&file)? == b"an older one", "an older file is lost");
    Ok(())
}

#[test]
fn two_processes_never_write_one_file() -> Result<()> {
    let scratch = Scratch::new("get-two")?;
    let (web, bytes) = (Web::start(&scratch.dir("web")?)?, noise(6, 4 * MIB));
    fs::write(web.dir().join("f"), &bytes)?;
    let (file, url) = (scratch.path().join("file"), web.url("f"));
    let mut slow = get(&url, &file, &["--rate-limit", "1MiB"])?;
    let slow = Daemon::start("shoal get", &mut slow, &scratch.path().join("get.log"))?;
    wait_for("its first bytes", LONG, || {
        Ok(fs::metadata(part(&file)).is_ok_and(|part| part.len() > 0).then_some(()))
    })?;
    let said = complaint(&url, &file, &[])?;
    ensure!(said.contains("another process"), "{said}");
    wait_for("the file", LONG, || Ok(file.exists().then_some(())))?;
    ensure!(fs::read(&file)? == bytes, "{}", slow.said());

    let digest = sha256(&bytes);
    for _ in 0..5 {
        fs::remove_file(&file)?;
        let gets: Vec<_> = (0..6).map(|_| get(&url, &file, &["--digest", &digest])).collect::<Result<_>>()?;
        let outputs: Vec<_> = thread::scope(|scope| {
            let gets: Vec<_> =
                gets.into_iter().map(|mut get| scope.spawn(move || output(&mut get, LONG))).collect();
            gets.into_iter().map(|get| get.join().unwrap()).collect::<Result<_>>()
        })?;
        ensure!(outputs.iter().any(|output| output.status.success()), "nobody got it");
        for output in outputs.iter().filter(|output| !output.status.success()) {
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(said.contains("another process"), "{said}");
        }
        ensure!(fs::read(&file)? == bytes && !part(&file).exists(), "the file is another");
    }
    Ok(())
}

#[test]
fn a_part_that_is_a_link_is_refused_and_not_followed() -> Result<()> {
    let scratch = Scratch::new("get-link")?;
    let web = Web::start(&scratch.dir("web")?)?;
    fs::write(web.dir().join("f"), b"new")?;
    let (file, other) = (scratch.path().join("file"), scratch.path().join("other"));
    fs::write(&other, b"somebody's")?;
    symlink(&other, part(&file))?;
    complaint(&web.url("f"), &file, &[])?;
    ensure!(fs::read(&other)? == b"somebody's" && !file.exists(), "the link was followed");
    Ok(())
}

#[test]
fn a_blob_comes_with_and_without_the_network_at_any_priority() -> Result<()> {
    let scratch = Scratch::new("get-blob")?;
    let (registry, bytes) = (Registry::start(&scratch.dir("registry")?)?, noise(7, 3 * MIB + 1));
    fs::write(scratch.path().join("blob"), &bytes)?;
    let digest = registry.push_blob("app", &scratch.path().join("blob"))?;
    let (blob, file) = (format!("{}/app@{digest}", registry.address()), scratch.path().join("file"));
    is(&file, &bytes, &report(&blob, &file, &[])?, [0, bytes.len()])?;

    let share = format!("{}/*", registry.address());
    let port = free_address()?.port();
    let node = P2pd::start(&scratch.dir("node")?, Ipv4Addr::new(127, 0, 0, 2), port, None, &share)?;
    let socket = node.socket();
    let socket = socket.to_str().context("a path")?;
    for priority in ["background", "trace", "read-ahead", "demand"] {
        let got = report(&blob, &file, &["--p2p-socket", socket, "--priority", priority])?;
        ensure!(got["p2p_bytes"] == bytes.len(), "{got}");
        is(&file, &bytes, &got, [0, 0])?;
    }
    complaint(&blob, &file, &["--priority", "urgent"])?;
    node.kill()?;
    is(&file, &bytes, &report(&blob, &file, &["--p2p-socket", socket])?, [0, bytes.len()])
}

#[test]
fn a_network_that_trickles_is_left_for_the_server() -> Result<()> {
    let scratch = Scratch::new("get-trickle")?;
    let (registry, bytes) = (Registry::start(&scratch.dir("registry")?)?, noise(8, MIB));
    fs::write(scratch.path().join("blob"), &bytes)?;
    let digest = registry.push_blob("app", &scratch.path().join("blob"))?;
    let (blob, file) = (format!("{}/app@{digest}", registry.address()), scratch.path().join("file"));
    let socket = scratch.path().join("mirror.sock");
    let first = bytes[..100].to_vec();
    let _trickle = Odd::at_socket(&socket, move |_, stream| {
        stream.send(&head("200 OK", &[("Content-Length", "1048576")]));
        stream.send(&first);
        stream.wait_until_closed();
        Vec::new()
    })?;
    let got = report(&blob, &file, &["--p2p-socket", socket.to_str().context("a path")?])?;
    ensure!(got["p2p_bytes"] == 100, "{got}");
    is(&file, &bytes, &got, [0, MIB - 100])
}

/// A directory with files below it, and what they hold.
fn tree(web: &Web) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let files = ["one", "a b & c.bin", "sub/two", "sub/deep/ä%2f.txt", "sub/deep/empty", "sub/zero/last"];
    let mut tree = Vec::new();
    for (seed, name) in (20..).zip(files) {
        let bytes = if name.ends_with("empty") { Vec::new() } else { noise(seed, 100_000) };
        let file = web.dir().join("pub").join(name);
        fs::create_dir_all(file.parent().context("a directory")?)?;
        fs::write(file, &bytes)?;
        tree.push((name, bytes));
    }
    fs::write(web.dir().join("above"), "not asked for")?;
    Ok(tree)
}

#[test]
fn a_directory_comes_with_all_that_is_below_it_and_nothing_else() -> Result<()> {
    let scratch = Scratch::new("get-tree")?;
    let web = Web::start(&scratch.dir("web")?)?;
    let tree = tree(&web)?;
    // A directory in itself.
    symlink("..", web.dir().join("pub/sub/round"))?;
    let dir = scratch.path().join("got");
    let mut get = get(&web.url("pub"), &dir, &["-r"])?;
    let output = output(&mut get, LONG)?;
    let (told, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let report: Value = serde_json::from_str(&told).with_context(|| said.clone())?;
    ensure!(!output.status.success() && said.contains("directories in each other"), "{said}");
    ensure!(report["failed"].as_array().is_some_and(|failed| !failed.is_empty()), "{report}");
    for (name, bytes) in &tree {
        ensure!(fs::read(dir.join(name)).context(*name)? == *bytes, "{name}");
    }

    fs::remove_file(web.dir().join("pub/sub/round"))?;
    fs::remove_dir_all(&dir)?;
    let report = self::report(&web.url("pub/"), &dir, &["--recursive"])?;
    ensure!(report["files"].as_array().is_some_and(|files| files.len() == tree.len()), "{report}");
    for (name, bytes) in &tree {
        ensure!(fs::read(dir.join(name)).context(*name)? == *bytes, "{name}");
    }
    ensure!(!dir.join("above").exists() && fs::read_dir(&dir)?.count() == 3, "more came than was asked for");

    let asked = web.asked_for("pub/one")?;
    fs::remove_file(dir.join("sub/two"))?;
    let report = self::report(&web.url("pub/"), &dir, &["-r", "--continue"])?;
    ensure!(report["skipped"] == tree.len() - 1 && dir.join("sub/two").exists(), "{report}");
    ensure!(web.asked_for("pub/one")? == asked, "what was here came again");
    Ok(())
}

#[test]
fn what_fails_of_a_directory_is_told_and_the_rest_comes() -> Result<()> {
    let scratch = Scratch::new("get-tree-odd")?;
    let server = Odd::start(|asked, _| {
        let path = asked.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            "/pub/" => concat!(
                r#"<a href="../">up</a><a href="/secret">x</a><a href="http://127.0.0.2/y">y</a>"#,
                r#"<a href="..%2f..%2fescaped">e</a><a href="%2fetc%2fescaped">e</a>"#,
                r#"<a href="missing">m</a><a href="gone/">g</a><a href="good">g</a><a href="good?x=1">q</a>"#
            ),
            "/pub/good" => "good",
            _ => return head("404 Not Found", &[("Content-Length", "0")]),
        };
        [head("200 OK", &[("Content-Length", &body.len().to_string())]), body.into()].concat()
    })?;
    let dir = scratch.dir("outer/got")?;
    let output = output(&mut get(&server.url("pub/"), &dir, &["-r"])?, LONG)?;
    let (told, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.code() == Some(1), "{said}");
    for part in ["pub/missing", "pub/gone/", "escaped", "4 of"] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    let report: Value = serde_json::from_str(&told)?;
    ensure!(report["failed"].as_array().is_some_and(|failed| failed.len() == 4), "{report}");
    let names: Vec<_> =
        fs::read_dir(&dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    ensure!(names == ["good"], "{names:?}");
    ensure!(fs::read_dir(scratch.path().join("outer"))?.count() == 1, "something escaped");

    for (source, flags) in [
        (server.url("empty/"), vec!["-r"]),
        (server.url("pub/?x=1"), vec!["-r"]),
        (server.url("pub/"), vec!["-r", "--digest", "sha256:00"]),
        (server.url("pub/good"), vec!["--continue"]),
    ] {
        complaint(&source, &dir, &flags)?;
    }
    Ok(())
}
