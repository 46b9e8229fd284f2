//! Datagrams that only members can make or read, each of them once and at one receiver.
//!
//! ```text
//! version 1 | sender 32 | boot 16 | time 8 | number 8 | sealed payload | tag 16
//! ```
//!
//! The key is derived for the sender and its boot (drawn at random at start), so that a counter is a nonce which never comes
//! twice, however many nodes send. All that stands before the payload is authenticated, and so is the receiver.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{
    ClusterSecret, IdentityError,
    replay::{Replays, Stale},
    secret::{Keys, random},
};
use crate::NodeId;

const VERSION: u8 = 1;
const BOOT: usize = 16;
const HEADER: usize = 1 + 32 + BOOT + 8 + 8;
/// Senders whose datagrams are remembered: 3.5 MB.
const SENDERS: usize = 1 << 14;

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not made by a member for this node, or changed on the way.
    #[error("not sealed for this node by a member")]
    Forged,
    /// Of another version of Shoal.
    #[error("version {0} of datagrams")]
    Version(u8),
    /// Seen before.
    #[error("seen before")]
    Replayed,
    /// Too old, or from the future.
    #[error("sent a minute or more from now: set the clocks of both nodes")]
    Time,
    /// More senders than are remembered.
    #[error("more senders than are remembered")]
    Crowded,
}

/// Seals and opens the datagrams of one node.
pub struct Seal {
    me: NodeId,
    keys: Keys,
    boot: [u8; BOOT],
    key: LessSafeKey,
    next: AtomicU64,
    replays: Mutex<Replays<(NodeId, [u8; BOOT])>>,
}

impl Seal {
    /// By how many bytes a sealed datagram is longer.
    pub const OVERHEAD: usize = HEADER + 16;

    pub(super) fn new(secret: &ClusterSecret, me: NodeId) -> Result<Self, IdentityError> {
        let (keys, boot) = (secret.keys(), random()?);
        let (key, replays) = (sender_key(&keys, me, &boot), Mutex::new(Replays::new(SENDERS)));
        Ok(Self { me, keys, boot, key, next: AtomicU64::new(0), replays })
    }

    /// Seals `payload` for one receiver.
    #[must_use]
    pub fn seal(&self, now: SystemTime, to: NodeId, payload: &[u8]) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut datagram = Vec::with_capacity(payload.len() + Self::OVERHEAD);
        datagram.push(VERSION);
        datagram.extend_from_slice(&self.me.0);
        datagram.extend_from_slice(&self.boot);
        datagram.extend_from_slice(&u64::try_from(millis).unwrap_or(u64::MAX).to_be_bytes());
        datagram.extend_from_slice(&number.to_be_bytes());
        let associated = Aad::from([datagram.as_slice(), &to.0].concat());
        datagram.extend_from_slice(payload);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), associated, &mut datagram[HEADER..])
            .expect("a datagram is far below the cipher's bound");
        datagram.extend_from_slice(tag.as_ref());
        datagram
    }

    /// Opens a datagram that was sealed for this node: its sender and payload.
    ///
    /// # Errors
    /// [`SealError`] for any that is to be dropped.
    pub fn open(&self, now: SystemTime, datagram: &[u8]) -> Result<(NodeId, Vec<u8>), SealError> {
        let (header, sealed) = datagram.split_at_checked(HEADER).ok_or(SealError::Forged)?;
        if header[0] != VERSION {
            return Err(SealError::Version(header[0]));
        }
        let (sender, boot) = (NodeId(part(header, 1)), part(header, 33));
        let (millis, number) = (u64::from_be_bytes(part(header, 49)), u64::from_be_bytes(part(header, 57)));
        let associated = Aad::from([header, &self.me.0].concat());
        let mut payload = sealed.to_vec();
        let len = sender_key(&self.keys, sender, &boot)
            .open_in_place(nonce(number), associated, &mut payload)
            .map_err(|_| SealError::Forged)?
            .len();
        payload.truncate(len);
        let sent = UNIX_EPOCH.checked_add(Duration::from_millis(millis)).ok_or(SealError::Time)?;
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        replays.accept(now, (sender, boot), number, sent).map_err(|stale| match stale {
            Stale::Seen => SealError::Replayed,
            Stale::Time => SealError::Time,
            Stale::Crowded => SealError::Crowded,
        })?;
        Ok((sender, payload))
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("me", &self.me).finish_non_exhaustive()
    }
}

fn sender_key(keys: &Keys, sender: NodeId, boot: &[u8; BOOT]) -> LessSafeKey {
    let key = keys.derive(&[b"datagrams", &sender.0, boot]);
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key of 32 bytes"))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn part<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("within the header")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Seal, Seal) {
        let secret = ClusterSecret::from_bytes([9; 32]);
        (Seal::new(&secret, NodeId([1; 32])).unwrap(), Seal::new(&secret, NodeId([2; 32])).unwrap())
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(500_000)
    }

    #[test]
    fn a_datagram_is_opened_once_by_its_receiver() {
        let (a, b) = pair();
        let sealed = a.seal(now(), b.me, b"hello");
        assert_eq!(sealed.len(), 5 + Seal::OVERHEAD);
        assert_eq!(b.open(now(), &sealed).unwrap(), (a.me, b"hello".to_vec()));
        assert_eq!(b.open(now(), &sealed), Err(SealError::Replayed));
        assert_eq!(a.open(now(), &sealed), Err(SealError::Forged), "meant for another");
    }

    #[test]
    fn equal_payloads_are_sealed_differently_by_every_process() {
        let (a, b) = pair();
        let restarted = Seal::new(&ClusterSecret::from_bytes([9; 32]), a.me).unwrap();
        let payloads = [&a, &a, &restarted].map(|seal| seal.seal(now(), b.me, &[0; 40])[HEADER..].to_vec());
        assert!(payloads[0] != payloads[1] && payloads[0] != payloads[2]);
        for sealed in [a.seal(now(), b.me, b"x"), restarted.seal(now(), b.me, b"x")] {
            assert!(b.open(now(), &sealed).is_ok());
        }
    }

    #[test]
    fn a_changed_datagram_is_refused_wherever_it_changed() {
        let (a, b) = pair();
        let sealed = a.seal(now(), b.me, b"hello");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            let expected = if at == 0 { SealError::Version(0) } else { SealError::Forged };
            assert_eq!(b.open(now(), &changed), Err(expected), "{at}");
            assert_eq!(b.open(now(), &sealed[..at]), Err(SealError::Forged));
        }
        assert!(b.open(now(), &sealed).is_ok(), "forgeries do not use up the number");
    }

    #[test]
    fn an_old_datagram_is_refused_even_by_a_receiver_that_has_forgotten() {
        let (a, b) = pair();
        let sealed = a.seal(now(), b.me, b"hello");
        b.open(now(), &sealed).unwrap();
        let restarted = Seal::new(&ClusterSecret::from_bytes([9; 32]), b.me).unwrap();
        assert_eq!(restarted.open(now() + Duration::from_secs(61), &sealed), Err(SealError::Time));
    }

    #[test]
    fn a_stranger_can_neither_read_nor_write() {
        let (a, b) = pair();
        let stranger = Seal::new(&ClusterSecret::from_bytes([8; 32]), a.me).unwrap();
        assert_eq!(b.open(now(), &stranger.seal(now(), b.me, b"hello")), Err(SealError::Forged));
        let listening = Seal::new(&ClusterSecret::from_bytes([8; 32]), b.me).unwrap();
        let sealed = a.seal(now(), b.me, b"hello");
        assert_eq!(listening.open(now(), &sealed), Err(SealError::Forged));
        assert!(!sealed.windows(5).any(|window| window == b"hello"));
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", pair().0), "Seal { me: 010101010101, .. }");
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_dropped(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(pair().1.open(now(), &bytes).is_err());
        }
    }
}
