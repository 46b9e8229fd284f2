//! Why pieces do not come.

use std::sync::Arc;

pub(crate) use service::causes::in_one_line;

use crate::{PieceIndex, TaskId, store::StoreError};

/// Why pieces do not come.
#[derive(Debug, Clone, thiserror::Error)]
pub enum P2pError {
    /// The origin does not give a piece, again and again.
    #[error("piece {} of task {task}: the origin does not give it: {reason}", piece.get())]
    Origin {
        /// The task.
        task: TaskId,
        /// The piece.
        piece: PieceIndex,
        /// What it said last.
        reason: String,
    },
    /// The origin refuses a piece to those for whom it was asked.
    #[error("piece {} of task {task}: the origin refuses it: {reason}", piece.get())]
    Refused {
        /// The task.
        task: TaskId,
        /// The piece.
        piece: PieceIndex,
        /// What it said.
        reason: String,
    },
    /// Pieces cannot be kept.
    #[error("task {task} cannot be stored")]
    Store {
        /// The task.
        task: TaskId,
        /// Why.
        #[source]
        source: Arc<StoreError>,
    },
    /// All of a blob came, from the origin too, and is not what its digest says.
    #[error("task {task}: the origin gives bytes that are not those of the digest")]
    Whole {
        /// The task.
        task: TaskId,
    },
    /// A range that the blob does not have.
    #[error("bytes up to {end} of a blob of {len}")]
    Range {
        /// Where the range ends.
        end: u64,
        /// Bytes of the blob.
        len: u64,
    },
    /// The engine has been stopped.
    #[error("the engine is stopping")]
    Stopping,
}
