//! The piece network: nodes that want the same blob feed each other, and its origin sends about one copy.
//!
//! Decisions are pure: functions and state machines over values, told the time. What they decide is done by thin loops
//! around them; the simulator runs the same decisions over a network that it makes up.

pub mod beside;
mod claim;
pub mod cli;
pub mod config;
pub mod engine;
mod error;
mod id;
pub mod identity;
pub mod load;
pub mod local;
pub mod membership;
pub mod metrics;
pub mod owner;
pub mod peer;
mod priority;
pub mod rate;
pub mod rights;
pub mod run;
#[cfg(test)]
mod scratch;
pub mod source;
pub mod store;
pub mod transport;
mod wants;

pub use claim::Claim;
pub use error::P2pError;
pub use id::{NodeId, TaskId, Vouch};
pub use identity::{ClusterSecret, Identity, Token};
pub use p2p_pieces::{
    BitmapError, ChunkList, ChunkListError, LayoutError, ListError, PieceBitmap, PieceCount, PieceIndex,
    PieceLayout, PieceList, PieceLister,
};
pub use priority::Priority;
