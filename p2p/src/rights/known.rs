//! What registries said, and how long that holds.

use std::{collections::HashMap, time::Duration};

use registry::Repository;
use tokio::{sync::watch, time::Instant};

use super::{Answer, Verdict};

/// Repositories that are remembered.
const REPOSITORIES: usize = 4096;
/// Questions under way at a time.
const QUESTIONS: usize = 64;
/// How long a repository counts as everybody's. In the last quarter of it the registry is asked again.
const PUBLIC: Duration = Duration::from_secs(4 * 3600);
/// How long as private.
const PRIVATE: Duration = Duration::from_secs(5 * 60);
/// How long where the blob asked for was not there: another one may be.
const NOT_FOUND: Duration = Duration::from_secs(30);
/// How long nobody asks again where there was no answer.
const FAILED: Duration = Duration::from_secs(5);

/// Repositories, and what was said of them.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Repository, Entry>);

#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    /// It holds until then.
    until: Instant,
    /// From then on it is worth a question.
    renew: Instant,
    /// Closed when the question that is under way has an answer.
    asked: Option<watch::Receiver<()>>,
}

impl Entry {
    /// Whether somebody asks. A question that ended badly is over as well.
    fn is_asked(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.has_changed().is_ok())
    }
}

impl Known {
    pub(super) fn verdict(&self, repository: &Repository, now: Instant) -> Verdict {
        let entry = self.0.get(repository).filter(|entry| now < entry.until);
        entry.map_or(Verdict::Unknown, |entry| entry.verdict)
    }

    /// What closes when the question that is under way has an answer.
    pub(super) fn asked(&self, repository: &Repository) -> Option<watch::Receiver<()>> {
        self.0.get(repository)?.asked.clone()
    }

    /// Begins a question, if one is due and not under way. What is returned is to be dropped after [`Self::end`].
    pub(super) fn begin(&mut self, repository: &Repository, now: Instant) -> Option<watch::Sender<()>> {
        let known = self.0.get(repository);
        if known.is_some_and(|entry| entry.is_asked() || now < entry.renew) {
            return None;
        }
        if self.0.values().filter(|entry| entry.is_asked()).count() >= QUESTIONS {
            return None;
        }
        if known.is_none() {
            self.make_room(now);
        }
        let (asking, asked) = watch::channel(());
        let nothing = || Entry { verdict: Verdict::Unknown, until: now, renew: now, asked: None };
        self.0.entry(repository.clone()).or_insert_with(nothing).asked = Some(asked);
        Some(asking)
    }

    /// Notes the answer.
    pub(super) fn end(&mut self, repository: &Repository, answer: Answer, now: Instant) {
        let Some(entry) = self.0.get_mut(repository) else { return };
        entry.asked = None;
        let (verdict, holds, renew) = match answer {
            Answer::Public => (Verdict::Shared, PUBLIC, PUBLIC * 3 / 4),
            Answer::Private => (Verdict::Private, PRIVATE, PRIVATE),
            // One blob that is not there says nothing against what was said of others.
            Answer::NotFound if entry.verdict == Verdict::Shared && now < entry.until => {
                entry.renew = now + NOT_FOUND;
                return;
            }
            Answer::NotFound => (Verdict::Private, NOT_FOUND, NOT_FOUND),
            // What was said before holds for its time.
            Answer::None => {
                entry.renew = now + FAILED;
                return;
            }
        };
        *entry = Entry { verdict, until: now + holds, renew: now + renew, asked: None };
    }

    /// Forgets what is old, else what holds the shortest; never what is being asked.
    fn make_room(&mut self, now: Instant) {
        if self.0.len() < REPOSITORIES {
            return;
        }
        self.0.retain(|_, entry| entry.is_asked() || now < entry.until.max(entry.renew));
        if self.0.len() < REPOSITORIES {
            return;
        }
        let idle = self.0.iter().filter(|(_, entry)| !entry.is_asked());
        if let Some(first) = idle.min_by_key(|(_, entry)| entry.until).map(|(name, _)| name.clone()) {
            self.0.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(number: usize) -> Repository {
        Repository { host: "registry.example".into(), path: format!("app/{number}") }
    }

    #[tokio::test]
    async fn what_is_said_holds_for_its_time() {
        let (mut known, now, app) = (Known::default(), Instant::now(), repository(0));
        let steps = [
            (Answer::None, Duration::ZERO, Verdict::Unknown, FAILED),
            (Answer::NotFound, NOT_FOUND, Verdict::Private, NOT_FOUND),
            (Answer::Private, PRIVATE, Verdict::Private, PRIVATE),
            (Answer::Public, PUBLIC, Verdict::Shared, PUBLIC * 3 / 4),
        ];
        let mut at = now;
        for (answer, holds, verdict, renew) in steps {
            let question = known.begin(&app, at);
            assert!(question.is_some(), "{answer:?} is asked for");
            assert!(known.begin(&app, at).is_none(), "once at a time");
            known.end(&app, answer, at);
            drop(question);
            assert_eq!(known.verdict(&app, at), verdict);
            let just_before = at + renew - Duration::from_millis(1);
            assert!(known.begin(&app, just_before).is_none(), "{answer:?} holds");
            assert_eq!(known.verdict(&app, at + holds), Verdict::Unknown);
            at += renew;
        }
    }

    #[tokio::test]
    async fn a_registry_that_fails_or_lost_a_blob_changes_nothing_that_it_said() {
        let (mut known, now, app) = (Known::default(), Instant::now(), repository(0));
        for (answer, later) in [(Answer::Public, 0), (Answer::None, 3), (Answer::NotFound, 3)] {
            let at = now + PUBLIC * later / 4 + FAILED * u32::from(answer == Answer::NotFound);
            assert!(known.begin(&app, at).is_some());
            known.end(&app, answer, at);
            assert_eq!(known.verdict(&app, at), Verdict::Shared);
        }
        assert_eq!(known.verdict(&app, now + PUBLIC), Verdict::Unknown, "but not longer than it holds");
        let at = now + PUBLIC * 3 / 4 + FAILED + NOT_FOUND;
        assert!(known.begin(&app, at).is_some());
        known.end(&app, Answer::Private, at);
        assert_eq!(known.verdict(&app, at), Verdict::Private);
    }

    #[tokio::test]
    async fn no_more_is_remembered_or_asked_than_may_be() {
        let (mut known, now) = (Known::default(), Instant::now());
        let questions: Vec<_> =
            (0..2 * QUESTIONS).filter_map(|number| known.begin(&repository(number), now)).collect();
        assert_eq!(questions.len(), QUESTIONS);
        for number in 0..QUESTIONS {
            known.end(&repository(number), Answer::Public, now);
        }
        for number in QUESTIONS..REPOSITORIES + 10 {
            assert!(known.begin(&repository(number), now).is_some());
            known.end(&repository(number), Answer::Private, now);
        }
        assert_eq!(known.0.len(), REPOSITORIES);
        assert_eq!(known.verdict(&repository(0), now), Verdict::Shared, "what holds longest stays");
    }
}
