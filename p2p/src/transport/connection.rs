//! An open connection: one task that reads, one that writes, and the end of both.

#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Closed, Event, Incoming, Lane, Outgoing,
    frame::{self, ALIVE, Announced, Frame},
    outbox::{Next, Outbox, Sender},
};
use crate::{
    NodeId, TaskId,
    rate::{Limits, STEP, Use},
};

/// After so long without anything to say, a node says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A connection is over when a step was not taken for so long.
pub(super) const STALLED: Duration = Duration::from_secs(10);

/// Ends a connection from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    token: CancellationToken,
    why: Arc<Mutex<Option<Closed>>>,
}

impl Stop {
    /// The first reason counts.
    pub(super) fn because(&self, why: Closed) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.token.cancel();
    }

    /// Waits until somebody ended it.
    pub(super) async fn stopped(&self) -> Closed {
        self.token.cancelled().await;
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or(Closed::Here)
    }
}

/// When a connection was last used for anything, as milliseconds since its pool began.
#[derive(Debug, Clone, Default)]
pub(super) struct Used(Arc<AtomicU64>);

impl Used {
    pub(super) fn at(&self, now: Duration) {
        self.0.fetch_max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// What a connection works with.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) node: NodeId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: Stop,
    pub(super) used: Used,
    /// Begin of the time that `used` counts.
    pub(super) began: tokio::time::Instant,
    pub(super) limits: Limits,
}

/// Serves a connection until it is over.
pub(super) async fn serve<S>(stream: S, ends: Ends) -> Closed
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (stop, mut halves) = (ends.stop.clone(), JoinSet::new());
    let (outbox, sent) = (ends.outbox.clone(), Told { node: ends.node, events: ends.events.clone() });
    halves.spawn(read(reader, ends));
    halves.spawn(write(writer, outbox, sent));
    let why = tokio::select! {
        why = stop.stopped() => why,
        ended = halves.join_next() => match ended {
            Some(Ok(why)) => why,
            Some(Err(error)) => Closed::Failed(error.to_string()),
            None => Closed::Here,
        },
    };
    halves.shutdown().await;
    why
}

async fn read<S: AsyncRead>(mut reader: ReadHalf<S>, ends: Ends) -> Closed {
    let mut begun = None;
    loop {
        let incoming = match receive(&mut reader, &mut begun, &ends.limits).await {
            Ok(None) => continue,
            Ok(Some(incoming)) => incoming,
            Err(closed) => return closed,
        };
        ends.used.at(ends.began.elapsed());
        // As long as nobody takes the events, nothing more is read.
        if ends.events.send((ends.node, incoming)).await.is_err() {
            return Closed::Here;
        }
    }
}

/// A piece of which a part has come.
struct Begun {
    task: TaskId,
    piece: u32,
    bytes: BytesMut,
}

/// Reads a frame, and the piece that it announces, or a part of one.
async fn receive<S: AsyncRead>(
    reader: &mut ReadHalf<S>,
    begun: &mut Option<Begun>,
    limits: &Limits,
) -> Result<Option<Incoming>, Closed> {
    Ok(match frame::read(reader).await? {
        Frame::Alive => None,
        Frame::Message(body) => Some(Incoming::Message(body)),
        Frame::Piece(part) => {
            let Announced { task, piece, length, rest, .. } = part;
            let mut bytes = before(part, begun)?;
            let limit = limits.share(Use::Download, task);
            frame::read_bytes(reader, &mut bytes, length, limit.as_ref()).await?;
            if rest == 0 {
                Some(Incoming::Piece { task, piece, bytes: bytes.freeze() })
            } else {
                *begun = Some(Begun { task, piece, bytes });
                None
            }
        }
    })
}

/// What has come of a piece before a part of it.
fn before(part: Announced, begun: &mut Option<Begun>) -> Result<BytesMut, Closed> {
    if part.offset == 0 {
        return Ok(BytesMut::new());
    }
    let follows =
        |begun: &Begun| (begun.task, begun.piece, begun.bytes.len()) == (part.task, part.piece, part.offset);
    let known = begun.take().filter(follows);
    known.map(|begun| begun.bytes).ok_or_else(|| Closed::Broken("a part without those before it".to_owned()))
}

/// Who hears of pieces that have left.
struct Told {
    node: NodeId,
    events: mpsc::Sender<Event>,
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, outbox: Arc<Outbox>, told: Told) -> Closed {
    let mut sender = Sender::of(&outbox);
    loop {
        let next = match timeout(KEEP_ALIVE, sender.next()).await {
            Ok(next) => next,
            Err(_) => Next::Frame(ALIVE),
        };
        let mut written = sender.beside(send(&mut writer, next, &told)).await;
        while written.is_ok()
            && let Some(next) = sender.try_next()
        {
            written = sender.beside(send(&mut writer, next, &told)).await;
        }
        if let Err(why) = written.and(sender.beside(in_time(writer.flush())).await) {
            return why;
        }
    }
}

async fn send<S: AsyncWrite>(writer: &mut WriteHalf<S>, next: Next, told: &Told) -> Result<(), Closed> {
    match next {
        Next::Frame(frame) => in_time(writer.write_all(&frame)).await,
        Next::Part(piece, part) => {
            send_part(writer, &piece, &part).await?;
            if part.end < piece.bytes.len() {
                return Ok(());
            }
            // All of it, before it is told.
            in_time(writer.flush()).await?;
            let sent = Incoming::Sent { task: piece.task, piece: piece.piece };
            told.events.send((told.node, sent)).await.map_err(|_| Closed::Here)
        }
    }
}

async fn send_part<S: AsyncWrite>(
    writer: &mut WriteHalf<S>,
    piece: &Outgoing,
    part: &Range<usize>,
) -> Result<(), Closed> {
    let Ok(head) = frame::announce(piece, part) else { return Ok(()) };
    in_time(writer.write_all(&head)).await?;
    for step in piece.bytes[part.clone()].chunks(STEP as usize) {
        // That of a background piece was taken before its turn came.
        if let Some(limit) = piece.limit.as_ref().filter(|_| piece.lane == Lane::Urgent) {
            limit.take(u32::try_from(step.len()).unwrap_or(STEP)).await;
        }
        in_time(writer.write_all(step)).await?;
    }
    Ok(())
}

async fn in_time(written: impl Future<Output = std::io::Result<()>>) -> Result<(), Closed> {
    match timeout(STALLED, written).await {
        Ok(written) => written.map_err(frame::failed),
        Err(_) => Err(Closed::Stalled),
    }
}
