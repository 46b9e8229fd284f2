//! One fetch per chunk, whatever the number of readers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::watch;

use super::lock;
use crate::backend::{BackendError, Priority};

/// Why a chunk was not fetched.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Fetch(Arc<BackendError>),
    Digest,
    Decode(rafs::FormatError),
    /// The blob's own table of chunks is broken.
    Table(rafs::FormatError),
    /// The fetch was given up: it took too long, its image was closed, or it panicked.
    Lost,
}

pub(crate) type Outcome = Result<Bytes, Failure>;

/// How far a request has come.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Bytes of the blob file up to here have come; 0 before the request is made.
    position: AtomicU64,
    /// A reader waits for one of its chunks.
    urgent: AtomicBool,
}

impl Track {
    pub(crate) fn reached(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Slot {
    outcome: watch::Sender<Option<Outcome>>,
    place: Mutex<Place>,
}

/// Who brings the chunk.
#[derive(Debug)]
struct Place {
    /// Goes up when another request takes the chunk over.
    turn: u32,
    priority: Priority,
    track: Option<Arc<Track>>,
    owner: Owner,
}

/// The chunks of a blob that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    slots: Mutex<HashMap<u32, Arc<Slot>>>,
}

/// Who fetches: a blob as one image sees it. Images that share a cache may have sources of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A chunk that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joining {
    pub(crate) number: u32,
    /// Where its bytes end in the blob file.
    pub(crate) end: u64,
    pub(crate) owner: Owner,
    /// Another image's fetch has been waited for in vain.
    pub(crate) impatient: bool,
}

/// What a reader has to do for a chunk.
#[derive(Debug)]
pub(crate) enum Joined {
    /// Nothing: it is in the cache.
    Ready,
    /// Wait for someone else's fetch.
    Wait(Waiter),
    /// Fetch it.
    Lead(Lead),
}

/// Waits for a chunk.
#[derive(Debug)]
pub(crate) struct Waiter {
    outcome: watch::Receiver<Option<Outcome>>,
    /// Whose fetch it waits for.
    pub(crate) owner: Owner,
}

impl Waiter {
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited for it"),
            Err(_) => Err(Failure::Lost),
        }
    }
}

/// The duty to fetch a chunk. Dropping it wakes those who wait, whatever happened.
#[derive(Debug)]
pub(crate) struct Lead {
    inflight: Arc<Inflight>,
    number: u32,
    slot: Arc<Slot>,
    turn: u32,
}

impl Inflight {
    /// Joins the readers of a chunk. `is_ready` is asked under the lock, since a chunk leaves here only after it is
    /// ready. A waiting reader does not wait for a less urgent request that has more than `patience` bytes to go.
    pub(crate) fn join(
        self: &Arc<Self>,
        chunk: Joining,
        priority: Priority,
        patience: u64,
        is_ready: impl FnOnce() -> bool,
    ) -> Joined {
        let mut slots = lock(&self.slots);
        let number = chunk.number;
        if let Some(slot) = slots.get(&number) {
            let taken = priority == Priority::Demand && slot.demand(&chunk, patience);
            return if taken { Joined::Lead(self.lead(number, slot)) } else { Joined::Wait(slot.waiter()) };
        }
        if is_ready() {
            return Joined::Ready;
        }
        let place = Mutex::new(Place { turn: 0, priority, track: None, owner: chunk.owner });
        let slot = Arc::new(Slot { outcome: watch::Sender::new(None), place });
        slots.insert(number, slot.clone());
        Joined::Lead(self.lead(number, &slot))
    }

    /// Whether a chunk is on its way.
    pub(crate) fn contains(&self, number: u32) -> bool {
        lock(&self.slots).contains_key(&number)
    }

    fn lead(self: &Arc<Self>, number: u32, slot: &Arc<Slot>) -> Lead {
        let turn = lock(&slot.place).turn;
        Lead { inflight: self.clone(), number, slot: slot.clone(), turn }
    }
}

impl Slot {
    fn waiter(&self) -> Waiter {
        Waiter { outcome: self.outcome.subscribe(), owner: lock(&self.place).owner }
    }

    /// A reader needs the chunk now: whether it has to take over.
    fn demand(&self, chunk: &Joining, patience: u64) -> bool {
        let mut place = lock(&self.place);
        let in_vain = chunk.impatient && place.owner != chunk.owner;
        let delivered = self.outcome.borrow().is_some();
        if delivered || place.priority == Priority::Demand && !in_vain {
            return false;
        }
        place.priority = Priority::Demand;
        let position = place.track.as_ref().map_or(0, |track| track.position.load(Ordering::Relaxed));
        let is_near = position > 0 && chunk.end.saturating_sub(position) <= patience;
        if is_near && !in_vain {
            place.track.iter().for_each(|track| track.urgent.store(true, Ordering::Relaxed));
            return false;
        }
        place.turn += 1;
        place.track = None;
        place.owner = chunk.owner;
        true
    }
}

impl Lead {
    /// Waits for what this lead, or one that takes over from it, brings.
    pub(crate) fn waiter(&self) -> Waiter {
        self.slot.waiter()
    }

    /// Says which request brings the chunk.
    pub(crate) fn assign(&self, track: &Arc<Track>) {
        let mut place = lock(&self.slot.place);
        if place.turn == self.turn {
            place.track = Some(track.clone());
        }
    }

    /// Whether no other request has taken the chunk over.
    pub(crate) fn is_current(&self) -> bool {
        lock(&self.slot.place).turn == self.turn
    }

    /// Hands verified bytes to everyone who waits, and to those who come before this is dropped.
    pub(crate) fn deliver(&self, bytes: Bytes) {
        self.slot.outcome.send_replace(Some(Ok(bytes)));
    }

    /// Tells everyone who waits that it failed; the next reader begins anew.
    pub(crate) fn fail(self, failure: Failure) {
        self.settle(failure);
    }

    fn settle(&self, failure: Failure) {
        let mut slots = lock(&self.inflight.slots);
        if !self.is_current() {
            return;
        }
        slots.remove(&self.number);
        drop(slots);
        self.slot.outcome.send_if_modified(|outcome| {
            let open = outcome.is_none();
            if open {
                *outcome = Some(Err(failure));
            }
            open
        });
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.settle(Failure::Lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chunks::{ChunkTable, Entry},
        testing::TestBlob,
    };

    fn entries() -> Arc<[Entry]> {
        ChunkTable::new(&TestBlob::new(1, &[4096, 4096, 4096]).blob).unwrap().entries
    }

    fn end(entry: &Entry) -> u64 {
        entry.own_unit().unwrap().stored().end
    }

    fn wanted(entry: &Entry, owner: Owner, impatient: bool) -> Joining {
        Joining { number: entry.number(), end: end(entry), owner, impatient }
    }

    fn join(inflight: &Arc<Inflight>, entry: &Entry, priority: Priority) -> Joined {
        inflight.join(wanted(entry, Owner(1), false), priority, 100, || false)
    }

    #[tokio::test]
    async fn the_second_reader_waits_for_the_first() {
        let (inflight, entries) = (Arc::new(Inflight::default()), entries());
        let Joined::Lead(lead) = join(&inflight, &entries[0], Priority::Demand) else { panic!() };
        let Joined::Wait(waiter) = join(&inflight, &entries[0], Priority::Demand) else { panic!() };
        lead.deliver(Bytes::from_static(b"x"));
        assert_eq!(waiter.outcome().await.unwrap(), "x");
        let Joined::Wait(late) = join(&inflight, &entries[0], Priority::Demand) else { panic!() };
        assert_eq!(
            late.outcome().await.unwrap(),
            "x",
            "until the chunk is stored, it is answered from memory"
        );
        drop(lead);
        assert!(!inflight.contains(0));
    }

    #[tokio::test]
    async fn waiters_wake_when_the_fetch_is_dropped_and_the_next_reader_leads() {
        let (inflight, entries) = (Arc::new(Inflight::default()), entries());
        let Joined::Lead(lead) = join(&inflight, &entries[0], Priority::Demand) else { panic!() };
        let waiter = lead.waiter();
        drop(lead);
        assert!(matches!(waiter.outcome().await, Err(Failure::Lost)));
        assert!(matches!(join(&inflight, &entries[0], Priority::Demand), Joined::Lead(_)));
    }

    #[tokio::test]
    async fn a_ready_chunk_is_never_fetched_again() {
        let (inflight, entries) = (Arc::new(Inflight::default()), entries());
        let chunk = wanted(&entries[0], Owner(1), false);
        assert!(matches!(inflight.join(chunk, Priority::Demand, 0, || true), Joined::Ready));
        assert!(!inflight.contains(0));
    }

    #[tokio::test]
    async fn a_reader_takes_over_a_chunk_that_is_far_away_in_a_less_urgent_request() {
        let (inflight, entries) = (Arc::new(Inflight::default()), entries());
        let Joined::Lead(old) = join(&inflight, &entries[2], Priority::Prefetch) else { panic!() };
        let waiter = old.waiter();
        let Joined::Lead(new) = join(&inflight, &entries[2], Priority::Demand) else { panic!() };
        assert!(!old.is_current() && new.is_current());
        drop(old);
        new.deliver(Bytes::from_static(b"y"));
        assert_eq!(waiter.outcome().await.unwrap(), "y");
    }

    #[tokio::test]
    async fn only_another_images_fetch_is_taken_over_when_it_was_waited_for_in_vain() {
        let (inflight, entries) = (Arc::new(Inflight::default()), entries());
        let join = |owner, impatient| {
            inflight.join(wanted(&entries[0], Owner(owner), impatient), Priority::Demand, 100, || false)
        };
        let Joined::Lead(old) = join(1, false) else { panic!() };
        assert!(matches!(join(1, true), Joined::Wait(waiter) if waiter.owner == Owner(1)));
        assert!(matches!(join(2, false), Joined::Wait(waiter) if waiter.owner == Owner(1)));
        let Joined::Lead(new) = join(2, true) else { panic!() };
        assert!(!old.is_current() && new.is_current());
        assert!(matches!(join(2, true), Joined::Wait(_)));
    }

    #[tokio::test]
    async fn a_reader_waits_for_a_chunk_that_is_near_in_a_less_urgent_request() {
        let (inflight, entries) = (Arc::new(Inflight::default()), entries());
        let Joined::Lead(lead) = join(&inflight, &entries[1], Priority::ReadAhead) else { panic!() };
        let track = Arc::new(Track::default());
        track.reached(end(&entries[1]) - 50);
        lead.assign(&track);
        assert!(matches!(join(&inflight, &entries[1], Priority::Demand), Joined::Wait(_)));
        assert!(track.is_urgent());
    }
}
