//! Ending on SIGTERM or SIGINT.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A second signal within this time is the same wish: `timeout` and terminals signal a process and then its group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// A token that the first SIGTERM or SIGINT cancels. A later one ends the process at once.
///
/// # Errors
/// Where the signals cannot be listened to.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut first = None;
        loop {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            cancel.cancel();
            if first.get_or_insert_with(Instant::now).elapsed() > SAME_WISH {
                // The user asked twice: waiting for a drain is no longer what they want.
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_cancels_the_token() {
        let token = on_signal().unwrap();
        assert!(!token.is_cancelled());
        raise(Signal::SIGTERM).unwrap();
        tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.unwrap();
        // The same wish a second time, which must not kill what is ending.
        raise(Signal::SIGINT).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
