//! The nodes, the owner of their task, and the messages between them, in virtual time.

mod outcome;

use std::time::Duration;

use p2p::{
    NodeId, PieceBitmap, PieceIndex, PieceLayout, Priority, TaskId, Vouch,
    owner::{Index, Instruction},
    peer::{Action, Admission, Source, Task, Upload, Uploads},
};

use crate::{
    Outcome, Scene,
    agenda::Agenda,
    event::{Event, Message, ToOwner},
    links::{Flow, Foreseen, Links, Rates, Seen},
};

/// Time between two polls of a node to which nothing happens, in seconds.
const TICK: f64 = 0.01;
/// Time from an event to the poll that it causes: what happens meanwhile is answered at once, as in the daemon.
const LINGER: f64 = 0.000_5;
/// Leases that a node takes at a time.
const SPARE: usize = 4;

struct Node {
    task: Task,
    uploads: Uploads,
    alive: bool,
    ticks: bool,
    polls: bool,
    polled: f64,
    finished: Option<f64>,
    slow: bool,
    doomed: bool,
}

struct World {
    scene: Scene,
    layout: PieceLayout,
    task: TaskId,
    now: f64,
    queue: Agenda<Event>,
    nodes: Vec<Node>,
    owner: Index,
    owner_polls: bool,
    links: Links,
    waiting: usize,
    messages: u64,
    duplicates: u64,
    origin_done: f64,
}

/// Runs a scene to its end: until all who live have what they want, or the deadline.
#[must_use]
pub fn run(scene: &Scene) -> Outcome {
    let mut world = World::new(scene.clone());
    for node in 0..scene.nodes {
        world.at(0.0, Event::Start(node));
    }
    world.at(TICK, Event::OwnerPoll);
    while world.waiting > 0
        && let Some((at, event)) = world.queue.next()
    {
        world.now = at;
        if world.now > scene.deadline {
            break;
        }
        world.handle(event);
    }
    world.outcome()
}

impl World {
    fn new(scene: Scene) -> Self {
        let len = u64::from(scene.pieces) * u64::from(scene.piece_size);
        let layout = PieceLayout::new(len, scene.piece_size).expect("a scene has a sound layout");
        let node = |number: usize| Node {
            task: Task::new(
                layout.clone(),
                PieceBitmap::empty(layout.count()),
                scene.seed.wrapping_mul(1_000_003) + number as u64,
            ),
            uploads: Uploads::default(),
            alive: true,
            ticks: false,
            polls: false,
            polled: 0.0,
            finished: None,
            slow: number < scene.slow,
            doomed: number >= scene.slow && number < scene.slow + scene.killed,
        };
        let up = |node: &Node| if node.slow { scene.rate / 10.0 } else { scene.rate };
        let nodes: Vec<_> = (0..scene.nodes).map(node).collect();
        let rates: Vec<_> = nodes.iter().map(|node| Rates { up: up(node), down: scene.rate }).collect();
        Self {
            owner: Index::new(layout.count(), scene.seed),
            layout,
            task: TaskId::of(Vouch::Url("simulated")),
            now: 0.0,
            queue: Agenda::default(),
            owner_polls: false,
            links: Links::new(&rates, scene.origin_rate),
            waiting: nodes.iter().filter(|node| !node.doomed).count(),
            nodes,
            messages: 0,
            duplicates: 0,
            origin_done: 0.0,
            scene,
        }
    }

    fn at(&mut self, at: f64, event: Event) {
        self.queue.add(at, event);
    }

    fn clock(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(node) => self.start(node),
            Event::Deliver(to, from, message) => self.deliver(to, from, message),
            Event::Owner(from, message) => self.tell_owner(from, message),
            Event::OwnerPoll => self.poll_owner(),
            Event::Arrived(foreseen) => self.arrived(foreseen),
            Event::Poll(node) => {
                self.nodes[node].polls = false;
                self.poll(node);
            }
            Event::Tick(node) => self.tick(node),
        }
    }

    fn start(&mut self, node: usize) {
        self.report_to_owner(node, ToOwner::Join);
        let (layout, order) = (self.layout.clone(), self.scene.order.clone());
        let task = &mut self.nodes[node].task;
        if order.is_empty() {
            task.want(Priority::Background, layout.pieces());
        } else {
            task.want(Priority::Trace, order.iter().filter_map(|number| layout.piece(*number)));
        }
        self.nodes[node].ticks = true;
        self.poll(node);
        self.tick(node);
    }

    /// Looks at what time alone changes, as long as there is anything that it may change.
    fn tick(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        let polled = self.nodes[node].polled;
        if polled + TICK > self.now {
            return self.at(polled + TICK, Event::Tick(node));
        }
        self.poll(node);
        self.upload(node);
        let Node { uploads, finished, .. } = &self.nodes[node];
        self.nodes[node].ticks = finished.is_none() || !uploads.are_none();
        if self.nodes[node].ticks {
            self.at(self.now + TICK, Event::Tick(node));
        }
    }

    fn send(&mut self, to: usize, from: usize, message: Message) {
        self.messages += 1;
        self.at(self.now + self.scene.delay, Event::Deliver(to, from, message));
    }

    fn report_to_owner(&mut self, from: usize, message: ToOwner) {
        self.messages += 1;
        self.at(self.now + self.scene.delay, Event::Owner(from, message));
    }

    fn wake(&mut self, node: usize) {
        if !self.nodes[node].polls {
            self.nodes[node].polls = true;
            self.at(self.now + LINGER, Event::Poll(node));
        }
    }

    fn deliver(&mut self, to: usize, from: usize, message: Message) {
        let (now, sender) = (self.clock(), id(from));
        if !self.nodes[to].alive {
            // A dead host's kernel, or the membership, says so.
            if !matches!(message, Message::Part | Message::Told(_)) && self.nodes[from].alive {
                self.nodes[from].task.parted(id(to));
            }
            return;
        }
        let task = &mut self.nodes[to].task;
        match message {
            Message::Greet(has, answer) => {
                let taken = task.greeted(now, sender, has);
                let have = task.have().clone();
                match (taken, answer) {
                    (false, _) => self.send(from, to, Message::Part),
                    (true, true) => self.send(from, to, Message::Greet(have, false)),
                    (true, false) => {}
                }
            }
            Message::Part => {
                task.parted(sender);
                self.nodes[to].uploads.parted(sender, self.task);
            }
            Message::Request(piece, priority) => return self.requested(to, from, piece, priority),
            Message::Cancel(piece) => {
                if !self.nodes[to].uploads.cancel(sender, self.task, piece) {
                    self.nodes[to].uploads.called_off(sender, self.task, piece.get());
                }
                return self.upload(to);
            }
            Message::Busy(piece, retry) => task.busy(now, sender, piece, retry),
            Message::Missing(piece) => task.missing(sender, piece),
            Message::Have(pieces) => {
                task.has(sender, pieces.iter().copied());
                for piece in pieces {
                    self.nodes[to].uploads.came(now, sender, self.task, piece);
                }
                self.upload(to);
            }
            Message::Told(Instruction::Grant { piece, priority, .. }) => task.granted(now, piece, priority),
            Message::Told(Instruction::Partners { partners, .. }) => task.introduced(&partners),
            Message::Told(Instruction::Holders { holders, .. }) => task.pointed(&holders),
            // Blobs here have lists.
            Message::Told(Instruction::Claims { .. }) => {}
        }
        self.wake(to);
    }

    fn requested(&mut self, node: usize, from: usize, piece: PieceIndex, priority: Priority) {
        if !self.nodes[node].task.have().contains(piece) {
            return self.send(from, node, Message::Missing(piece));
        }
        let held = self.nodes[node].task.held_by(id(from));
        let len = self.layout.piece_len(piece);
        let upload = Upload { node: id(from), task: self.task, piece, len, priority, held };
        match self.nodes[node].uploads.request(upload) {
            Admission::Queued => self.upload(node),
            Admission::Instead(other, retry) => {
                self.send(number(other.node), node, Message::Busy(other.piece, retry));
            }
            Admission::Busy(retry) => self.send(from, node, Message::Busy(piece, retry)),
        }
    }

    fn upload(&mut self, node: usize) {
        let now = self.clock();
        while let Some(upload) = self.nodes[node].uploads.next(now) {
            self.begin(Some(node), number(upload.node), upload.piece);
            if !std::mem::replace(&mut self.nodes[node].ticks, true) {
                self.at(self.now + TICK, Event::Tick(node));
            }
        }
    }

    fn begin(&mut self, from: Option<usize>, to: usize, piece: PieceIndex) {
        let len = f64::from(self.layout.piece_len(piece));
        let foreseen = self.links.begin(self.now, (from, to), piece, len);
        self.foresee(foreseen);
    }

    fn foresee(&mut self, foreseen: Vec<Foreseen>) {
        for end in foreseen {
            self.at(end.at, Event::Arrived(end));
        }
    }

    fn arrived(&mut self, foreseen: Foreseen) {
        let ended = match self.links.look(self.now, foreseen) {
            Seen::Ended(flow) => flow,
            Seen::EndsLater(later) => return self.foresee(vec![later]),
            Seen::Nothing => return,
        };
        let (flow, changed) = self.links.end(self.now, ended);
        self.foresee(changed);
        let Some(Flow { from, to, piece, .. }) = flow else { return };
        let now = self.clock();
        if let Some(sender) = from {
            self.nodes[sender].uploads.left(id(to), self.task, piece.get());
            self.upload(sender);
        }
        if from.is_none() {
            self.origin_done = self.now;
        }
        let source = from.map_or(Source::Origin, |sender| Source::Node(id(sender)));
        let node = &mut self.nodes[to];
        self.duplicates += u64::from(!node.task.received(now, piece, source));
        if node.doomed && node.task.have().held() * 2 >= self.layout.count().get() {
            return self.kill(to);
        }
        if node.task.is_satisfied() && node.finished.is_none() {
            node.finished = Some(self.now);
            self.waiting -= usize::from(!node.doomed);
        }
        self.wake(to);
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        for flow in self.links.of(node) {
            let (flow, changed) = self.links.end(self.now, flow);
            self.foresee(changed);
            let Some(Flow { from, to, .. }) = flow else { continue };
            match from {
                Some(sender) if sender != node => {
                    self.nodes[sender].uploads.gone(id(node));
                    self.upload(sender);
                }
                _ => {
                    self.nodes[to].task.parted(id(node));
                    self.wake(to);
                }
            }
        }
        self.owner.leave(id(node));
    }

    fn poll(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        let now = self.clock();
        self.nodes[node].polled = self.now;
        for action in self.nodes[node].task.poll(now) {
            match action {
                Action::Greet(to) => {
                    let have = self.nodes[node].task.have().clone();
                    self.send(number(to), node, Message::Greet(have, true));
                }
                Action::Part(to) => self.send(number(to), node, Message::Part),
                Action::Request { to, piece, priority } => {
                    self.send(number(to), node, Message::Request(piece, priority));
                }
                Action::Cancel { to, piece } => self.send(number(to), node, Message::Cancel(piece)),
                Action::Fetch { piece, .. } => self.begin(None, node, piece),
                Action::Have { to, pieces } => self.send(number(to), node, Message::Have(pieces)),
                Action::Ask { pieces, priority, insists } => {
                    self.report_to_owner(node, ToOwner::Ask(pieces, priority, insists));
                }
                Action::Report { got, failed, lonely } => {
                    self.report_to_owner(node, ToOwner::Report(got, failed, lonely));
                }
            }
        }
    }

    fn tell_owner(&mut self, from: usize, message: ToOwner) {
        if !self.nodes[from].alive {
            return;
        }
        let (now, node) = (self.clock(), id(from));
        match message {
            ToOwner::Join => self.owner.join(now, node, PieceBitmap::empty(self.layout.count()), &[], SPARE),
            ToOwner::Ask(pieces, priority, insists) => self.owner.ask(now, node, &pieces, priority, insists),
            ToOwner::Report(got, failed, lonely) => self.owner.report(now, node, &got, &failed, lonely),
        }
        if !self.owner_polls {
            self.owner_polls = true;
            self.at(self.now + LINGER, Event::OwnerPoll);
        }
    }

    fn poll_owner(&mut self) {
        let now = self.clock();
        if std::mem::take(&mut self.owner_polls) {
            // Something happened; the regular poll is scheduled already.
        } else {
            self.owner.tick(now);
            self.at(self.now + TICK, Event::OwnerPoll);
        }
        for instruction in self.owner.poll(now) {
            let to = match &instruction {
                Instruction::Grant { node, .. }
                | Instruction::Partners { node, .. }
                | Instruction::Holders { node, .. }
                | Instruction::Claims { node, .. } => number(*node),
            };
            self.send(to, to, Message::Told(instruction));
        }
    }
}

fn id(number: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    NodeId(bytes)
}

#[allow(clippy::cast_possible_truncation, reason = "made from a usize")]
fn number(NodeId(bytes): NodeId) -> usize {
    let (number, _) = bytes.split_first_chunk().expect("32 bytes");
    u64::from_le_bytes(*number) as usize
}
