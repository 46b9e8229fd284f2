//! Keeping the process small: what the allocator keeps after a burst of reads is given back.
#![allow(unsafe_code, reason = "the allocator's own calls have no safe wrapper")]

use std::time::Duration;

/// How often free memory is given back.
const PERIOD: Duration = Duration::from_secs(10);
/// Heaps of the allocator: by default there are eight for each core, and each keeps the largest burst it has seen.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Limits the allocator's heaps. Called before threads start.
pub(crate) fn limit_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers and changes a setting of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives free memory back from time to time; never returns.
pub(crate) async fn give_back() {
    loop {
        tokio::time::sleep(PERIOD).await;
        // A panic there would be the allocator's; there is nothing to do about it.
        tokio::task::spawn_blocking(trim).await.ok();
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer; the allocator does its own locking.
    unsafe {
        libc::malloc_trim(0);
    }
}
