//! The container, by runc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::paths;

/// Time between asking a command to end and killing it.
const GRACE: Duration = Duration::from_secs(5);
/// Longest wait for runc to do a small thing.
const CALL: Duration = Duration::from_secs(10);

/// runc with a state directory of its own.
struct Runc {
    program: PathBuf,
    state: PathBuf,
    name: String,
}

/// Runs a container until its command ends, time is up or the user has seen enough. What went wrong inside is a remark:
/// what was read until then still counts.
pub(super) async fn run(
    work: &Path,
    spec: &Value,
    timeout: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Option<String>> {
    let program = paths::program("runc").context("runc is not in PATH")?;
    let name = format!("shoal-trace-{}", std::process::id());
    let runc = Runc { program, state: work.join("runc"), name };
    let bundle = work.join("bundle");
    fs::create_dir(&bundle)?;
    fs::write(bundle.join("config.json"), spec.to_string())?;
    let mut child = runc
        .command("run")
        .arg("--bundle")
        .arg(&bundle)
        .arg(&runc.name)
        .stdin(Stdio::null())
        // Ours is for the list.
        .stdout(std::io::stderr())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", runc.program.display()))?;
    let ended = tokio::select! {
        status = child.wait() => Some(status?),
        () = tokio::time::sleep(timeout) => None,
        () = stop.cancelled() => None,
    };
    let remark = match ended {
        Some(status) => remark(status),
        None => runc.end(&mut child).await,
    };
    runc.call("delete", &["--force"]).await;
    Ok(remark)
}

fn remark(status: ExitStatus) -> Option<String> {
    (!status.success())
        .then(|| format!("the command failed ({status}); the list holds what it read until then"))
}

impl Runc {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).arg(verb);
        command
    }

    async fn end(&self, child: &mut Child) -> Option<String> {
        for (signal, patience) in [("TERM", GRACE), ("KILL", CALL)] {
            let mut command = self.command("kill");
            command.arg(&self.name).arg(signal);
            quietly(command).await;
            if tokio::time::timeout(patience, child.wait()).await.is_ok() {
                return None;
            }
        }
        Some("the container does not end".into())
    }

    async fn call(&self, verb: &str, flags: &[&str]) {
        let mut command = self.command(verb);
        command.args(flags).arg(&self.name);
        quietly(command).await;
    }
}

/// Runs a command whose success shows elsewhere.
async fn quietly(mut command: Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    if let Ok(Ok(status)) = tokio::time::timeout(CALL, command.status()).await {
        tracing::debug!(%status, "runc");
    }
}
