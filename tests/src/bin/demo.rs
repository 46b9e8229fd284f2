//! The main job, end to end: a real image is made, pushed, converted, pulled and started, plainly and lazily.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result};
use integration_tests::{
    command,
    containerd::{Release, has_nerdctl},
    image::debian::Program,
    node::{Node, Start, until_ready},
    relay::Link,
};

const PROGRAM: Program = Program::Python;

fn main() -> ExitCode {
    service::exit::report("demo", demo())
}

fn demo() -> Result<()> {
    stop_on_signals()?;
    step("building an image of Debian packages (kept in the cache for the next time)");
    let image = PROGRAM.image()?;
    step("starting a registry, the snapshotter and containerd of its own");
    let node = Node::start("demo", Release::Installed, Link::DIRECT)?;
    step("pushing and converting the image");
    node.publish(&image, PROGRAM.name())?;
    step("starting it plainly");
    let plain = node.cold_start("overlayfs", &node.name(PROGRAM.name(), "plain"), PROGRAM.args())?;
    step("starting it lazily");
    let lazy_name = node.name(PROGRAM.name(), "lazy");
    let lazy = node.cold_start("nydus", &lazy_name, PROGRAM.args())?;
    let path = node.snapshotter.data_path().unwrap_or_else(|| "none".to_owned());
    table(&[("overlayfs", plain, "unpacked layers"), ("Shoal", lazy, &path)], image.layer_bytes()?)?;
    if has_nerdctl() {
        nerdctl(&node, &lazy_name)?;
    }
    step("ending everything");
    Ok(())
}

/// The same through nerdctl, for those who use it.
fn nerdctl(node: &Node, image: &str) -> Result<()> {
    let mut run =
        command::command("nerdctl", ["--snapshotter", "nydus", "--cgroup-manager", "cgroupfs", "--address"]);
    run.arg(node.containerd.socket()).arg("--data-root").arg(node.scratch.dir("nerdctl")?);
    run.args(["--insecure-registry", "run", "--rm", "--network", "none", image]).args(PROGRAM.args());
    let (time, ()) = until_ready(&mut run, || ()).context("nerdctl --snapshotter nydus run")?;
    step(&format!("nerdctl --snapshotter nydus run: ready after {time:.2?}"));
    Ok(())
}

/// A signal lets every wait fail, so that the guards end what runs.
fn stop_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sent, registered) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) else { return };
            sent.send(()).ok();
            loop {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
                command::interrupt();
            }
        });
    });
    registered.recv_timeout(Duration::from_secs(5)).context("listen to signals")
}

fn step(text: &str) {
    eprintln!("==> {text}");
}

#[allow(clippy::print_stdout, reason = "the result of the program")]
fn table(rows: &[(&str, Start, &str)], image_bytes: u64) -> Result<()> {
    println!();
    println!(
        "| {:<9} | {:>7} | {:>7} | {:>7} | {:>7} | {:<28} | data path",
        "", "pull", "create", "ready", "total", "bytes over the network"
    );
    for (name, start, path) in rows {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let share = start.bytes * 100 / image_bytes.max(1);
        let bytes = format!("{} of {} ({share} %)", megabytes(start.bytes), megabytes(image_bytes));
        println!(
            "| {name:<9} | {:>7} | {:>7} | {:>7} | {:>7} | {bytes:<28} | {path}",
            seconds(start.pull),
            seconds(start.create),
            seconds(start.ready),
            seconds(start.total()),
        );
    }
    println!();
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
