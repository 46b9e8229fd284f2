//! Messages and pieces between nodes.
//!
//! A [`Transport`] has at most one connection to each other node, and one stream of events, which the one who made it
//! receives: `(node, Incoming)`. `connect`, `send` and the rest return at once; what becomes of them is an event.
//!
//! - Each successful `connect` to a node that is not connected leads to [`Incoming::Connected`] or, if that fails, to
//!   [`Incoming::Closed`]. Messages may be sent at once; they wait for the connection.
//! - After `Connected` comes exactly one `Closed`, after which nothing of that connection follows. What was under way
//!   is lost then. `Closed` is also how one's own `disconnect` ends.
//! - Messages of one node arrive in the order in which they were sent; so do pieces of one lane. Messages and urgent pieces
//!   go before background pieces, also between the steps of one that has been begun.
//! - Each piece that was queued is told of as [`Incoming::Sent`] when it has left, unless it is withdrawn or the connection
//!   ends before.
//! - A connection that is ending is still one: a `connect` at that time is answered by its `Closed`.
//! - Events are to be received steadily: while many wait, connections stand still.
//! - Queues are bounded: `send` says [`Refused::Full`] when the other does not keep up.
//!
//! [`Pool`] does this over TLS; [`channel`] does it within one process, with delay, loss and partitions.

#[cfg(any(test, feature = "testing"))]
pub mod channel;
mod connection;
mod frame;
mod outbox;
mod pool;
mod tcp;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
pub use p2p_api::peer::{self, Body};

pub use pool::{MeetError, Pool, PoolConfig};

use crate::{NodeId, TaskId, rate::Share};

/// Something that happened, and with whom.
pub type Event = (NodeId, Incoming);

/// What comes of a connection.
#[derive(Debug)]
pub enum Incoming {
    /// It is there, whoever dialed.
    Connected(peer::Hello),
    /// A message.
    Message(Body),
    /// A piece; its bytes are not checked.
    Piece {
        /// Of which task.
        task: TaskId,
        /// Its number, which the task need not have.
        piece: u32,
        /// What came.
        bytes: Bytes,
    },
    /// A piece of one's own has left, but for what the network holds of it.
    Sent {
        /// Of which task.
        task: TaskId,
        /// Its number.
        piece: u32,
    },
    /// It is over, or did not come about.
    Closed(Closed),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// This side closed it.
    #[error("closed by this side")]
    Here,
    /// The other side closed it.
    #[error("closed by the other side")]
    There,
    /// Another connection of the same two nodes took its place.
    #[error("replaced by another connection")]
    Replaced,
    /// Not used for a while, and another needed the room.
    #[error("unused, and there were too many")]
    Unused,
    /// Nothing came for too long.
    #[error("silent for too long")]
    Silent,
    /// The other took nothing for too long.
    #[error("the other side takes nothing")]
    Stalled,
    /// No connection came about.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// The other broke the rules of the transport.
    #[error("broke the rules: {0}")]
    Broken(String),
    /// The network failed.
    #[error("failed: {0}")]
    Failed(String),
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no connection to that node, and none is under way.
    #[error("not connected")]
    NotConnected,
    /// As much as may waits already.
    #[error("too much waits to be sent")]
    Full,
    /// The node did not answer recently.
    #[error("did not answer recently")]
    BackingOff,
    /// There are too many connections, all in use.
    #[error("too many connections")]
    Crowded,
    /// A node does not talk to itself.
    #[error("this is the node itself")]
    Myself,
    /// Longer than a message may be.
    #[error("a message is too long")]
    TooLong,
}

/// In which order things are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Before all that is not.
    Urgent,
    /// When nothing urgent waits, step by step.
    Background,
}

/// A piece to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Of which task.
    pub task: TaskId,
    /// Its number.
    pub piece: u32,
    /// All of it, at most [`PieceLayout::MAX_SIZE`](crate::PieceLayout::MAX_SIZE).
    pub bytes: Bytes,
    /// When.
    pub lane: Lane,
    /// What each step is taken from before it is sent, if from anything.
    pub limit: Option<Share>,
    /// The same for background pieces, which all together are held back at times.
    pub pace: Option<Share>,
}

/// Connections to other nodes.
pub trait Transport: Send + Sync + fmt::Debug {
    /// The node itself.
    fn id(&self) -> NodeId;

    /// Connects to a node unless it is connected.
    ///
    /// # Errors
    /// [`Refused`] when that is not tried now.
    fn connect(&self, node: NodeId, address: SocketAddr) -> Result<(), Refused>;

    /// Queues a message for a node that is connected or being connected.
    ///
    /// # Errors
    /// [`Refused`] when it is not queued.
    fn send(&self, node: NodeId, message: Body) -> Result<(), Refused>;

    /// Queues a piece for a node that is connected or being connected.
    ///
    /// # Errors
    /// [`Refused`] when it is not queued.
    fn send_piece(&self, node: NodeId, piece: Outgoing) -> Result<(), Refused>;

    /// Takes a queued piece back; says whether it was still there.
    fn withdraw(&self, node: NodeId, task: TaskId, piece: u32) -> bool;

    /// Ends a connection, or the attempt to make one.
    fn disconnect(&self, node: NodeId);
}
