//! Client of the control socket.

use std::{path::PathBuf, time::Duration};

use crate::{DaemonStatus, MountRequest};

/// Talks to one daemon; a connection per call, each with a deadline.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("nydusd at {socket} cannot be reached")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The daemon said no.
    #[error("nydusd at {socket} answers {status} to {call}: {message}")]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        call: String,
        /// HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// The connection broke or the answer is not what it should be.
    #[error("nydusd at {socket}: {call} failed: {problem}")]
    Exchange {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        call: String,
        /// What happened.
        problem: String,
    },
    /// No answer in time.
    #[error("nydusd at {socket} did not answer {call} within {deadline:?}")]
    Deadline {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        call: String,
        /// How long was waited.
        deadline: Duration,
    },
}

impl Client {
    /// A client for the daemon at `socket`, with a deadline for each call.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self { socket: socket.into(), deadline }
    }

    /// `GET /api/v1/daemon`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<DaemonStatus, ClientError> {
        let _ = (&self.socket, self.deadline);
        todo!()
    }

    /// `POST /api/v1/mount?mountpoint=M`: mounts an image at `mountpoint` (`/` or `/name`) below the daemon's mount.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mount(&self, mountpoint: &str, request: &MountRequest) -> Result<(), ClientError> {
        let _ = (mountpoint, request);
        todo!()
    }

    /// `DELETE /api/v1/mount?mountpoint=M`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn umount(&self, mountpoint: &str) -> Result<(), ClientError> {
        let _ = mountpoint;
        todo!()
    }

    /// Any `GET` path, its JSON body: metrics and the like.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<serde_json::Value, ClientError> {
        let _ = path;
        todo!()
    }

    /// `PUT /api/v1/daemon/exit`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exit(&self) -> Result<(), ClientError> {
        todo!()
    }
}
