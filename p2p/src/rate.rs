//! Limits on bytes per second: one for the host, below it one for each task, changeable while they are in use.
//!
//! A [`HostLimit`] is divided into [`Share`]s. Whoever moves bytes takes them from a share first, in steps of at most
//! [`STEP`] bytes: `share.take(step).await`, then the write. Shares that want more than there is get it by weight; within a
//! share the first to ask is the first to go. Nothing runs in the background: of those who wait, one minds the clock.

mod bucket;
mod limits;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

pub use bucket::Rate;
pub(crate) use limits::LEAST;
pub use limits::{Limits, Scope, Setting, Use};
use shares::{ShareId, Shares, Ticket};

/// Most bytes that go at once.
pub const STEP: u32 = 64 << 10;

/// The limit of a host, for one direction or use.
#[derive(Clone)]
pub struct HostLimit(Arc<Host>);

struct Host {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    shares: Shares,
    waiters: BTreeMap<Ticket, Arc<Notify>>,
    next: u64,
    /// Who minds the clock, and until when it sleeps.
    minder: Option<(Ticket, Duration)>,
}

/// A part of a host's limit. Clones are the same part; it ends with the last of them.
#[derive(Clone)]
pub struct Share(Arc<ShareInner>);

struct ShareInner {
    host: Arc<Host>,
    id: ShareId,
}

impl HostLimit {
    /// A limit for all shares together.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let shares = Shares::new(Duration::ZERO, rate);
        let state = State { shares, waiters: BTreeMap::new(), next: 0, minder: None };
        Self(Arc::new(Host { began: Instant::now(), state: Mutex::new(state) }))
    }

    /// Changes the limit, also for those who wait.
    pub fn set_rate(&self, rate: Rate) {
        self.0.change(|shares, now| shares.set_host_rate(now, rate));
    }

    /// A part that gets bytes in proportion to `weight` where they are short, and never more than `rate`.
    #[must_use]
    pub fn share(&self, weight: NonZeroU32, rate: Rate) -> Share {
        let id = self.0.lock().shares.add(self.0.now(), weight, rate);
        Share(Arc::new(ShareInner { host: self.0.clone(), id }))
    }
}

impl Share {
    /// Waits until `bytes` may go. More than [`STEP`] go in several steps, between which others may come.
    ///
    /// A future that is dropped while it waits takes nothing more.
    pub async fn take(&self, bytes: u32) {
        let mut rest = bytes;
        while rest > 0 {
            let step = rest.min(STEP);
            self.step(step).await;
            rest -= step;
        }
    }

    async fn step(&self, bytes: u32) {
        let waiting = Waiting::begin(&self.0, bytes);
        loop {
            match waiting.turn() {
                Turn::Go => return,
                Turn::Mind(until) => {
                    let slept = tokio::time::sleep_until(self.0.host.began + until);
                    tokio::select! {
                        () = slept => {}
                        () = waiting.woken.notified() => {}
                    }
                }
                Turn::Wait => waiting.woken.notified().await,
            }
        }
    }

    /// Changes the share's own limit, also for those who wait.
    pub fn set_rate(&self, rate: Rate) {
        self.0.host.change(|shares, now| shares.set_rate(now, self.0.id, rate));
    }

    /// Changes its weight.
    pub fn set_weight(&self, weight: NonZeroU32) {
        self.0.host.change(|shares, _| shares.set_weight(self.0.id, weight));
    }
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn change(&self, change: impl FnOnce(&mut Shares, Duration)) {
        let mut state = self.lock();
        change(&mut state.shares, self.now());
        // It slept until a time that may be wrong now.
        state.wake_minder();
    }
}

impl State {
    /// Lets go whatever may; gives when to look again.
    fn advance(&mut self, now: Duration) -> Duration {
        loop {
            match self.shares.next(now) {
                Some(Ok(ticket)) => {
                    if let Some(woken) = self.waiters.remove(&ticket) {
                        woken.notify_one();
                    }
                }
                Some(Err(wake)) => return wake,
                None => return Duration::MAX,
            }
        }
    }

    fn wake_minder(&self) {
        if let Some(woken) = self.minder.and_then(|(minder, _)| self.waiters.get(&minder)) {
            woken.notify_one();
        }
    }
}

enum Turn {
    Go,
    Mind(Duration),
    Wait,
}

/// A step that waits; dropping it leaves the queue.
struct Waiting<'a> {
    share: &'a ShareInner,
    ticket: Ticket,
    woken: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn begin(share: &'a ShareInner, bytes: u32) -> Self {
        let mut state = share.host.lock();
        let (ticket, woken) = (Ticket(state.next), Arc::new(Notify::new()));
        state.next += 1;
        state.waiters.insert(ticket, woken.clone());
        state.shares.wait(share.id, ticket, bytes);
        Self { share, ticket, woken }
    }

    fn turn(&self) -> Turn {
        let mut state = self.share.host.lock();
        let wake = state.advance(self.share.host.now());
        if !state.waiters.contains_key(&self.ticket) {
            return Turn::Go;
        }
        match state.minder {
            Some((minder, until)) if minder != self.ticket => {
                if wake < until {
                    state.wake_minder();
                }
                Turn::Wait
            }
            _ => {
                state.minder = Some((self.ticket, wake));
                Turn::Mind(wake)
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.share.host.lock();
        if state.waiters.remove(&self.ticket).is_some() {
            state.shares.cancel(self.share.id, self.ticket);
        }
        if state.minder.is_some_and(|(minder, _)| minder == self.ticket) {
            state.minder = None;
            if let Some(woken) = state.waiters.values().next() {
                woken.notify_one();
            }
        }
    }
}

impl Drop for ShareInner {
    fn drop(&mut self) {
        self.host.lock().shares.remove(self.id);
    }
}

impl fmt::Debug for HostLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostLimit").finish_non_exhaustive()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("id", &self.0.id).finish_non_exhaustive()
    }
}
