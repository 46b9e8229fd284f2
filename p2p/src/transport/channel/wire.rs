//! One direction of a link: what waits in an outbox goes out at the sender's rate, travels, and comes in at the
//! receiver's.

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{
        Closed, Incoming, Lane,
        connection::STALLED,
        frame::{self, Frame, SILENT},
        outbox::{Next, Outbox, Sender},
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
        let (mut last, mut sender) = (Instant::now(), Sender::of(self.outbox));
        loop {
            let next = sender.next().await;
            if let Err(closed) = sender.beside(self.send_one(next, &mut last, &steps)).await {
                return closed;
            }
        }
    }

    async fn send_one(
        &self,
        next: Next,
        last: &mut Instant,
        steps: &mpsc::Sender<Step>,
    ) -> Result<(), Closed> {
        let (mut rest, limit, mut whole, sent) = match next {
            Next::Frame(bytes) => match frame::read(&mut bytes.as_ref()).await {
                Ok(Frame::Message(body)) => (bytes.len(), None, Some(Incoming::Message(body)), None),
                _ => return Ok(()),
            },
            Next::Part(out, part) => {
                let (task, piece, is_last) = (out.task, out.piece, part.end == out.bytes.len());
                let whole = is_last.then_some(Incoming::Piece { task, piece, bytes: out.bytes });
                // That of a background piece was taken before its turn came.
                let limit = out.limit.filter(|_| out.lane == Lane::Urgent);
                (part.len(), limit, whole, is_last.then_some(Incoming::Sent { task, piece }))
            }
        };
        loop {
            let bytes = step_of(rest);
            rest -= bytes as usize;
            if let Some(limit) = &limit {
                limit.take(bytes).await;
            }
            let (begins, ends) = self.from.1.up.take(Instant::now(), bytes);
            let travel = { self.network.lock().travel() };
            // What was sent later does not arrive earlier.
            *last = (*last).max(ends + travel);
            let (first, last) = (begins + travel, *last);
            let whole = if rest == 0 { whole.take() } else { None };
            steps.send(Step { bytes, first, last, whole }).await.map_err(|_| Closed::Here)?;
            sleep_until(ends).await;
            if rest == 0 {
                break;
            }
        }
        if let Some(sent) = sent {
            link::tell(self.from.1, self.to.0, sent).await;
        }
        Ok(())
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
