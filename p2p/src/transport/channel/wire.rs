//! One direction of a link: what waits in an outbox goes out at the sender's rate, travels, and comes in at the
//! receiver's.

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{
        Closed, Incoming, Outgoing,
        connection::STALLED,
        frame::{self, Frame, SILENT},
        outbox::{Item, Outbox},
    },
    Network, Node, link, step_of,
};
use crate::NodeId;

/// Steps under way at a time, as a window of TCP.
const WINDOW: usize = 64;

pub(super) struct Way<'a> {
    pub(super) network: &'a Network,
    pub(super) from: (NodeId, &'a Node),
    pub(super) to: (NodeId, &'a Node),
    pub(super) outbox: &'a Outbox,
}

/// Part of what is sent; the last part of something brings the whole.
struct Step {
    bytes: u32,
    /// When its first byte and its last arrive, if nothing holds them up there.
    first: Instant,
    last: Instant,
    whole: Option<Incoming>,
}

impl Way<'_> {
    /// Carries until the link is over.
    pub(super) async fn carry(self) -> Closed {
        let (steps, travelling) = mpsc::channel(WINDOW);
        tokio::select! {
            why = self.send(steps) => why,
            why = self.receive(travelling) => why,
        }
    }

    async fn send(&self, steps: mpsc::Sender<Step>) -> Closed {
        let mut last = Instant::now();
        loop {
            let (len, piece, whole) = match self.outbox.next().await {
                Item::Frame(bytes) => match frame::read(&mut bytes.as_ref()).await {
                    Ok(Frame::Message(body)) => (bytes.len(), None, Incoming::Message(body)),
                    _ => continue,
                },
                Item::Piece(out) => {
                    let (len, bytes) = (out.bytes.len(), out.bytes.clone());
                    let (task, piece) = (out.task, out.piece);
                    (len, Some(out), Incoming::Piece { task, piece, bytes })
                }
            };
            let (mut rest, mut whole) = (len, Some(whole));
            while whole.is_some() {
                let bytes = step_of(rest);
                rest -= bytes as usize;
                if let Some(limit) = piece.as_ref().and_then(|piece| piece.limit.as_ref()) {
                    limit.take(bytes).await;
                }
                let (begins, ends) = self.from.1.up.take(Instant::now(), bytes);
                let travel = { self.network.lock().travel() };
                // What was sent later does not arrive earlier.
                last = last.max(ends + travel);
                let (first, whole) = (begins + travel, if rest == 0 { whole.take() } else { None });
                if steps.send(Step { bytes, first, last, whole }).await.is_err() {
                    return Closed::Here;
                }
                sleep_until(ends).await;
            }
            if let Some(Outgoing { task, piece, .. }) = piece {
                link::tell(self.from.1, self.to.0, Incoming::Sent { task, piece }).await;
            }
        }
    }

    async fn receive(&self, mut travelling: mpsc::Receiver<Step>) -> Closed {
        loop {
            let step = tokio::select! {
                step = travelling.recv() => step,
                () = self.silent() => return Closed::Silent,
            };
            let Some(step) = step else { return Closed::Here };
            sleep_until(step.first).await;
            if timeout(STALLED, self.reached()).await.is_err() {
                return Closed::Stalled;
            }
            let (_, ends) = self.to.1.down.take(Instant::now(), step.bytes);
            sleep_until(ends.max(step.last)).await;
            if let Some(whole) = step.whole {
                link::tell(self.to.1, self.from.0, whole).await;
            }
        }
    }

    /// Waits until both sides reach each other.
    async fn reached(&self) {
        self.until(true).await;
    }

    /// Waits until both sides have not reached each other for so long that they notice.
    async fn silent(&self) {
        loop {
            self.until(false).await;
            if timeout(SILENT, self.reached()).await.is_err() {
                return;
            }
        }
    }

    async fn until(&self, reach: bool) {
        let mut changed = self.network.0.changed.subscribe();
        while self.network.lock().reaches(self.from.0, self.to.0) != reach {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
