//! Whether somebody reads, and since when nobody does.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many read something now.
#[derive(Debug)]
pub(super) struct Attention(Mutex<State>);

#[derive(Debug)]
struct State {
    readers: usize,
    /// When the last of them ended; until somebody has read, when it was made.
    since: Instant,
}

/// As long as it lives, somebody reads.
#[derive(Debug)]
pub struct Attending(Arc<Attention>);

impl Attention {
    pub(super) fn none() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { readers: 0, since: Instant::now() })))
    }

    /// Somebody reads until what is returned is dropped.
    pub(super) fn attend(self: &Arc<Self>) -> Attending {
        self.state().readers += 1;
        Attending(Arc::clone(self))
    }

    /// How long nobody has read; `None` while somebody does.
    pub(super) fn idle(&self) -> Option<Duration> {
        let state = self.state();
        (state.readers == 0).then(|| state.since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.readers -= 1;
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_idle_until_the_last_reader_has_gone() {
        let (attention, step) = (Attention::none(), Duration::from_secs(1));
        tokio::time::advance(step).await;
        assert_eq!(attention.idle(), Some(step));
        let (first, second) = (attention.attend(), attention.attend());
        drop(first);
        tokio::time::advance(step).await;
        assert_eq!(attention.idle(), None);
        drop(second);
        tokio::time::advance(2 * step).await;
        assert_eq!(attention.idle(), Some(2 * step));
    }
}
