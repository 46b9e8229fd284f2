//! What the registry holds, and how it is to behave.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Which port was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The registry's own.
    Registry,
    /// The one that redirects lead to.
    Store,
}

/// A way to misbehave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refuse with a status, and the time to wait in seconds.
    Status(u16, Option<u64>),
    /// Close the connection half-way through the body.
    ShortBody,
    /// Announce and send one byte less than was asked for.
    ShortRange,
    /// Answer 200 with the whole blob to a ranged read.
    WholeForRange,
    /// Say another range than was asked for.
    WrongRange,
    /// Flip a bit of the body's first byte.
    FlippedByte,
    /// Say nothing more after half of the body.
    Stall,
    /// Wait before the answer.
    Delay(Duration),
}

/// What the registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Open,
    /// User and password on each request.
    Basic(String, String),
    /// A token; its service gives one to anybody.
    Anonymous,
    /// A token; its service wants user and password.
    Token(String, String),
    /// A token; its service wants an identity token.
    Identity(String),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Port that was asked.
    pub server: Server,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// All headers that start with `x-`, sorted.
    pub custom: Vec<(String, String)>,
    /// The client's side of the connection.
    pub peer: SocketAddr,
}

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) guard: Guard,
    pub(super) redirect: bool,
    pub(super) tokens: HashSet<String>,
    pub(super) signatures: HashSet<String>,
    issued: u64,
}

impl Settings {
    pub(super) fn expire_tokens(&mut self) {
        self.tokens.clear();
    }

    pub(super) fn expire_redirects(&mut self) {
        self.signatures.clear();
    }

    pub(super) fn issue_token(&mut self) -> String {
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        self.tokens.insert(token.clone());
        token
    }

    pub(super) fn issue_signature(&mut self) -> String {
        self.issued += 1;
        let signature = format!("signature-{}", self.issued);
        self.signatures.insert(signature.clone());
        signature
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) address: SocketAddr,
    pub(super) store: SocketAddr,
    settings: Mutex<Settings>,
    blobs: Mutex<HashMap<String, Bytes>>,
    /// By repository, and tag or digest: media type and bytes.
    manifests: Mutex<HashMap<(String, String), (String, Bytes)>>,
    faults: Mutex<VecDeque<(Fault, usize)>>,
    requests: Mutex<Vec<Logged>>,
    uploads_to_cut: Mutex<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl State {
    pub(super) fn new(address: SocketAddr, store: SocketAddr) -> Self {
        let settings = Settings {
            guard: Guard::Open,
            redirect: false,
            tokens: HashSet::new(),
            signatures: HashSet::new(),
            issued: 0,
        };
        Self {
            address,
            store,
            settings: Mutex::new(settings),
            blobs: Mutex::default(),
            manifests: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            uploads_to_cut: Mutex::default(),
        }
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(&mut lock(&self.settings))
    }

    pub(super) fn put_blob(&self, bytes: Bytes) -> String {
        let digest = digest_of(&bytes);
        lock(&self.blobs).insert(digest.clone(), bytes);
        digest
    }

    pub(super) fn remove_blob(&self, digest: &str) {
        lock(&self.blobs).remove(digest);
    }

    pub(super) fn blob(&self, digest: &str) -> Option<Bytes> {
        lock(&self.blobs).get(digest).cloned()
    }

    pub(super) fn put_manifest(&self, path: &str, name: &str, media_type: &str, bytes: Bytes) -> String {
        let digest = digest_of(&bytes);
        let mut manifests = lock(&self.manifests);
        for name in [name, digest.as_str()] {
            manifests.insert((path.into(), name.into()), (media_type.into(), bytes.clone()));
        }
        digest
    }

    pub(super) fn manifest(&self, path: &str, name: &str) -> Option<(String, Bytes)> {
        lock(&self.manifests).get(&(path.into(), name.into())).cloned()
    }

    pub(super) fn fail(&self, fault: Fault, times: usize) {
        lock(&self.faults).push_back((fault, times));
    }

    pub(super) fn heal(&self) {
        lock(&self.faults).clear();
    }

    pub(super) fn next_fault(&self) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        while let Some((fault, left)) = faults.front_mut() {
            if *left > 0 {
                *left -= 1;
                return Some(fault.clone());
            }
            faults.pop_front();
        }
        None
    }

    pub(super) fn cut_uploads(&self, times: usize) {
        *lock(&self.uploads_to_cut) = times;
    }

    /// Whether this upload is one to cut.
    pub(super) fn is_cut(&self) -> bool {
        let mut left = lock(&self.uploads_to_cut);
        let is_cut = *left > 0;
        *left = left.saturating_sub(1);
        is_cut
    }

    pub(super) fn log(&self, request: Logged) {
        lock(&self.requests).push(request);
    }

    pub(super) fn requests(&self) -> Vec<Logged> {
        lock(&self.requests).clone()
    }

    pub(super) fn forget_requests(&self) {
        lock(&self.requests).clear();
    }
}
