//! How many requests run at a time, and who gives way to whom.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::{ReadPolicy, backend::Priority};

/// Permits of one image's requests.
#[derive(Debug)]
pub(super) struct Lanes {
    demand: Semaphore,
    read_ahead: Semaphore,
    prefetch: Semaphore,
    /// Requests that readers wait for.
    demanded: watch::Sender<usize>,
}

/// The right to make one request.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    demanded: Option<&'a watch::Sender<usize>>,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Lanes {
    pub(super) fn new(policy: &ReadPolicy) -> Self {
        Self {
            demand: Semaphore::new(policy.demand_requests.max(1)),
            read_ahead: Semaphore::new(policy.read_ahead_requests.max(1)),
            prefetch: Semaphore::new(policy.prefetch_requests.max(1)),
            demanded: watch::Sender::new(0),
        }
    }

    /// Waits for a permit.
    pub(super) async fn enter(&self, priority: Priority) -> Lane<'_> {
        let (semaphore, demanded) = match priority {
            Priority::Demand => (&self.demand, Some(&self.demanded)),
            Priority::ReadAhead => (&self.read_ahead, None),
            Priority::Prefetch | Priority::Background => (&self.prefetch, None),
        };
        demanded.iter().for_each(|count| count.send_modify(|n| *n += 1));
        let mut lane = Lane { demanded, _permit: None };
        lane._permit = semaphore.acquire().await.ok();
        lane
    }

    /// Waits until no reader's request runs, but not longer than `limit`: a busy reader must not stop the list that
    /// would serve it.
    pub(super) async fn give_way(&self, limit: Duration) {
        let mut demanded = self.demanded.subscribe();
        let idle = demanded.wait_for(|n| *n == 0);
        if tokio::time::timeout(limit, idle).await.is_err() {
            tracing::trace!("readers are busy; prefetching beside them");
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.demanded.iter().for_each(|count| count.send_modify(|n| *n -= 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prefetch_waits_for_readers_but_not_for_ever() {
        let lanes = Lanes::new(&ReadPolicy::default());
        let limit = Duration::from_millis(100);
        let begin = tokio::time::Instant::now();
        lanes.give_way(limit).await;
        assert!(begin.elapsed() < limit, "nobody to wait for");
        let reader = lanes.enter(Priority::Demand).await;
        lanes.give_way(limit).await;
        assert!(begin.elapsed() >= limit);
        drop(reader);
        let begin = tokio::time::Instant::now();
        lanes.give_way(limit).await;
        assert!(begin.elapsed() < limit);
    }
}
