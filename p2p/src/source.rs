//! Registries and web servers as origins.

mod attention;
mod file;

use std::{
    error::Error,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, TryStreamExt as _, future::BoxFuture};
use registry::{BlobStream, Client, Credential, RegistryError, Repository};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    Priority,
    engine::{Origin, OriginError},
};

pub use attention::Attending;
use attention::Attention;
pub use file::FileOrigin;

/// Longest time for one piece.
const DEADLINE: Duration = Duration::from_secs(60);
/// After a refusal the registry is asked again after so long at the earliest, unless somebody else reads.
const REFUSED: Duration = Duration::from_secs(1);
/// Different credentials that are tried for one piece.
const CREDENTIALS: usize = 4;

/// A blob in a repository of a registry. The client brings mirrors, retries, and this node's own credentials.
#[derive(Debug)]
pub struct RegistryOrigin {
    client: Client,
    repository: Repository,
    digest: String,
    attention: Arc<Attention>,
    readers: Mutex<Readers>,
}

/// Who reads now, the last one last. A credential is here as long as somebody reads by it, and nowhere else.
#[derive(Debug, Default)]
struct Readers {
    next: u64,
    reading: Vec<Reader>,
    /// When all who read were refused, if nobody else has come since.
    refused: Option<Instant>,
}

#[derive(Debug)]
struct Reader {
    number: u64,
    /// `None` reads by this node's own credential.
    by: Option<(Credential, Client)>,
}

/// As long as it lives, pieces are fetched on behalf of a reader.
#[derive(Debug)]
pub struct Reading {
    origin: Arc<RegistryOrigin>,
    number: u64,
    _attending: Attending,
}

impl RegistryOrigin {
    /// The blob `digest` (`sha256:…`) of `repository`.
    #[must_use]
    pub fn new(client: Client, repository: Repository, digest: String) -> Self {
        Self { client, repository, digest, attention: Attention::none(), readers: Mutex::default() }
    }

    /// Whose rights count.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// How long nobody has read; `None` while somebody does.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        self.attention.idle()
    }

    /// Fetches on behalf of a reader with this credential, until what is returned is dropped.
    #[must_use]
    pub fn on_behalf_of(self: &Arc<Self>, credential: Option<Credential>) -> Reading {
        let mut readers = self.readers();
        let by = credential.map(|credential| {
            // Who reads by the same one shares connections and tokens.
            let known = readers.reading.iter().filter_map(|reader| reader.by.as_ref());
            let client =
                known.clone().find(|(other, _)| *other == credential).map(|(_, client)| client.clone());
            let client = client.unwrap_or_else(|| self.client.with_credential(credential.clone()));
            (credential, client)
        });
        let number = readers.next;
        readers.next += 1;
        readers.refused = None;
        readers.reading.push(Reader { number, by });
        Reading { origin: Arc::clone(self), number, _attending: self.attention.attend() }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By whom a piece may be fetched now, the latest first; by this node where nobody reads.
    fn clients(&self) -> Vec<Client> {
        let readers = self.readers();
        let mut credentials: Vec<Option<&Credential>> = Vec::new();
        let mut clients = Vec::new();
        for reader in readers.reading.iter().rev() {
            let credential = reader.by.as_ref().map(|(credential, _)| credential);
            if clients.len() < CREDENTIALS && !credentials.contains(&credential) {
                credentials.push(credential);
                clients.push(reader.by.as_ref().map_or(&self.client, |(_, client)| client).clone());
            }
        }
        if clients.is_empty() {
            clients.push(self.client.clone());
        }
        clients
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, RegistryError> {
        // The owner sends us again for what we still want.
        let refused = self.readers().refused;
        if let Some(at) = refused {
            sleep_until(at + REFUSED).await;
        }
        let read = self.read_by_any(range).await;
        if read.as_ref().is_err_and(RegistryError::is_unauthorized) {
            self.readers().refused = Some(Instant::now());
        }
        read
    }

    async fn read_by_any(&self, range: Range<u64>) -> Result<Bytes, RegistryError> {
        let mut clients = self.clients().into_iter().peekable();
        loop {
            let client = clients.next().unwrap_or_else(|| self.client.clone());
            match self.read_by(&client, range.clone()).await {
                Err(error) if error.is_unauthorized() && clients.peek().is_some() => {}
                answer => return answer,
            }
        }
    }

    async fn read_by(&self, client: &Client, range: Range<u64>) -> Result<Bytes, RegistryError> {
        gather(client.blob(&self.repository, &self.digest, Some(range)).await?).await
    }
}

/// All that a stream brings.
async fn gather(mut stream: BlobStream) -> Result<Bytes, RegistryError> {
    let mut bytes = BytesMut::new();
    while let Some(part) = stream.try_next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

/// What `read` gives of `range`, if it does so in time.
async fn in_time(
    origin: String,
    range: Range<u64>,
    read: impl Future<Output = Result<Bytes, RegistryError>>,
) -> Result<Bytes, OriginError> {
    let (refused, source): (bool, Box<dyn Error + Send + Sync>) = match timeout(DEADLINE, read).await {
        Ok(Ok(bytes)) => return Ok(bytes),
        Ok(Err(error)) => (error.is_unauthorized(), error.into()),
        Err(_) => (false, format!("not within {DEADLINE:?}").into()),
    };
    Err(OriginError { origin, range, refused, source })
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.origin.readers();
        readers.reading.retain(|reader| reader.number != self.number);
    }
}

impl Origin for RegistryOrigin {
    fn fetch(
        self: Arc<Self>,
        range: Range<u64>,
        _priority: Priority,
    ) -> BoxFuture<'static, Result<Bytes, OriginError>> {
        async move {
            let origin = format!("{}@{}", self.repository, self.digest);
            in_time(origin, range.clone(), self.read(range)).await
        }
        .boxed()
    }
}
