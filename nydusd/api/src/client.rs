//! Client of the control socket.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinSet};

use crate::{ApiError, DaemonStatus, ExplainRequest, Explanation, MountRequest, MountedImage, TracedFile};

/// Largest answer that is taken in, in bytes.
const MAX_ANSWER: usize = 64 << 20;

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
        self.fetch("/api/v1/daemon").await
    }

    /// `POST /api/v1/mount?mountpoint=M`: mounts an image at `mountpoint` (`/` or `/name`) below the daemon's mount.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mount(&self, mountpoint: &str, request: &MountRequest) -> Result<(), ClientError> {
        self.call(Method::POST, &mount_path(mountpoint), to_json(request)).await.map(drop)
    }

    /// `PUT /api/v1/mount?mountpoint=M`: puts another bootstrap in the place of a mounted image.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remount(&self, mountpoint: &str, request: &MountRequest) -> Result<(), ClientError> {
        self.call(Method::PUT, &mount_path(mountpoint), to_json(request)).await.map(drop)
    }

    /// `GET /api/v1/mount`: all mounted images, and where they are seen.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mounts(&self) -> Result<Vec<MountedImage>, ClientError> {
        self.fetch("/api/v1/mount").await
    }

    /// `DELETE /api/v1/mount?mountpoint=M`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn umount(&self, mountpoint: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, &mount_path(mountpoint), Bytes::new()).await.map(drop)
    }

    /// `PUT /api/v1/config?id=M`: hands new credentials (`registry_auth`, base64 of `user:password`) to a mounted image.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn set_registry_auth(&self, mountpoint: &str, auth: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/config?id={}", encode_query(mountpoint));
        self.call(Method::PUT, &path, to_json(&serde_json::json!({ "registry_auth": auth }))).await.map(drop)
    }

    /// `PUT /api/v1/trace?mountpoint=M`: begins to record which files of an image are read, and forgets what was.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn start_trace(&self, mountpoint: &str) -> Result<(), ClientError> {
        self.call(Method::PUT, &trace_path(mountpoint), Bytes::new()).await.map(drop)
    }

    /// `GET /api/v1/trace?mountpoint=M`: files read since [`Self::start_trace`], in order of their first touch.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trace(&self, mountpoint: &str) -> Result<Vec<TracedFile>, ClientError> {
        self.fetch(&trace_path(mountpoint)).await
    }

    /// `GET /api/v1/explain?mountpoint=M`: where the chunks of an image came from, how long that took and why.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ClientError> {
        self.fetch(&request.to_call()).await
    }

    /// Any `GET` path, its JSON body: metrics and the like. Null where there is no body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<serde_json::Value, ClientError> {
        let body = self.call(Method::GET, path, Bytes::new()).await?;
        if body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        self.parse(path, &body)
    }

    /// `PUT /api/v1/daemon/exit`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exit(&self) -> Result<(), ClientError> {
        self.call(Method::PUT, "/api/v1/daemon/exit", Bytes::new()).await.map(drop)
    }

    async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call(Method::GET, path, Bytes::new()).await?;
        self.parse(path, &body)
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(&format!("GET {path}"), &error))
    }

    /// The error of an answer to `call` that is not what it should be.
    #[must_use]
    pub fn broken(&self, call: &str, problem: &dyn std::fmt::Display) -> ClientError {
        ClientError::Exchange {
            socket: self.socket.clone(),
            call: call.to_owned(),
            problem: problem.to_string(),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let call = format!("{method} {path}");
        let exchange = self.exchange(&call, method, path, body);
        tokio::time::timeout(self.deadline, exchange).await.unwrap_or_else(|_| {
            Err(ClientError::Deadline { socket: self.socket.clone(), call, deadline: self.deadline })
        })
    }

    async fn exchange(
        &self,
        call: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(call, &error))?;
        // Dropping the set at the end of the call ends the connection.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(call, &error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(call, &error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| self.broken(call, &error))?
            .to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let message = match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => error.message,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let socket = self.socket.clone();
        Err(ClientError::Refused { socket, call: call.to_owned(), status: status.as_u16(), message })
    }
}

fn to_json<T: Serialize>(message: &T) -> Bytes {
    serde_json::to_vec(message).expect("messages have string keys only").into()
}

fn mount_path(mountpoint: &str) -> String {
    format!("/api/v1/mount?mountpoint={}", encode_query(mountpoint))
}

fn trace_path(mountpoint: &str) -> String {
    format!("/api/v1/trace?mountpoint={}", encode_query(mountpoint))
}

/// Percent-encodes everything that has a meaning in a query.
pub(crate) fn encode_query(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    /// Answers one call with `answer` and returns what was asked.
    async fn serve_once(listener: UnixListener, answer: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let len = stream.read(&mut asked).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..len]).into_owned()
    }

    fn listener(name: &str) -> (PathBuf, UnixListener) {
        let path = std::env::temp_dir().join(format!("nydusd-api-{}-{name}.sock", std::process::id()));
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path).unwrap();
        (path, listener)
    }

    #[tokio::test]
    async fn a_refusal_carries_status_and_the_daemons_words() {
        let (path, socket) = listener("refusal");
        let served = tokio::spawn(serve_once(
            socket,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 44\r\n\r\n{\"code\":\"UNDEFINED\",\"message\":\"no such one\"}",
        ));
        let error = Client::new(&path, Duration::from_secs(5)).umount("/a b").await.unwrap_err();
        let ClientError::Refused { status, message, .. } = &error else { panic!("{error}") };
        assert_eq!((*status, message.as_str()), (404, "no such one"));
        assert!(served.await.unwrap().starts_with("DELETE /api/v1/mount?mountpoint=/a%20b HTTP/1.1\r\n"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_silent_daemon_costs_no_more_than_the_deadline() {
        let (path, _socket) = listener("silent");
        let error = Client::new(&path, Duration::from_millis(50)).status().await.unwrap_err();
        assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn nobody_at_the_socket_is_told_as_such() {
        let error = Client::new("/nonexistent.sock", Duration::from_secs(5)).exit().await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    }
}
