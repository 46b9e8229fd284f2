//! Names of nodes and of what they share.

use std::fmt;

/// A node: the BLAKE3 hash of its public key, so that a TLS handshake proves it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 32]);

/// What a swarm shares: a blob together with what vouches for its pieces.
///
/// Two images that name the same blob but vouch for its pieces differently have two tasks, so that a false vouch
/// spoils nobody else's pieces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId([u8; 32]);

/// What makes a piece of a task a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vouch<'a> {
    /// A list of piece digests, by its own digest, for a blob named by its SHA-256.
    List {
        /// SHA-256 of the blob.
        blob: &'a [u8; 32],
        /// BLAKE3 of the list.
        list: &'a [u8; 32],
    },
    /// A list of the blob's chunks, by its own digest.
    Chunks {
        /// SHA-256 of the blob.
        blob: &'a [u8; 32],
        /// BLAKE3 of the list.
        list: &'a [u8; 32],
    },
    /// Nothing but the SHA-256 of the whole.
    Whole {
        /// SHA-256 of the blob.
        blob: &'a [u8; 32],
    },
    /// Nothing but the word of the origin at this address.
    Url(&'a str),
}

impl TaskId {
    /// The task of what `vouch` vouches for.
    #[must_use]
    pub fn of(vouch: Vouch<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("shoal p2p task 1");
        match vouch {
            Vouch::List { blob, list } => hasher.update(b"list").update(blob).update(list),
            Vouch::Chunks { blob, list } => hasher.update(b"chunks").update(blob).update(list),
            Vouch::Whole { blob } => hasher.update(b"whole").update(blob),
            Vouch::Url(url) => hasher.update(b"url").update(url.as_bytes()),
        };
        Self(*hasher.finalize().as_bytes())
    }

    /// A task by its bytes, as a message names it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn short(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(&self.0, f)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(&self.0, f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_or_kind_of_vouch_is_another_task() {
        let (blob, list) = (&[1; 32], &[2; 32]);
        let ids = [
            TaskId::of(Vouch::List { blob, list }),
            TaskId::of(Vouch::List { blob, list: &[3; 32] }),
            TaskId::of(Vouch::Chunks { blob, list }),
            TaskId::of(Vouch::Whole { blob }),
            TaskId::of(Vouch::Url("https://example.com/file")),
        ];
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id));
        }
    }
}
