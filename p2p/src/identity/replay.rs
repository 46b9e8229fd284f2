//! Which datagrams have been seen, in bounded memory.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, SystemTime},
};

/// How old a datagram may be, and how far ahead its sender's clock.
pub(super) const WINDOW: Duration = Duration::from_mins(1);
/// How far behind a sender's newest datagram another may arrive.
const BEHIND: u64 = 1024;
const WORDS: usize = (BEHIND / 64) as usize;

/// Why a datagram is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// Seen before, or too far behind to tell.
    Seen,
    /// Its time is not about now.
    Time,
    /// Too many senders.
    Crowded,
}

/// What is known of each sender: what is too old to be accepted by its time need not be remembered.
#[derive(Debug)]
pub(super) struct Replays<K> {
    senders: HashMap<K, Seen>,
    most: usize,
}

#[derive(Debug)]
struct Seen {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    bits: [u64; WORDS],
    newest: SystemTime,
}

impl<K: Eq + Hash> Replays<K> {
    /// Remembers at most so many senders.
    pub(super) fn new(most: usize) -> Self {
        Self { senders: HashMap::new(), most }
    }

    /// Accepts the datagram with this number of this sender, sent at `sent`, once.
    pub(super) fn accept(
        &mut self,
        now: SystemTime,
        sender: K,
        number: u64,
        sent: SystemTime,
    ) -> Result<(), Stale> {
        if distance(now, sent) > WINDOW {
            return Err(Stale::Time);
        }
        if let Some(seen) = self.senders.get_mut(&sender) {
            seen.newest = seen.newest.max(sent);
            return if seen.mark(number) { Ok(()) } else { Err(Stale::Seen) };
        }
        if self.senders.len() >= self.most {
            self.senders.retain(|_, seen| seen.newest + WINDOW >= now);
        }
        if self.senders.len() >= self.most {
            return Err(Stale::Crowded);
        }
        let mut bits = [0; WORDS];
        bits[0] = 1;
        self.senders.insert(sender, Seen { highest: number, bits, newest: sent });
        Ok(())
    }
}

impl Seen {
    /// Notes a number; says whether it is new.
    fn mark(&mut self, number: u64) -> bool {
        if let Some(ahead) = number.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.shift(ahead);
            self.highest = number;
        }
        let behind = self.highest - number;
        if behind >= BEHIND {
            return false;
        }
        let (word, bit) = (usize::try_from(behind / 64).expect("bounded"), 1 << (behind % 64));
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        new
    }

    fn shift(&mut self, by: u64) {
        let words = usize::try_from(by / 64).unwrap_or(WORDS).min(WORDS);
        self.bits.copy_within(..WORDS - words, words);
        self.bits[..words].fill(0);
        let bits = by % 64;
        if bits > 0 {
            for word in (0..WORDS).rev() {
                let carried = if word > 0 { self.bits[word - 1] >> (64 - bits) } else { 0 };
                self.bits[word] = self.bits[word] << bits | carried;
            }
        }
    }
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_accepted_once_and_only_if_not_far_behind(
            steps in prop::collection::vec((0_u64..5000, prop::bool::weighted(0.1)), 1..300),
        ) {
            let mut replays = Replays::new(1);
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for (number, far) in steps {
                let number = number + if far { 5000 } else { 0 };
                let first = seen.is_empty();
                let expected = first || (!seen.contains(&number) && number + BEHIND > highest);
                let accepted = replays.accept(UNIX_EPOCH, (), number, UNIX_EPOCH).is_ok();
                prop_assert_eq!(accepted, expected, "{} after {}", number, highest);
                if accepted {
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }

    #[test]
    fn what_is_forgotten_is_too_old_to_be_accepted() {
        let (mut replays, begin) = (Replays::new(2), UNIX_EPOCH + Duration::from_hours(1));
        assert_eq!(replays.accept(begin, 1, 7, begin), Ok(()));
        assert_eq!(replays.accept(begin, 2, 7, begin), Ok(()));
        assert_eq!(replays.accept(begin, 3, 7, begin), Err(Stale::Crowded));
        let later = begin + WINDOW + Duration::from_secs(1);
        assert_eq!(replays.accept(later, 3, 7, later), Ok(()));
        assert_eq!(replays.accept(later, 1, 7, begin), Err(Stale::Time));
        assert_eq!(replays.accept(begin, 3, 8, later), Err(Stale::Time), "from the future");
    }
}
