//! The one task that owns the engine's state.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use p2p_api::peer::Body;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Members, OriginError, Parts,
    check::Outcome,
    owned::OwnedTasks,
    swarm::Swarm,
    wire::{self, Shape},
    yielding::Yielding,
};
use crate::{
    NodeId, P2pError, PieceIndex, TaskId,
    membership::Told,
    metrics::Metrics,
    owner::{Instruction, ranked},
    peer::{Action, Source, Upload, Uploads},
    rate::{Limits, Use},
    store::{Store, StoreError},
    transport::{Event, Refused, Transport},
};

/// An owner that could not be reached is passed over for so long.
const PASSED_OVER: Duration = Duration::from_secs(5);
/// Owners of a task that are tried, the best first.
const OWNERS: usize = 4;
/// Further events that are looked at before anything is decided.
const TOGETHER: usize = 63;
/// Leases that a node takes at a time.
pub(super) const SPARE: usize = 4;

/// The end of something that was spawned.
pub(super) enum Done {
    /// The origin gave a piece, or did not.
    Fetched(TaskId, PieceIndex, Result<Bytes, OriginError>),
    /// A piece was checked, and stored if it is right.
    Checked(TaskId, PieceIndex, Source, Result<Outcome, Arc<StoreError>>),
    /// A blob without a list was hashed whole, when pieces had been lost so often.
    Hashed(TaskId, u64, Result<bool, StoreError>),
    /// Pieces of one came from the origin again, and are this.
    FetchedAgain(TaskId, Result<Vec<(PieceIndex, [u8; 32])>, String>, Option<oneshot::Sender<()>>),
    /// A piece was read, to be sent.
    Loaded(Upload, Result<Bytes, StoreError>),
}

pub(super) struct Actor {
    pub(super) me: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) store: Arc<Store>,
    members: watch::Receiver<Arc<Members>>,
    pub(super) told: mpsc::Sender<Told>,
    events: Option<mpsc::Receiver<Event>>,
    pub(super) swarms: HashMap<TaskId, Swarm>,
    /// Swarms to which something happened.
    pub(super) stirred: BTreeSet<TaskId>,
    pub(super) owned: OwnedTasks,
    pub(super) uploads: Uploads,
    pub(super) limits: Limits,
    pub(super) yielding: Yielding,
    pub(super) metrics: Metrics,
    /// When anything last happened but that time went by.
    pub(super) happened: Duration,
    pub(super) unreachable: HashMap<NodeId, Duration>,
    pub(super) work: JoinSet<Done>,
    began: Instant,
    pub(super) random: fastrand::Rng,
}

impl Actor {
    pub(super) fn new(parts: Parts) -> Self {
        let mut random = fastrand::Rng::with_seed(parts.seed);
        Self {
            me: parts.transport.id(),
            transport: parts.transport,
            store: parts.store,
            members: parts.members,
            told: parts.told,
            events: Some(parts.events),
            swarms: HashMap::new(),
            stirred: BTreeSet::new(),
            owned: OwnedTasks::new(random.u64(..)),
            uploads: Uploads::default(),
            limits: parts.limits,
            yielding: Yielding::new(parts.host),
            metrics: parts.metrics,
            happened: Duration::ZERO,
            unreachable: HashMap::new(),
            work: JoinSet::new(),
            began: Instant::now(),
            random,
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let Some(mut events) = self.events.take() else { return };
        let mut ticked = Instant::now();
        loop {
            let (idle, next) = (self.is_idle(), ticked + self.until_tick());
            let mut happened = true;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = commands.recv() => self.command(command),
                Some((node, incoming)) = events.recv() => {
                    self.incoming(node, incoming);
                    // What came together is answered together.
                    let more = std::iter::from_fn(|| events.try_recv().ok()).take(TOGETHER);
                    more.for_each(|(node, incoming)| self.incoming(node, incoming));
                }
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!("work on a piece has ended badly: {error}"),
                },
                Ok(()) = self.members.changed() => self.members_changed(),
                () = self.store.has_lost() => self.look_for_losses(),
                () = sleep_until(next), if !idle => {
                    ticked = Instant::now();
                    happened = false;
                    self.tick();
                }
            }
            if happened {
                self.happened = self.now();
            }
            self.settle();
        }
        self.work.shutdown().await;
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open { content, stored, claims, origin, opened } => {
                let task = stored.task();
                let known = self.swarms.contains_key(&task);
                if !known {
                    let origin = Arc::clone(&origin);
                    let mut swarm = Swarm::new(content, stored, origin, self.random.u64(..));
                    claims.into_iter().for_each(|claim| _ = swarm.provisional.stored(claim));
                    self.swarms.insert(task, swarm);
                    self.find_owner(task);
                }
                let Some(swarm) = self.swarms.get_mut(&task) else { return };
                swarm.origin = origin;
                // Who does not wait any more needs no answer.
                opened.send(swarm.hold()).ok();
                self.look_for_loss(task);
            }
            Command::Want { task, pieces, priority, until, done } => match self.swarms.get_mut(&task) {
                Some(swarm) => {
                    swarm.want(pieces, (priority, self.yielding.reader(priority)), until, done);
                    self.stirred.insert(task);
                }
                None => drop(done.send(Err(P2pError::Stopping))),
            },
            Command::Doubt { task, pieces, done } => self.doubt(task, &pieces, done),
            Command::Lost { task } => self.look_for_loss(task),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Fetched(task, piece, Ok(bytes)) => self.check(task, piece, Source::Origin, bytes),
            Done::Fetched(task, piece, Err(error)) => {
                self.metrics.origin_failed();
                if let Some(swarm) = self.swarms.get_mut(&task) {
                    let reason = crate::error::in_one_line(&error);
                    tracing::debug!(%task, piece = piece.get(), reason, "the origin did not give a piece");
                    let told = swarm.origin_failed(piece, error.refused, &reason);
                    self.stirred.insert(task);
                    if told {
                        self.rejoin(task);
                    }
                }
            }
            Done::Checked(task, piece, source, outcome) => self.checked(task, piece, source, outcome),
            Done::Hashed(task, losses, outcome) => self.hashed(task, losses, outcome),
            Done::FetchedAgain(task, outcome, doubter) => {
                self.fetched_again(task, outcome);
                // Who does not wait any more needs no answer.
                doubter.map(|doubter| doubter.send(()).ok());
            }
            Done::Loaded(upload, Ok(bytes)) => self.send_piece(upload, bytes),
            Done::Loaded(upload, Err(error)) => self.not_loaded(&upload, &error),
        }
    }

    /// Does what the decisions say, until they say nothing more.
    fn settle(&mut self) {
        let now = self.now();
        let hold = self.yield_now(now);
        for task in std::mem::take(&mut self.stirred) {
            let Some(swarm) = self.swarms.get_mut(&task) else { continue };
            swarm.task.hold(hold);
            let actions = swarm.task.poll(now);
            actions.into_iter().for_each(|action| self.act(task, action));
        }
        for (task, instruction) in self.owned.poll(now) {
            self.instruct(task, instruction);
        }
    }

    fn act(&mut self, task: TaskId, action: Action) {
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        match action {
            Action::Greet(node) => {
                let greeting = wire::greet(task, Shape::of(swarm.layout()), swarm.task.have());
                swarm.greeted.insert(node);
                self.say(node, greeting);
            }
            Action::Fetch { piece, priority } => {
                let (origin, range) = (Arc::clone(&swarm.origin), swarm.layout().range(piece));
                let (limits, len) = (self.limits.clone(), swarm.layout().piece_len(piece));
                self.work.spawn(async move {
                    limits.take(Use::Origin, task, len).await;
                    limits.take(Use::Download, task, len).await;
                    Done::Fetched(task, piece, origin.fetch(range, priority).await)
                });
            }
            Action::Part(node) => {
                swarm.greeted.remove(&node);
                self.send(task, Action::Part(node));
            }
            other => self.send(task, other),
        }
    }

    pub(super) fn send(&mut self, task: TaskId, action: Action) {
        let owner = self.swarms.get(&task).and_then(|swarm| swarm.owner);
        match (wire::message(task, action), owner) {
            (Some((Some(partner), body)), _) => self.say(partner, body),
            (Some((None, body)), Some(owner)) if owner == self.me => self.tell_owned(self.me, body),
            (Some((None, body)), Some(owner)) => self.say(owner, body),
            _ => {}
        }
    }

    /// Sends a message, over a new connection if there is none. Who cannot be reached is no partner.
    pub(super) fn say(&mut self, node: NodeId, body: Body) {
        let sent = match self.transport.send(node, body.clone()) {
            Err(Refused::NotConnected) => {
                let address = self.members.borrow().get(&node).copied();
                let connected = address
                    .ok_or(Refused::NotConnected)
                    .and_then(|address| self.transport.connect(node, address));
                connected.and_then(|()| self.transport.send(node, body))
            }
            other => other,
        };
        if let Err(refused) = sent {
            tracing::debug!(%node, "a message was not sent: {refused}");
            self.gone(node);
        }
    }

    /// Does what an owner says, or passes it on.
    fn instruct(&mut self, task: TaskId, instruction: Instruction) {
        let to = match &instruction {
            Instruction::Grant { node, .. }
            | Instruction::Partners { node, .. }
            | Instruction::Holders { node, .. }
            | Instruction::Claims { node, .. } => *node,
        };
        if to == self.me {
            self.told(task, instruction);
        } else {
            let body = wire::instruction(task, instruction, &self.members.borrow());
            self.say(to, body);
        }
    }

    pub(super) fn members_changed(&mut self) {
        let tasks: Vec<_> = self.swarms.keys().copied().collect();
        tasks.into_iter().for_each(|task| self.find_owner(task));
    }

    /// Joins a task at its owner, if that is another than before.
    pub(super) fn find_owner(&mut self, task: TaskId) {
        let members = Arc::clone(&self.members.borrow_and_update());
        let nodes = members.keys().copied().filter(|node| *node != self.me).chain([self.me]);
        let best = ranked(task, nodes, OWNERS);
        let owner =
            best.iter().find(|node| !self.unreachable.contains_key(node)).or_else(|| best.first()).copied();
        let Some(swarm) = self.swarms.get_mut(&task) else { return };
        if swarm.owner == owner {
            return;
        }
        swarm.owner = owner;
        swarm.task.owner_changed();
        self.stirred.insert(task);
        let join = wire::join(task, Shape::of(swarm.layout()), swarm.task.have(), &swarm.task.leased());
        match owner {
            Some(owner) if owner == self.me => self.tell_owned(self.me, join),
            Some(owner) => self.say(owner, join),
            None => {}
        }
        self.claim_all(task);
    }

    /// A node is within reach. An owner that was not, such as one that has started again, hears what is here at once: it
    /// knows of nothing, and would send its own reader to the origin.
    pub(super) fn is_there(&mut self, node: NodeId) {
        if self.unreachable.remove(&node).is_some() {
            self.members_changed();
        }
    }

    /// A node is out of reach.
    pub(super) fn gone(&mut self, node: NodeId) {
        let now = self.now();
        for (id, swarm) in &mut self.swarms {
            swarm.greeted.remove(&node);
            swarm.task.parted(node);
            self.stirred.insert(*id);
        }
        self.uploads.gone(node);
        self.owned.gone(node);
        if self.swarms.values().any(|swarm| swarm.owner == Some(node)) {
            self.unreachable.insert(node, now + PASSED_OVER);
            self.members_changed();
        }
    }
}
