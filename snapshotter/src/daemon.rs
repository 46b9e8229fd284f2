//! The one nydusd that serves all lazy images: started when it is first needed, started again when it dies.

mod places;
mod process;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nydusd_api::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use process::Launch;
use process::Process;

/// A daemon that lived this long did not die of what it was started with.
const STABLE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What happens to the daemon when the snapshotter ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtClose {
    /// It ends, and its mount goes: containers that use it see errors, the next start mounts anew.
    End,
    /// It goes on serving; the next start finds it.
    Leave,
}

/// There is no daemon to talk to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DaemonError {
    /// It cannot be started.
    #[error("nydusd does not start: {0}")]
    Start(String),
    /// The snapshotter ends.
    #[error("the snapshotter is ending")]
    Closed,
}

/// One life of the daemon.
#[derive(Debug, Clone)]
pub struct Session {
    /// Counts its lives.
    pub generation: u64,
    /// Talks to it.
    pub client: Client,
    /// Images that it had when it was found running: mountpoint, and where it is seen.
    pub adopted: Arc<HashMap<String, PathBuf>>,
}

#[derive(Debug, Clone)]
enum State {
    Down { last_error: Option<String> },
    Running(Session),
    Closed,
}

/// Asks for the daemon.
#[derive(Debug, Clone)]
pub struct Daemon {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
}

/// Owns the daemon.
#[derive(Debug)]
pub struct Supervisor {
    launch: Launch,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
    generation: u64,
    failures: u32,
}

/// A daemon that is not running yet, and its owner, whose [`Supervisor::run`] must run.
#[must_use]
pub fn new(launch: Launch) -> (Daemon, Supervisor) {
    let (sender, state) = watch::channel(State::Down { last_error: None });
    let wanted = Arc::new(Notify::new());
    let supervisor =
        Supervisor { launch, state: sender, wanted: Arc::clone(&wanted), generation: 0, failures: 0 };
    (Daemon { state, wanted }, supervisor)
}

impl Daemon {
    /// Has the daemon started, if it is not; does not wait.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// The running daemon; waits for it for at most `limit`.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub async fn session(&self, limit: Duration) -> Result<Session, DaemonError> {
        self.wake();
        let mut state = self.state.clone();
        let reached =
            tokio::time::timeout(limit, state.wait_for(|state| !matches!(state, State::Down { .. })));
        match reached.await.map(|found| found.map(|state| state.clone())) {
            Ok(Ok(State::Running(session))) => Ok(session),
            Ok(_) => Err(DaemonError::Closed),
            Err(_) => Err(self.why_down(limit)),
        }
    }

    /// The daemon that runs now, if any.
    #[must_use]
    pub fn running(&self) -> Option<Session> {
        match &*self.state.borrow() {
            State::Running(session) => Some(session.clone()),
            State::Down { .. } | State::Closed => None,
        }
    }

    /// Waits for a life of the daemon after `generation`; nothing when the snapshotter ends.
    pub async fn next_life(&self, generation: u64) -> Option<Session> {
        let mut state = self.state.clone();
        let newer = |state: &State| match state {
            State::Running(session) => session.generation > generation,
            State::Closed => true,
            State::Down { .. } => false,
        };
        match &*state.wait_for(newer).await.ok()? {
            State::Running(session) => Some(session.clone()),
            State::Down { .. } | State::Closed => None,
        }
    }

    fn why_down(&self, limit: Duration) -> DaemonError {
        DaemonError::Start(match &*self.state.borrow() {
            State::Down { last_error: Some(error) } => error.clone(),
            _ => format!("not ready within {limit:?}"),
        })
    }
}

impl Supervisor {
    /// Keeps the daemon alive until `end`.
    pub async fn run(mut self, end: CancellationToken, at_close: AtClose) {
        let mut found = self.launch.adopt().await;
        while let Some(mut process) = self.next(&end, found.take()).await {
            let started = Instant::now();
            self.announce(&process);
            let ended = tokio::select! {
                ended = process.ended() => ended,
                () = end.cancelled() => {
                    self.state.send_replace(State::Closed);
                    return self.close(process, at_close).await;
                }
            };
            error!(process = %process.pid(), reason = %ended, "nydusd ended; containers on lazy images see errors");
            if started.elapsed() > STABLE {
                self.failures = 0;
            }
            self.went_down(format!("it ended: {ended}"));
            self.launch.detach();
            // Whatever stood on the dead one is needed again.
            self.wanted.notify_one();
        }
        self.state.send_replace(State::Closed);
    }

    /// The next life: the one found running, or a new one as soon as it is wanted. None at the end.
    async fn next(&mut self, end: &CancellationToken, found: Option<Process>) -> Option<Process> {
        if found.is_some() {
            return found;
        }
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = end.cancelled() => return None,
            }
            tokio::select! {
                () = tokio::time::sleep(pause(self.failures)) => {}
                () = end.cancelled() => return None,
            }
            match self.launch.start().await {
                Ok(process) => return Some(process),
                Err(error) => {
                    let error = format!("{error:#}");
                    error!(%error, "nydusd does not start");
                    self.went_down(error);
                    self.launch.detach();
                    self.wanted.notify_one();
                }
            }
        }
    }

    fn went_down(&mut self, error: String) {
        self.failures += 1;
        self.state.send_replace(State::Down { last_error: Some(error) });
    }

    fn announce(&mut self, process: &Process) {
        self.generation += 1;
        info!(process = process.pid(), generation = self.generation, "nydusd is running");
        self.state.send_replace(State::Running(Session {
            generation: self.generation,
            client: self.launch.client(),
            adopted: process.mounted(),
        }));
    }

    async fn close(&self, process: Process, at_close: AtClose) {
        match at_close {
            AtClose::Leave => info!(process = process.pid(), "nydusd stays, the next start finds it"),
            AtClose::End => {
                if let Err(error) = process.end(&self.launch.client()).await {
                    warn!(%error, "nydusd did not end by itself");
                }
                self.launch.detach();
            }
        }
    }
}

/// The first failure costs nothing, the next ones more and more: a daemon that always dies must not eat the machine.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(more.min(20) - 2)),
    }
}

/// How the daemon is started.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// The program.
    pub binary: PathBuf,
    /// Its `--log-level`.
    pub log_level: String,
    /// Its `--thread-num`.
    pub threads: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_restart_is_immediate_and_a_crash_storm_slows_down() {
        assert_eq!(pause(1), Duration::ZERO);
        let early: Duration = (1..=4).map(pause).sum();
        assert!(early < Duration::from_secs(2), "{early:?}");
        assert_eq!(pause(1000), LONGEST_PAUSE);
    }
}
