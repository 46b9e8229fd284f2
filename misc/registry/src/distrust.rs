//! Mirrors that have given wrong bytes of a blob: found out by whoever knows its digests, and left for others.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{RegistryError, Repository, client::Inner, hosts::Capability, mirror::Endpoint};

/// Ranges remembered with the mirror that gave them: more than a daemon has under way at a time.
const MAX_GIVEN: usize = 512;
/// Mirrors remembered with the blob that they gave wrongly; beyond it, all are forgotten and found out again.
const MAX_DISTRUSTED: usize = 4096;
/// Longest time that a mirror is left for a blob, in first times.
const LONGEST: u32 = 16;

/// Which mirrors gave what, and which of them are not to be asked for it.
#[derive(Debug, Default)]
pub(crate) struct Distrust {
    given: Mutex<VecDeque<Given>>,
    /// By mirror and digest.
    left: Mutex<HashMap<(String, String), Left>>,
}

/// A range that a mirror gave, the newest last.
#[derive(Debug)]
struct Given {
    digest: String,
    range: Range<u64>,
    mirror: Arc<Endpoint>,
}

/// How long a mirror is left for others.
#[derive(Debug, Clone, Copy)]
struct Left {
    until: Instant,
    length: Duration,
    /// It has been asked again since.
    tried: bool,
}

impl Distrust {
    /// Remembers who gave a range. Registries themselves are not remembered: nobody knows better.
    pub(crate) fn gave(&self, endpoint: &Arc<Endpoint>, digest: &str, range: Option<&Range<u64>>) {
        if endpoint.host.is_origin {
            return;
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MAX_GIVEN {
            given.pop_front();
        }
        let range = range.cloned().unwrap_or(0..u64::MAX);
        given.push_back(Given { digest: digest.into(), range, mirror: Arc::clone(endpoint) });
    }

    /// Whether others are to be asked first for a blob. After its time one request tries the mirror while others still
    /// go round it; when nobody complains, it is as any other again.
    pub(crate) fn leaves(&self, endpoint: &Endpoint, digest: &str) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, now) = (key(endpoint, digest), Instant::now());
        let Some(known) = left.get_mut(&key) else { return false };
        if now < known.until {
            return true;
        }
        if known.tried {
            left.remove(&key);
        } else {
            (known.until, known.tried) = (now + known.length, true);
        }
        false
    }

    /// Leaves the mirrors that gave some of `range`; says whether there were any.
    fn leave(&self, digest: &str, range: &Range<u64>, first: Duration) -> bool {
        let mut mirrors = Vec::new();
        self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|given| {
            let overlaps = given.range.start < range.end && range.start < given.range.end;
            let is_meant = overlaps && given.digest == digest;
            if is_meant {
                mirrors.push(Arc::clone(&given.mirror));
            }
            !is_meant
        });
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for mirror in &mirrors {
            if left.len() >= MAX_DISTRUSTED {
                left.clear();
            }
            let known = left.get(&key(mirror, digest)).copied();
            // Ranges that were under way together are found wrong together, and count once.
            if known.is_some_and(|known| !known.tried) {
                continue;
            }
            let length = known.map_or(first, |known| known.length.saturating_mul(2).min(first * LONGEST));
            let now = Left { until: Instant::now() + length, length, tried: false };
            left.insert(key(mirror, digest), now);
            tracing::warn!(
                host = mirror.host.name,
                digest,
                "mirror gives wrong or late bytes; others are asked first"
            );
        }
        !mirrors.is_empty()
    }
}

fn key(endpoint: &Endpoint, digest: &str) -> (String, String) {
    (endpoint.host.base.to_string(), digest.into())
}

impl Inner {
    /// Leaves the mirrors that gave wrong bytes of a blob, and the places that redirects for it led to.
    pub(crate) fn distrust(
        &self,
        repository: &Repository,
        digest: &str,
        range: &Range<u64>,
    ) -> Result<bool, RegistryError> {
        let hosts = self.endpoints(&repository.host, Capability::Pull)?;
        for host in &hosts {
            self.redirects.forget(&host.url(repository, &format!("blobs/{digest}")));
        }
        let left = self.distrust.leave(digest, range, self.options.mirror_rest);
        Ok(left && hosts.len() > 1)
    }
}
