//! All limits of a node: for each use of the network one for the host and one for each task, changeable at any time.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{HostLimit, Rate, Share, bucket};
use crate::TaskId;

/// Shares that are remembered; beyond it all begin anew.
const SHARES: usize = 8192;
/// Least limit: below it partners take the node for stalled.
pub(crate) const LEAST: NonZeroU64 = NonZeroU64::new(256 << 10).expect("more than nothing");

/// What bytes are moved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// Pieces for other nodes.
    Upload,
    /// Pieces from other nodes and the origin.
    Download,
    /// Pieces from the origin.
    Origin,
    /// What programs read ahead, before anything needs it.
    Prefetch,
}

impl Use {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Upload, Self::Download, Self::Origin, Self::Prefetch];

    const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Origin => "origin",
            Self::Prefetch => "prefetch",
        }
    }
}

/// What a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All tasks together.
    Host(Use),
    /// Each task.
    Task(Use),
}

/// One limit as it is written: `upload=100MiB`, `task.origin=none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// What for.
    pub scope: Scope,
    /// How much in a second.
    pub rate: Rate,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not USE=RATE"))?;
        let (of_task, name) = name.strip_prefix("task.").map_or((false, name), |name| (true, name));
        let of = Use::ALL.into_iter().find(|of| of.name() == name);
        let of = of.ok_or_else(|| format!("{text:?}: uses are upload, download, origin and prefetch"))?;
        let scope = if of_task { Scope::Task(of) } else { Scope::Host(of) };
        if value == "none" {
            return Ok(Self { scope, rate: Rate::UNLIMITED });
        }
        let bytes = service::size::parse(value).map_err(|problem| format!("{text:?}: {problem}"))?;
        let bytes = NonZeroU64::new(bytes).filter(|bytes| *bytes >= LEAST);
        let bytes = bytes.ok_or_else(|| format!("{text:?}: at least 256KiB, or none"))?;
        Ok(Self { scope, rate: Rate::per_second(bytes) })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Host(of) => write!(f, "{}=", of.name())?,
            Scope::Task(of) => write!(f, "task.{}=", of.name())?,
        }
        match self.rate.bytes_per_second() {
            Some(bytes) => write!(f, "{bytes}"),
            None => f.write_str("none"),
        }
    }
}

/// The limits of a node. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: BTreeMap<Use, HostLimit>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What has a limit.
    rates: BTreeMap<Scope, Rate>,
    shares: HashMap<(Use, TaskId), Share>,
}

impl Default for Inner {
    fn default() -> Self {
        let hosts = Use::ALL.into_iter().map(|of| (of, HostLimit::new(Rate::UNLIMITED)));
        Self { hosts: hosts.collect(), state: Mutex::default() }
    }
}

impl Limits {
    /// These limits, and none for the rest.
    #[must_use]
    pub fn new(settings: &[Setting]) -> Self {
        let limits = Self::default();
        settings.iter().for_each(|setting| limits.set(*setting));
        limits
    }

    /// Changes a limit, also for those who wait.
    pub fn set(&self, Setting { scope, rate }: Setting) {
        let mut state = self.state();
        if rate == Rate::UNLIMITED {
            state.rates.remove(&scope)
        } else {
            state.rates.insert(scope, rate)
        };
        match scope {
            Scope::Host(of) => self.0.hosts[&of].set_rate(rate),
            Scope::Task(of) => {
                let shares = state.shares.iter().filter(|((other, _), _)| *other == of);
                shares.for_each(|(_, share)| share.set_rate(rate));
            }
        }
    }

    /// All limits, also where there is none.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let state = self.state();
        let scopes = Use::ALL.into_iter().map(Scope::Host).chain(Use::ALL.into_iter().map(Scope::Task));
        scopes.map(|scope| Setting { scope, rate: state.rate(scope) }).collect()
    }

    /// What bytes of a task are to be taken from, if that use of them is limited now.
    #[must_use]
    pub fn share(&self, of: Use, task: TaskId) -> Option<Share> {
        let mut state = self.state();
        let rate = state.rate(Scope::Task(of));
        if rate == Rate::UNLIMITED && state.rate(Scope::Host(of)) == Rate::UNLIMITED {
            return None;
        }
        if state.shares.len() >= SHARES {
            state.shares.clear();
        }
        let share = || self.0.hosts[&of].share(NonZeroU32::MIN, rate);
        Some(state.shares.entry((of, task)).or_insert_with(share).clone())
    }

    /// Waits until bytes of a task may be moved for this use.
    pub async fn take(&self, of: Use, task: TaskId, bytes: u32) {
        if let Some(share) = self.share(of, task) {
            share.take(bytes).await;
        }
    }

    /// Forgets a task: nothing of it moves any more.
    pub fn forget(&self, task: TaskId) {
        self.state().shares.retain(|(_, other), _| *other != task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rate(&self, scope: Scope) -> bucket::Rate {
        self.rates.get(&scope).copied().unwrap_or(Rate::UNLIMITED)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn task(number: u8) -> TaskId {
        TaskId::from_bytes([number; 32])
    }

    fn set(limits: &Limits, text: &str) {
        limits.set(text.parse().unwrap());
    }

    #[test]
    fn limits_are_read_as_they_are_written_and_nonsense_is_refused() {
        for text in ["upload=262144", "task.origin=1048576", "prefetch=none"] {
            assert_eq!(text.parse::<Setting>().unwrap().to_string(), text);
        }
        assert_eq!("download=1MiB".parse::<Setting>().unwrap().to_string(), "download=1048576");
        for text in ["upload", "sideways=1MiB", "task.=1MiB", "upload=1KiB", "upload=0", "upload=fast"] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
        assert_eq!(Limits::default().settings().len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_s_limit_is_shared_evenly_and_a_task_s_holds_for_each() {
        let limits = Limits::default();
        assert!(limits.share(Use::Upload, task(1)).is_none(), "nothing is limited");
        for (setting, seconds) in [("upload=1MiB", 8), ("task.upload=512KiB", 8), ("upload=none", 8)] {
            set(&limits, setting);
            let began = Instant::now();
            let take = |number| limits.take(Use::Upload, task(number), 4 << 20);
            tokio::join!(take(1), take(2));
            // What has gathered while nobody took goes at once.
            let (took, expected) = (began.elapsed().as_secs_f64(), f64::from(seconds));
            assert!(took > expected - 0.6 && took < expected + 0.1, "{setting}: {took}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_lifted_lets_those_go_who_wait() {
        let limits = Limits::default();
        set(&limits, "origin=256KiB");
        let began = Instant::now();
        let lifted = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            set(&limits, "origin=none");
        };
        tokio::join!(limits.take(Use::Origin, task(1), 64 << 20), lifted);
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
