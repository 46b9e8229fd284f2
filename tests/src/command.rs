//! Running other programs to their end: with a deadline, and stopped when the user asks for it.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    process::{Command, Output, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longest time a program may take where the caller has no better idea.
pub const DEADLINE: Duration = Duration::from_secs(300);
/// A program that is to end gets this long before it is killed.
const GRACE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(20);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process fail soon, so that the guards on the stack clean up.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Fails once [`interrupt`] was called.
///
/// # Errors
/// After an interrupt.
pub fn check_interrupted() -> Result<()> {
    match INTERRUPTED.load(Ordering::Relaxed) {
        true => bail!("interrupted"),
        false => Ok(()),
    }
}

/// A command with arguments.
pub fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs a program within [`DEADLINE`] and returns its stdout; a failure tells all that it said.
///
/// # Errors
/// Where it cannot start, does not end in time, or ends with another code than 0.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command, DEADLINE)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{} ended with {}:\n{}{}", shown(command), output.status, stdout, stderr)
}

/// Runs a program to its end, whatever its exit code.
///
/// # Errors
/// Where it cannot start or does not end in time.
pub fn output(command: &mut Command, deadline: Duration) -> Result<Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", shown(command)))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("process id")?);
    let (done, wait) = mpsc::channel();
    let waiter = thread::spawn(move || done.send(child.wait_with_output()).is_ok());
    let end = Instant::now() + deadline;
    let result = loop {
        match wait.recv_timeout(TICK) {
            Ok(result) => break result.with_context(|| format!("wait for {}", shown(command))),
            Err(RecvTimeoutError::Disconnected) => bail!("the thread waiting for {} ended", shown(command)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let problem = match (check_interrupted(), Instant::now() > end) {
            (Err(error), _) => error,
            (Ok(()), true) => anyhow::anyhow!("no end within {deadline:?}"),
            (Ok(()), false) => continue,
        };
        // It may have something to clean up.
        kill(pid, Signal::SIGTERM).ok();
        if wait.recv_timeout(GRACE).is_err() {
            kill(pid, Signal::SIGKILL).ok();
        }
        drop(waiter.join());
        return Err(problem.context(shown(command)));
    };
    drop(waiter.join());
    result
}

/// Waits until `ready` gives a value.
///
/// # Errors
/// The error of `ready`, an interrupt, or the deadline.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        check_interrupted()?;
        if Instant::now() > end {
            bail!("{what}: not within {deadline:?}");
        }
        thread::park_timeout(TICK);
    }
}

/// Whether a program is in `PATH`.
#[must_use]
pub fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        write!(text, " {}", arg.lines().next().unwrap_or_default()).expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_the_program_said() {
        let error =
            run(&mut command("sh", ["-c", "echo out; echo err >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("out\nerr") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_at_its_deadline() {
        let start = Instant::now();
        // The shell itself reads, and has no child to leave behind.
        let script = "trap '' TERM; while :; do read line <&1; done";
        let result = output(&mut command("bash", ["-c", script]), Duration::from_millis(50));
        assert!(result.is_err() && start.elapsed() < Duration::from_secs(10));
    }
}
