//! Who may see what: content is shared between members only where everybody may read it anyway, or an operator says so.
//!
//! Whether everybody may is asked of the registry itself, without anybody's credential, beside the first read, and
//! remembered for the repository. Until the answer is there nothing is shared; where it is no, or none comes, nothing
//! ever is.

mod known;
mod share;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use registry::{Client, ClientOptions, RegistryError, Repository};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use known::Known;
pub use share::ShareList;

/// Longest time for one question to a registry.
const DEADLINE: Duration = Duration::from_secs(15);
/// Longest silence of a registry that is asked.
const SILENCE: Duration = Duration::from_secs(5);

/// Whether the content of a repository is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every member and every program of this node may read it.
    Shared,
    /// Only who has its credential may.
    Private,
    /// Nobody knows yet: it is not shared.
    Unknown,
}

/// What is known of the rights to repositories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rights {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    share: ShareList,
    client: Client,
    known: Mutex<Known>,
    probes: TaskTracker,
    stop: CancellationToken,
}

/// A client for questions that everybody may ask: `options` with nothing that proves who asks.
///
/// # Errors
/// [`RegistryError`] where there is no TLS.
pub fn anonymous(options: ClientOptions) -> Result<Client, RegistryError> {
    let options = ClientOptions {
        credential: None,
        anonymous: true,
        read_timeout: SILENCE,
        connect_timeout: SILENCE,
        attempts: 2,
        ..options
    };
    Client::new(options)
}

impl Rights {
    /// What `share` lists is shared; of the rest registries are asked through `client`, which must be [`anonymous`].
    #[must_use]
    pub fn new(share: ShareList, client: Client) -> Self {
        let (probes, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { inner: Arc::new(Inner { share, client, known: Mutex::default(), probes, stop }) }
    }

    /// What the operator shares whatever servers say.
    #[must_use]
    pub fn share_list(&self) -> &ShareList {
        &self.inner.share
    }

    /// What is known now. Never waits.
    #[must_use]
    pub fn verdict(&self, repository: &Repository) -> Verdict {
        if self.inner.share.contains(repository) {
            return Verdict::Shared;
        }
        self.inner.known().verdict(repository, Instant::now())
    }

    /// What is known, and if that is nothing or old, what the registry says of its blob `digest`. Who asks at the same
    /// time waits for the same answer, at most 15 seconds.
    pub async fn probe(&self, repository: &Repository, digest: &str) -> Verdict {
        let known = self.ask(repository, digest);
        if known != Verdict::Unknown {
            return known;
        }
        let asked = self.inner.known().asked(repository);
        if let Some(mut asked) = asked {
            // Whatever ends the question, what is known then counts.
            timeout(DEADLINE, asked.changed()).await.ok();
        }
        self.verdict(repository)
    }

    /// What is known now; starts a question to the registry where that is nothing or old. Never waits.
    pub fn ask(&self, repository: &Repository, digest: &str) -> Verdict {
        let verdict = self.verdict(repository);
        if self.inner.share.contains(repository) || self.inner.stop.is_cancelled() {
            return verdict;
        }
        let Some(asking) = self.inner.known().begin(repository, Instant::now()) else { return verdict };
        let (inner, repository, digest) = (Arc::clone(&self.inner), repository.clone(), digest.to_owned());
        self.inner.probes.spawn(async move {
            let answer = tokio::select! {
                () = inner.stop.cancelled() => Answer::None,
                answer = timeout(DEADLINE, inner.question(&repository, &digest)) => {
                    answer.unwrap_or(Answer::None)
                }
            };
            inner.known().end(&repository, answer, Instant::now());
            drop::<watch::Sender<()>>(asking);
        });
        verdict
    }

    /// Ends all questions.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.probes.close();
        self.inner.probes.wait().await;
    }
}

/// What a registry said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Everybody may read the blob.
    Public,
    /// Not everybody.
    Private,
    /// It is not there, which is also what some say of what is private.
    NotFound,
    /// Nothing that says anything.
    None,
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn question(&self, repository: &Repository, digest: &str) -> Answer {
        let answer = match self.client.readable_size(repository, digest).await {
            Ok(Some(_)) => Answer::Public,
            Ok(None) => Answer::NotFound,
            Err(error) if error.is_unauthorized() => Answer::Private,
            Err(error) => {
                let error = crate::error::in_one_line(&error);
                tracing::info!(%repository, error, "whether everybody may read it is not known");
                Answer::None
            }
        };
        tracing::debug!(%repository, digest, ?answer, "asked who may read it");
        answer
    }
}

#[cfg(test)]
mod tests;
