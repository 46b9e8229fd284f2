//! Ending on SIGTERM or SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels. A second one ends the process at once.
///
/// # Errors
/// Where the signals cannot be listened to.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        for round in 0.. {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            cancel.cancel();
            if round > 0 {
                // The user asked twice: waiting for a drain is no longer what they want.
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_cancels_the_token() {
        let token = on_signal().unwrap();
        assert!(!token.is_cancelled());
        raise(Signal::SIGTERM).unwrap();
        tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.unwrap();
    }
}
