//! A program that runs beside us until its guard goes.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::command::wait_for;

const GRACE: Duration = Duration::from_secs(10);

/// A running program, its output in a log file. Dropped, it is asked to end, then made to.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program. It gets a process group of its own, so that Ctrl-C reaches us alone and we end it in order.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out =
            File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// Where it ends before that, or the deadline passes; with what it logged.
    pub fn wait_ready(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let (name, child) = (&self.name, &mut self.child);
        wait_for(name, deadline, || match (child.try_wait()?, ready()) {
            (Some(status), _) => bail!("{name} ended with {status}"),
            (None, true) => Ok(Some(())),
            (None, false) => Ok(None),
        })
        .with_context(|| self.said())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is small"))
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn crash(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits; after [`GRACE`] it is killed.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(self.pid(), Signal::SIGTERM).ok();
        let end = std::time::Instant::now() + GRACE;
        while self.child.try_wait()?.is_none() {
            if std::time::Instant::now() > end {
                return self.crash();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!("{} said:\n{}", self.name, lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}
