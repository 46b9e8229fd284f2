//! What waits to be sent to one node, in two lanes.
//!
//! Here alone is decided what goes next: whatever is urgent before each step of a background piece. A step waits for its
//! pace and its limit here, not in the writer's hands, so that nothing urgent waits behind it.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::Notify;

use super::{Lane, Outgoing, Refused};
use crate::{
    TaskId,
    rate::{STEP, Share},
};

/// Most messages and urgent pieces that wait.
const URGENT: usize = 1024;
/// Most background pieces that wait.
const BACKGROUND: usize = 64;
/// Most bytes of pieces that wait, unless one is longer.
const PIECE_BYTES: usize = 64 << 20;
/// Most bytes of messages that wait.
const MESSAGE_BYTES: usize = 8 << 20;

/// Something that waits.
#[derive(Debug)]
pub(super) enum Item {
    /// A whole frame.
    Frame(Bytes),
    Piece(Outgoing),
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Piece(piece) => piece.bytes.len(),
        }
    }

    /// What counts its bytes, and how many there may be.
    fn account<'a>(&self, lanes: &'a mut Lanes) -> (&'a mut usize, usize) {
        match self {
            Self::Frame(_) => (&mut lanes.message_bytes, MESSAGE_BYTES),
            Self::Piece(_) => (&mut lanes.piece_bytes, PIECE_BYTES),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: Mutex<Lanes>,
    filled: Notify,
}

/// What is sent next.
#[derive(Debug)]
pub(super) enum Next {
    /// A whole frame.
    Frame(Bytes),
    /// These bytes of a piece.
    Part(Outgoing, Range<usize>),
}

#[derive(Debug, Default)]
struct Lanes {
    urgent: VecDeque<Item>,
    background: VecDeque<Outgoing>,
    /// Bytes of the first background piece that have been handed out.
    begun: usize,
    message_bytes: usize,
    piece_bytes: usize,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: Item) -> Result<(), Refused> {
        let mut lanes = self.lock();
        let (bytes, most) = item.account(&mut lanes);
        if *bytes > 0 && *bytes + item.len() > most {
            return Err(Refused::Full);
        }
        let background = matches!(&item, Item::Piece(piece) if piece.lane == Lane::Background);
        let (waiting, most) = match background {
            true => (lanes.background.len(), BACKGROUND),
            false => (lanes.urgent.len(), URGENT),
        };
        if waiting >= most {
            return Err(Refused::Full);
        }
        *item.account(&mut lanes).0 += item.len();
        match item {
            Item::Piece(piece) if background => lanes.background.push_back(piece),
            item => lanes.urgent.push_back(item),
        }
        self.filled.notify_one();
        Ok(())
    }

    fn take_urgent(&self) -> Option<Next> {
        let mut lanes = self.lock();
        let item = lanes.urgent.pop_front()?;
        *item.account(&mut lanes).0 -= item.len();
        Some(match item {
            Item::Frame(frame) => Next::Frame(frame),
            Item::Piece(piece) => {
                let all = 0..piece.bytes.len();
                Next::Part(piece, all)
            }
        })
    }

    /// What the next step of a background piece is to be taken from, if there is one.
    fn next_step(&self) -> Option<([Option<Share>; 2], u32)> {
        let lanes = self.lock();
        let piece = lanes.background.front()?;
        let bytes = u32::try_from(piece.bytes.len() - lanes.begun).unwrap_or(STEP).min(STEP);
        Some(([piece.pace.clone(), piece.limit.clone()], bytes))
    }

    /// The next step of a background piece, unless it has been taken back.
    fn take_step(&self) -> Option<Next> {
        let mut lanes = self.lock();
        let piece = lanes.background.front()?.clone();
        let (begin, len) = (lanes.begun, piece.bytes.len());
        let end = len.min(begin + STEP as usize);
        lanes.begun = end;
        if end == len {
            lanes.background.pop_front();
            lanes.begun = 0;
            lanes.piece_bytes -= len;
        }
        Some(Next::Part(piece, begin..end))
    }

    /// Takes a piece back; says whether it was there.
    pub(super) fn withdraw(&self, task: TaskId, piece: u32) -> bool {
        let mut lanes = self.lock();
        let before = lanes.urgent.len() + lanes.background.len();
        let Lanes { urgent, background, begun, piece_bytes, .. } = &mut *lanes;
        let mut stays = |out: &Outgoing| {
            let gone = out.task == task && out.piece == piece;
            *piece_bytes -= if gone { out.bytes.len() } else { 0 };
            !gone
        };
        urgent.retain(|item| !matches!(item, Item::Piece(out) if !stays(out)));
        // What the other side has of one that was begun it drops when the next one comes.
        let first = background.front().map(|first| (first.task, first.piece));
        background.retain(&mut stays);
        if first == Some((task, piece)) {
            *begun = 0;
        }
        lanes.urgent.len() + lanes.background.len() < before
    }
}

/// Takes out what is to be sent, for the one writer.
pub(super) struct Sender<'a> {
    outbox: &'a Outbox,
    /// Of the next step of a background piece. Urgent things that go meanwhile do not cost it its place.
    turn: Turn,
}

enum Turn {
    None,
    Waits(BoxFuture<'static, ()>),
    Has,
}

impl Turn {
    /// Waits until it has come.
    async fn come(&mut self) {
        if let Self::Waits(turn) = self {
            turn.await;
            *self = Self::Has;
        }
    }
}

impl<'a> Sender<'a> {
    pub(super) const fn of(outbox: &'a Outbox) -> Self {
        Self { outbox, turn: Turn::None }
    }

    /// The next to be sent, when there is one. Nothing is lost where this is dropped.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if let Some(urgent) = self.outbox.take_urgent() {
                return urgent;
            }
            let Some((shares, bytes)) = self.outbox.next_step() else {
                self.outbox.filled.notified().await;
                continue;
            };
            if let Turn::None = self.turn {
                self.turn = Turn::Waits(take(shares, bytes).boxed());
            }
            tokio::select! {
                biased;
                () = self.outbox.filled.notified() => continue,
                () = self.turn.come() => self.turn = Turn::None,
            }
            if let Some(step) = self.outbox.take_step() {
                return step;
            }
        }
    }

    /// The next to be sent, at once or never.
    pub(super) fn try_next(&mut self) -> Option<Next> {
        self.next().now_or_never()
    }

    /// Does something, such as sending the last one. A step that waits for its turn may be the one that minds the clock
    /// for all who wait: it goes on meanwhile.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Turn::Waits(_) = self.turn {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.turn.come() => {}
            }
        }
        work.await
    }
}

async fn take(shares: [Option<Share>; 2], bytes: u32) {
    for share in shares.into_iter().flatten() {
        share.take(bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU32, NonZeroU64},
        time::Duration,
    };

    use tokio::time::sleep;

    use super::*;
    use crate::rate::{HostLimit, Rate};

    fn piece(number: u32, lane: Lane, len: usize) -> Item {
        let bytes = Bytes::from(vec![0; len]);
        Item::Piece(Outgoing {
            task: TaskId::from_bytes([0; 32]),
            piece: number,
            bytes,
            lane,
            limit: None,
            pace: None,
        })
    }

    fn number(next: Next) -> u32 {
        match next {
            Next::Frame(frame) => u32::from(frame[0]),
            Next::Part(piece, _) => piece.piece,
        }
    }

    fn numbers(outbox: &Outbox) -> Vec<u32> {
        let mut sender = Sender::of(outbox);
        std::iter::from_fn(|| sender.try_next()).map(number).collect()
    }

    #[test]
    fn urgent_things_overtake_and_keep_their_order() {
        let outbox = Outbox::default();
        outbox.push(piece(1, Lane::Background, 1)).unwrap();
        outbox.push(piece(2, Lane::Background, 1)).unwrap();
        outbox.push(Item::Frame(Bytes::from_static(&[3]))).unwrap();
        outbox.push(piece(4, Lane::Urgent, 1)).unwrap();
        assert_eq!(numbers(&outbox), [3, 4, 1, 2]);
    }

    #[test]
    fn a_piece_that_is_taken_back_is_not_sent() {
        let outbox = Outbox::default();
        (0..3).for_each(|number| outbox.push(piece(number, Lane::Background, 5)).unwrap());
        assert!(outbox.withdraw(TaskId::from_bytes([0; 32]), 1));
        assert!(!outbox.withdraw(TaskId::from_bytes([0; 32]), 1));
        assert!(!outbox.withdraw(TaskId::from_bytes([1; 32]), 2));
        assert_eq!((numbers(&outbox), outbox.lock().piece_bytes), (vec![0, 2], 0));
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let outbox = Outbox::default();
        (0..64).for_each(|number| outbox.push(piece(number, Lane::Background, 1)).unwrap());
        assert_eq!(outbox.push(piece(64, Lane::Background, 1)), Err(Refused::Full));
        outbox.push(piece(65, Lane::Urgent, PIECE_BYTES - 64)).unwrap();
        assert_eq!(outbox.push(piece(66, Lane::Urgent, 1)), Err(Refused::Full));
        outbox
            .push(Item::Frame(Bytes::from(vec![0; MESSAGE_BYTES])))
            .expect("messages have room of their own");
        assert_eq!(outbox.push(Item::Frame(Bytes::from_static(&[0]))), Err(Refused::Full));
        numbers(&outbox);
        outbox.push(piece(66, Lane::Urgent, PIECE_BYTES + 1)).unwrap();
    }

    #[test]
    fn urgent_things_go_into_the_middle_of_what_is_not() {
        let (outbox, step) = (Outbox::default(), STEP as usize);
        let mut sender = Sender::of(&outbox);
        outbox.push(piece(1, Lane::Background, 2 * step + 5)).unwrap();
        let mut parts = Vec::new();
        while let Some(next) = sender.try_next() {
            parts.push(match next {
                Next::Part(piece, part) => (piece.piece, part),
                Next::Frame(_) => (0, 0..0),
            });
            if parts.len() == 1 {
                outbox.push(piece(2, Lane::Urgent, 3 * step)).unwrap();
                outbox.push(Item::Frame(Bytes::new())).unwrap();
            }
        }
        let rest = [(1, step..2 * step), (1, 2 * step..2 * step + 5)];
        let urgent = [(1, 0..step), (2, 0..3 * step), (0, 0..0)];
        assert_eq!(parts, [urgent.as_slice(), &rest].concat());
    }

    #[test]
    fn of_what_is_called_off_half_way_the_rest_is_not_sent() {
        let outbox = Outbox::default();
        let mut sender = Sender::of(&outbox);
        (1..3).for_each(|number| outbox.push(piece(number, Lane::Background, 100_000)).unwrap());
        assert!(
            matches!(sender.try_next(), Some(Next::Part(first, part)) if first.piece == 1 && part.end < 100_000)
        );
        assert!(outbox.withdraw(TaskId::from_bytes([0; 32]), 1));
        assert!(
            matches!(sender.try_next(), Some(Next::Part(second, part)) if second.piece == 2 && part.start == 0)
        );
        assert_eq!(outbox.lock().piece_bytes, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_urgent_does_not_wait_with_what_is_held_back_nor_cost_it_its_place() {
        let outbox = Outbox::default();
        let pace = HostLimit::new(Rate::per_second(NonZeroU64::MIN)).share(NonZeroU32::MIN, Rate::UNLIMITED);
        pace.take(2 * STEP).await;
        let Item::Piece(held) = piece(1, Lane::Background, 10) else { panic!() };
        outbox.push(Item::Piece(Outgoing { pace: Some(pace), ..held })).unwrap();
        let mut sender = Sender::of(&outbox);
        for number in 2..12 {
            assert!(sender.try_next().is_none(), "it waits for ten seconds");
            outbox.push(Item::Frame(vec![number].into())).unwrap();
            assert!(matches!(sender.try_next(), Some(Next::Frame(frame)) if frame[0] == number));
            sender.beside(sleep(Duration::from_secs(1))).await;
        }
        sender.beside(sleep(Duration::from_secs(1))).await;
        assert_eq!(sender.try_next().map(number), Some(1));
    }
}
