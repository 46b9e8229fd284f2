//! A registry in this process, for tests: it serves, counts, asks for tokens, redirects and misbehaves on demand.

mod answer;
mod serve;
mod state;

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo};
use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{Reference, Repository};
pub use state::{Fault, Guard, Logged, Server};
use state::{Settings, State};

/// A registry on two loopback ports: its own, and one that its redirects lead to. It ends when dropped.
#[derive(Debug)]
pub struct TestRegistry {
    state: Arc<State>,
    servers: [JoinHandle<()>; 2],
}

impl TestRegistry {
    /// Starts an empty registry that asks for no credential.
    ///
    /// # Panics
    /// Where loopback ports cannot be had.
    pub async fn start() -> Self {
        let own = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let store = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::new(address(&own), address(&store)));
        let router = |server: Server| -> IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
            let state = Arc::clone(&state);
            Router::new()
                .fallback(move |peer, request| serve::answer(Arc::clone(&state), server, peer, request))
                .into_make_service_with_connect_info()
        };
        let run = |listener, server| {
            let service = axum::serve(listener, router(server));
            tokio::spawn(async move {
                service.await.ok();
            })
        };
        let servers = [run(own, Server::Registry), run(store, Server::Store)];
        Self { state, servers }
    }

    /// Its address: `127.0.0.1:<port>`.
    #[must_use]
    pub fn host(&self) -> String {
        self.state.address.to_string()
    }

    /// A repository at it.
    #[must_use]
    pub fn repository(&self, path: &str) -> Repository {
        Repository { host: self.host(), path: path.into() }
    }

    /// A tag at it.
    #[must_use]
    pub fn reference(&self, path: &str, tag: &str) -> Reference {
        Reference { repository: self.repository(path), tag: Some(tag.into()), digest: None }
    }

    /// Stores a blob for all repositories, and says its digest.
    pub fn put_blob(&self, bytes: impl Into<Bytes>) -> String {
        self.state.put_blob(bytes.into())
    }

    /// Stores a manifest under a tag and its digest, and says the digest.
    pub fn put_manifest(&self, path: &str, tag: &str, media_type: &str, bytes: impl Into<Bytes>) -> String {
        self.state.put_manifest(path, tag, media_type, bytes.into())
    }

    /// A blob that was pushed or stored.
    #[must_use]
    pub fn blob(&self, digest: &str) -> Option<Bytes> {
        self.state.blob(digest)
    }

    /// A manifest by tag or digest.
    #[must_use]
    pub fn manifest(&self, path: &str, name: &str) -> Option<Bytes> {
        self.state.manifest(path, name).map(|(_, bytes)| bytes)
    }

    /// Loses a blob.
    pub fn remove_blob(&self, digest: &str) {
        self.state.remove_blob(digest);
    }

    /// Makes the next `times` reads of blobs or manifests fail so; faults come in the order in which they were asked for.
    pub fn fail(&self, fault: Fault, times: usize) {
        self.state.fail(fault, times);
    }

    /// Closes the connection in the midst of the next `times` uploads.
    pub fn cut_uploads(&self, times: usize) {
        self.state.cut_uploads(times);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state.heal();
    }

    /// Asks for credentials from now on.
    pub fn guard(&self, guard: Guard) {
        self.state.change(|settings| settings.guard = guard);
    }

    /// Redirects reads of blobs to the second port from now on.
    pub fn redirect(&self, on: bool) {
        self.state.change(|settings| settings.redirect = on);
    }

    /// Makes all tokens given so far worthless.
    pub fn expire_tokens(&self) {
        self.state.change(Settings::expire_tokens);
    }

    /// Makes all redirects given so far answer 403.
    pub fn expire_redirects(&self) {
        self.state.change(Settings::expire_redirects);
    }

    /// What was asked so far, both ports, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Logged> {
        self.state.requests()
    }

    /// Forgets what was asked so far.
    pub fn forget_requests(&self) {
        self.state.forget_requests();
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}
