//! What waits to be sent to one node, in two lanes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Lane, Outgoing, Refused};
use crate::TaskId;

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

#[derive(Debug, Default)]
struct Lanes {
    urgent: VecDeque<Item>,
    background: VecDeque<Item>,
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
        let (lane, most) = if background { (&lanes.background, BACKGROUND) } else { (&lanes.urgent, URGENT) };
        if lane.len() >= most {
            return Err(Refused::Full);
        }
        *item.account(&mut lanes).0 += item.len();
        if background {
            lanes.background.push_back(item)
        } else {
            lanes.urgent.push_back(item)
        }
        self.filled.notify_one();
        Ok(())
    }

    /// The next to be sent, at once or never.
    pub(super) fn try_next(&self) -> Option<Item> {
        let mut lanes = self.lock();
        let item = lanes.urgent.pop_front().or_else(|| lanes.background.pop_front())?;
        *item.account(&mut lanes).0 -= item.len();
        Some(item)
    }

    /// The next to be sent, when there is one. One waits at a time.
    pub(super) async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.try_next() {
                return item;
            }
            self.filled.notified().await;
        }
    }

    /// Takes a piece back; says whether it was there.
    pub(super) fn withdraw(&self, task: TaskId, piece: u32) -> bool {
        let mut lanes = self.lock();
        let before = lanes.urgent.len() + lanes.background.len();
        let Lanes { urgent, background, piece_bytes, .. } = &mut *lanes;
        for lane in [urgent, background] {
            lane.retain(|item| {
                let gone = matches!(item, Item::Piece(out) if out.task == task && out.piece == piece);
                *piece_bytes -= if gone { item.len() } else { 0 };
                !gone
            });
        }
        lanes.urgent.len() + lanes.background.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: u32, lane: Lane, len: usize) -> Item {
        let bytes = Bytes::from(vec![0; len]);
        Item::Piece(Outgoing { task: TaskId::from_bytes([0; 32]), piece: number, bytes, lane, limit: None })
    }

    fn numbers(outbox: &Outbox) -> Vec<u32> {
        let number = |item| match item {
            Item::Frame(frame) => u32::from(frame[0]),
            Item::Piece(piece) => piece.piece,
        };
        std::iter::from_fn(|| outbox.try_next()).map(number).collect()
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
}
