//! Who goes next: shares of a host's rate by weight, each within a rate of its own. Told the time; waits for nothing.
//!
//! Start-time fair queueing: a step's tag is the virtual time at which it could have begun; the lowest tag goes first. A
//! share that was idle begins at the virtual time of now: it neither catches up nor falls behind.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use super::bucket::{Bucket, Rate};

/// A step that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// A share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShareId(u64);

/// The shares of a host.
#[derive(Debug)]
pub(super) struct Shares {
    host: Bucket,
    shares: BTreeMap<ShareId, Share>,
    next: u64,
    virtual_time: f64,
}

#[derive(Debug)]
struct Share {
    bucket: Bucket,
    weight: NonZeroU32,
    /// Virtual time at which its last step ends.
    finish: f64,
    waiting: VecDeque<(Ticket, u32)>,
}

impl Shares {
    pub(super) fn new(now: Duration, rate: Rate) -> Self {
        Self { host: Bucket::new(now, rate), shares: BTreeMap::new(), next: 0, virtual_time: 0.0 }
    }

    pub(super) fn add(&mut self, now: Duration, weight: NonZeroU32, rate: Rate) -> ShareId {
        let id = ShareId(self.next);
        self.next += 1;
        let bucket = Bucket::new(now, rate);
        self.shares.insert(id, Share { bucket, weight, finish: 0.0, waiting: VecDeque::new() });
        id
    }

    pub(super) fn remove(&mut self, id: ShareId) {
        self.shares.remove(&id);
    }

    pub(super) fn set_host_rate(&mut self, now: Duration, rate: Rate) {
        self.host.set_rate(now, rate);
    }

    pub(super) fn set_rate(&mut self, now: Duration, id: ShareId, rate: Rate) {
        if let Some(share) = self.shares.get_mut(&id) {
            share.bucket.set_rate(now, rate);
        }
    }

    pub(super) fn set_weight(&mut self, id: ShareId, weight: NonZeroU32) {
        if let Some(share) = self.shares.get_mut(&id) {
            share.weight = weight;
        }
    }

    pub(super) fn wait(&mut self, id: ShareId, ticket: Ticket, bytes: u32) {
        if let Some(share) = self.shares.get_mut(&id) {
            share.waiting.push_back((ticket, bytes));
        }
    }

    pub(super) fn cancel(&mut self, id: ShareId, ticket: Ticket) {
        if let Some(share) = self.shares.get_mut(&id) {
            share.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    /// The step that goes at `now`, or from when on one may; `None` where nothing waits.
    pub(super) fn next(&mut self, now: Duration) -> Option<Result<Ticket, Duration>> {
        let mut wake: Option<Duration> = None;
        let mut first: Option<(f64, ShareId, u32)> = None;
        for (id, share) in &mut self.shares {
            let Some((_, bytes)) = share.waiting.front().copied() else { continue };
            let ready = share.bucket.ready(now, bytes);
            if ready > now {
                wake = Some(wake.map_or(ready, |wake| wake.min(ready)));
                continue;
            }
            let start = share.finish.max(self.virtual_time);
            if first.is_none_or(|(other, ..)| start < other) {
                first = Some((start, *id, bytes));
            }
        }
        let Some((start, id, bytes)) = first else { return wake.map(Err) };
        let ready = self.host.ready(now, bytes);
        if ready > now {
            return Some(Err(wake.map_or(ready, |wake| wake.min(ready))));
        }
        let share = self.shares.get_mut(&id)?;
        let (ticket, _) = share.waiting.pop_front()?;
        share.bucket.take(bytes);
        share.finish = start + f64::from(bytes) / f64::from(share.weight.get());
        self.host.take(bytes);
        self.virtual_time = start;
        Some(Ok(ticket))
    }
}
