//! A forward proxy, for programs that know `HTTP_PROXY` and `HTTPS_PROXY`.
//!
//! ```text
//! CONNECT HOST:PORT                                   a tunnel: bytes both ways, and no look at them
//! GET http://HOST/v2/NAME/(blobs|manifests)/REF       what the registry mirror answers, where HOST is spoken to in plain HTTP
//! METHOD http://HOST/…                                handed on as it is, and so is the answer
//! ```
//!
//! What is within TLS stays there: the proxy has no certificates and makes none, so a registry behind TLS is tunnelled to,
//! and shared through the mirror alone. [`Rules`] say what goes which way, or nowhere.
//!
//! Addresses of the link and of clouds' metadata are refused as they are for registries; a tunnel goes to the address that
//! was looked at. What has been through this proxy before is refused, so that nothing goes round in a circle.

mod relay;
mod rules;
mod tunnel;

use std::{future::IntoFuture as _, io, net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    handler::Handler as _,
    http::Method,
    response::Response,
    serve::ListenerExt as _,
};
use registry::{ClientOptions, Forward};
use socket2::SockRef;
use tokio::{net::TcpListener, sync::Semaphore, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Local;
pub use rules::{Action, Rules};

/// Tunnels at a time.
const TUNNELS: usize = 1024;
/// Requests that are handed on at a time.
const RELAYS: usize = 256;
/// Longest silence of a server: longer than those are that answer once something happens.
const SILENCE: Duration = Duration::from_secs(120);
/// A tunnel in which nothing moves for so long ends, and so does a caller who takes nothing of an answer.
const IDLE: Duration = Duration::from_secs(600);

/// The proxy of a node.
#[derive(Debug)]
pub struct Proxy {
    local: Arc<Local>,
    forward: Forward,
    rules: Rules,
    /// Where it listens.
    at: SocketAddr,
    /// What it calls itself in `Via`.
    name: String,
    tunnels: Arc<Semaphore>,
    relays: Arc<Semaphore>,
    running: TaskTracker,
    cut: CancellationToken,
}

impl Proxy {
    /// What is shared comes from `local`, all else from servers, reached as `options` say; it will listen `at`.
    #[must_use]
    pub fn new(local: Arc<Local>, options: ClientOptions, rules: Rules, at: SocketAddr) -> Self {
        let forward = Forward::new(&ClientOptions { read_timeout: SILENCE, ..options });
        let name = format!("shoal-{}", hex::encode(&local.node.id.0[..8]));
        Self {
            local,
            forward,
            rules,
            at,
            name,
            tunnels: Arc::new(Semaphore::new(TUNNELS)),
            relays: Arc::new(Semaphore::new(RELAYS)),
            running: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Serves until `stop`, and then until the last caller has gone. Tunnels are cut when this is dropped.
    ///
    /// # Errors
    /// Where the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let (running, _cut) = (self.running.clone(), self.cut.clone().drop_guard());
        // A tunnel's handshakes are small packets that wait for each other.
        let listener = listener.tap_io(|io| {
            let set = io.set_nodelay(true);
            let set = set.and_then(|()| SockRef::from(&*io).set_tcp_user_timeout(Some(IDLE)));
            if let Err(error) = set {
                tracing::debug!(%error, "a caller's connection is as it is");
            }
        });
        axum::serve(listener, answer.with_state(Arc::new(self)))
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .into_future()
            .await?;
        running.close();
        running.wait().await;
        Ok(())
    }
}

async fn answer(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    match *request.method() == Method::CONNECT {
        true => tunnel::open(&proxy, request).await,
        false => relay::answer(&proxy, request).await,
    }
}

#[cfg(test)]
mod tests;
