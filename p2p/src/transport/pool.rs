//! Connections over TLS, one for each other node.

mod backoff;
mod listener;
mod slots;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use p2p_api::{
    VERSION,
    peer::{Hello, Role},
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Body, Closed, Event, Incoming, Outgoing, Refused, Transport,
    connection::{self, Ends},
    frame,
    outbox::Item,
    tcp::{self, DIAL, DialFailed, Met},
};
use crate::{Identity, NodeId, TaskId, identity::IdentityError, rate::Limits};
use slots::{Dial, Opened, Slots};

/// Events that wait; when as many do, nothing more is read from the network.
const EVENTS: usize = 64;

/// What a pool needs to know.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Commit that the node was built from.
    pub build: String,
    /// What the node does.
    pub role: Role,
    /// Most connections at a time.
    pub connections: usize,
    /// How fast pieces may come.
    pub limits: Limits,
}

/// Why nobody was met at an address.
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    /// No member answers there.
    #[error("no member of the cluster at {address}: {reason}")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// A member is there that does not want another connection.
    #[error("{node} at {address} does not want a connection")]
    TurnedAway {
        /// The address.
        address: SocketAddr,
        /// Who is there.
        node: NodeId,
    },
}

/// The connections of a node. Dropping it ends them.
#[derive(Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    identity: Identity,
    server: Arc<ServerConfig>,
    greeting: Bytes,
    slots: Mutex<Slots>,
    events: mpsc::Sender<Event>,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    began: Instant,
}

impl Pool {
    /// A pool that is dialed at `listener`. What happens is received.
    ///
    /// # Errors
    /// [`IdentityError`] where TLS cannot be set up.
    pub fn start(
        identity: Identity,
        listener: TcpListener,
        config: PoolConfig,
    ) -> Result<(Self, mpsc::Receiver<Event>), IdentityError> {
        let (events, received) = mpsc::channel(EVENTS);
        let boot = u64::from_ne_bytes(crate::identity::random()?);
        let hello = Hello { version: VERSION, build: config.build, role: config.role.into(), boot };
        let shared = Arc::new(Shared {
            server: identity.server_config()?,
            slots: Mutex::new(Slots::new(identity.id(), config.connections)),
            identity,
            greeting: frame::encode(Body::Hello(hello)).expect("a greeting is short"),
            events,
            limits: config.limits,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            began: Instant::now(),
        });
        shared.clone().spawn(listener::listen(shared.clone(), listener));
        Ok((Self(shared), received))
    }

    /// Connects to whoever is at `address`, and says who that is.
    ///
    /// # Errors
    /// [`MeetError`] where no member is there, or it does not want that.
    pub async fn meet(&self, address: SocketAddr) -> Result<NodeId, MeetError> {
        let dialing = tcp::dial(&self.0.identity, None, address, self.0.greeting.clone());
        let unreachable = |reason| MeetError::Unreachable { address, reason };
        let met = match timeout(DIAL, dialing).await {
            Ok(Ok(met)) => met,
            Ok(Err(DialFailed::TurnedAway(node))) if self.0.slots().link(node).is_some() => return Ok(node),
            Ok(Err(DialFailed::TurnedAway(node))) => return Err(MeetError::TurnedAway { address, node }),
            Ok(Err(DialFailed::Unreachable(reason))) => return Err(unreachable(reason)),
            Err(_) => return Err(unreachable("no answer in time".to_owned())),
        };
        let opened = self.0.slots().met(self.0.now(), met.node, met.hello.boot);
        let (node, opened) = (met.node, opened.ok_or(MeetError::TurnedAway { address, node: met.node })?);
        self.0.clone().spawn(self.0.clone().serve(met, opened, None));
        Ok(node)
    }

    /// How many connections there are, or are being made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.slots().len()
    }

    /// Ends all connections.
    pub async fn stop(self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if timeout(Duration::from_secs(5), self.0.tasks.wait()).await.is_err() {
            tracing::warn!("connections did not end in time");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Runs a task until the pool stops.
    fn spawn(self: Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    async fn dial(self: Arc<Self>, node: NodeId, address: SocketAddr, dial: Dial) {
        let deadline = Instant::now() + DIAL;
        let dialing = tcp::dial(&self.identity, Some(node), address, self.greeting.clone());
        let dialed = tokio::select! {
            why = dial.link.stop.stopped() => return self.dial_stopped(node, &dial, why).await,
            dialed = timeout_at(deadline, dialing) => dialed,
        };
        let reason = match dialed {
            Ok(Ok(met)) => {
                let opened = self.slots().dialed(node, dial.number, met.hello.boot);
                if let Some(opened) = opened {
                    self.serve(met, opened, None).await;
                }
                return;
            }
            Ok(Err(DialFailed::TurnedAway(_))) => {
                // Its own dial is on the way, most likely.
                match timeout_at(deadline, dial.link.stop.stopped()).await {
                    Ok(why) => return self.dial_stopped(node, &dial, why).await,
                    Err(_) => "turned away".to_owned(),
                }
            }
            Ok(Err(DialFailed::Unreachable(reason))) => reason,
            Err(_) => "no answer in time".to_owned(),
        };
        self.close(node, Closed::Unreachable(reason), |slots| slots.failed(self.now(), node, dial.number))
            .await;
    }

    async fn dial_stopped(&self, node: NodeId, dial: &Dial, why: Closed) {
        self.close(node, why, |slots| slots.ended(node, dial.number)).await;
    }

    /// Serves an open connection; `answer` is said first.
    async fn serve(self: Arc<Self>, mut met: Met, opened: Opened, answer: Option<Bytes>) {
        let Opened { number, link, previous, awaited, over } = opened;
        if let Some(previous) = previous {
            // It has been told to end, and does as soon as its end is received.
            _ = previous.await;
        }
        let greeted = match &answer {
            Some(answer) => tcp::greet(&mut met.stream, answer).await,
            None => Ok(()),
        };
        let (node, told) = (met.node, greeted.is_ok() || awaited);
        let why = match greeted {
            Ok(()) => self.exchange(met, link).await,
            Err(why) => why,
        };
        // Closed is queued before the slot is free: whoever connects anew hears of that afterwards.
        self.close(node, why, |slots| {
            slots.ended(node, number);
            told
        })
        .await;
        drop(over);
    }

    async fn exchange(&self, met: Met, link: slots::Link) -> Closed {
        let Met { stream, node, hello } = met;
        let stream: TlsStream<TcpStream> = stream;
        if self.events.send((node, Incoming::Connected(hello))).await.is_err() {
            return Closed::Here;
        }
        let (events, began) = (self.events.clone(), self.began);
        let (limits, slots::Link { outbox, stop, used, .. }) = (self.limits.clone(), link);
        let ends = Ends { node, outbox, events, stop, used, began, limits };
        connection::serve(stream, ends).await
    }

    /// Frees a slot and tells so, if `free` says that it is to be told.
    async fn close(&self, node: NodeId, why: Closed, free: impl FnOnce(&mut Slots) -> bool) {
        let Ok(place) = self.events.reserve().await else { return };
        let mut slots = self.slots();
        if free(&mut slots) {
            place.send((node, Incoming::Closed(why)));
        }
    }
}

impl Transport for Pool {
    fn id(&self) -> NodeId {
        self.0.identity.id()
    }

    fn connect(&self, node: NodeId, address: SocketAddr) -> Result<(), Refused> {
        let dial = self.0.slots().dial(self.0.now(), node)?;
        if let Some(dial) = dial {
            self.0.clone().spawn(self.0.clone().dial(node, address, dial));
        }
        Ok(())
    }

    fn send(&self, node: NodeId, message: Body) -> Result<(), Refused> {
        let frame = frame::encode(message)?;
        self.0.push(node, Item::Frame(frame))
    }

    fn send_piece(&self, node: NodeId, piece: Outgoing) -> Result<(), Refused> {
        frame::announce(&piece, &(0..piece.bytes.len()))?;
        self.0.push(node, Item::Piece(piece))
    }

    fn withdraw(&self, node: NodeId, task: TaskId, piece: u32) -> bool {
        self.0.slots().link(node).is_some_and(|link| link.outbox.withdraw(task, piece))
    }

    fn disconnect(&self, node: NodeId) {
        if let Some(link) = self.0.slots().link(node) {
            link.stop.because(Closed::Here);
        }
    }
}

impl Shared {
    fn push(&self, node: NodeId, item: Item) -> Result<(), Refused> {
        let slots = self.slots();
        let link = slots.link(node).ok_or(Refused::NotConnected)?;
        link.outbox.push(item)?;
        link.used.at(self.now());
        Ok(())
    }
}
