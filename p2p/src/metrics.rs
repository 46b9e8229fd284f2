//! What a node has done since it started, as counters that only grow.
//!
//! The engine, the local calls and the mirror count here; [`Metrics::text`] says all of it in the OpenMetrics text
//! format (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{Priority, peer::Hold};

/// Upper ends of the classes of waits, in seconds.
const WAITS: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Where a piece comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Another node.
    Peer,
    /// The registry.
    Origin,
}

/// What becomes of a piece that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is right, and kept.
    Kept,
    /// It was here already, or nobody wanted it any more.
    Unwanted,
    /// It is not what it must be.
    Wrong,
}

/// Who is given way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// A process of this node that waits for a piece.
    Reader,
    /// One of another node, to which a piece is sent.
    Upload,
    /// This node's own work.
    Host,
}

/// Who gave what a caller of the mirror got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Giver {
    /// This network.
    Network,
    /// The registry, through this node.
    Registry,
    /// Nobody: it was refused here.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Piece {
    from: &'static str,
    fate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Read {
    priority: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPriority {
    priority: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Yield {
    to: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pull {
    by: &'static str,
}

/// What a node has at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    /// Members that it sees, itself among them.
    pub members: usize,
    /// Blobs that programs read.
    pub blobs: usize,
    /// Bytes of pieces on disk.
    pub stored: u64,
    /// Bytes that they may be.
    pub budget: u64,
    /// Bytes of the budget that other caches take.
    pub beside: u64,
}

/// Counters of a node. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    pieces: Family<Piece, Counter>,
    received: Family<Piece, Counter>,
    sent_pieces: Counter,
    sent: Counter,
    busy: Counter,
    origin_failures: Counter,
    strikes: Counter,
    reads: Family<Read, Counter>,
    read: Family<ByPriority, Counter>,
    waits: Family<ByPriority, Histogram>,
    pulls: Family<Pull, Counter>,
    yields: Family<Yield, Counter>,
    held_back: Gauge,
    members: Gauge,
    blobs: Gauge,
    stored: Gauge,
    budget: Gauge,
    beside: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("shoal_p2p"),
            pieces: Family::default(),
            received: Family::default(),
            sent_pieces: Counter::default(),
            sent: Counter::default(),
            busy: Counter::default(),
            origin_failures: Counter::default(),
            strikes: Counter::default(),
            reads: Family::default(),
            read: Family::default(),
            waits: Family::new_with_constructor(|| Histogram::new(WAITS)),
            pulls: Family::default(),
            yields: Family::default(),
            held_back: Gauge::default(),
            members: Gauge::default(),
            blobs: Gauge::default(),
            stored: Gauge::default(),
            budget: Gauge::default(),
            beside: Gauge::default(),
        };
        inner.name();
        Self(Arc::new(inner))
    }
}

impl Inner {
    /// Gives everything its name.
    fn name(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "pieces",
            "Pieces that came, by where from and what became of them",
            self.pieces.clone(),
        );
        registry.register("received_bytes", "Their bytes", self.received.clone());
        registry.register("sent_pieces", "Pieces given to other nodes", self.sent_pieces.clone());
        registry.register("sent_bytes", "Their bytes", self.sent.clone());
        registry.register("busy_answers", "Requests of other nodes that were put off", self.busy.clone());
        registry.register(
            "origin_failures",
            "Pieces that a registry did not give",
            self.origin_failures.clone(),
        );
        registry.register(
            "strikes",
            "Other nodes caught with a wrong piece or a false word for one",
            self.strikes.clone(),
        );
        registry.register("reads", "Reads of local programs, by priority and answer", self.reads.clone());
        registry.register("read_bytes", "Bytes that local programs got by them", self.read.clone());
        registry.register("read_wait_seconds", "How long they took", self.waits.clone());
        registry.register(
            "mirror_answers",
            "Answers of the mirror, by who gave the bytes",
            self.pulls.clone(),
        );
        registry.register(
            "yields",
            "Times that what nobody waits for began to make room, or more of it, by for whom",
            self.yields.clone(),
        );
        registry.register("held_back", "How often its rate is halved now", self.held_back.clone());
        registry.register("members", "Members that this node sees, itself among them", self.members.clone());
        registry.register("blobs", "Blobs that local programs read", self.blobs.clone());
        registry.register("stored_bytes", "Bytes of pieces on disk", self.stored.clone());
        registry.register("budget_bytes", "Most bytes of pieces on disk", self.budget.clone());
        registry.register("beside_bytes", "Bytes of the budget that other caches take", self.beside.clone());
    }
}

impl Metrics {
    /// A piece came.
    pub fn piece(&self, from: From, fate: Fate, bytes: u64) {
        let from = match from {
            From::Peer => "peer",
            From::Origin => "origin",
        };
        let fate = match fate {
            Fate::Kept => "kept",
            Fate::Unwanted => "unwanted",
            Fate::Wrong => "wrong",
        };
        let piece = Piece { from, fate };
        self.0.pieces.get_or_create(&piece).inc();
        self.0.received.get_or_create(&piece).inc_by(bytes);
    }

    /// A piece has been given to another node.
    pub fn sent(&self, bytes: u64) {
        self.0.sent_pieces.inc();
        self.0.sent.inc_by(bytes);
    }

    /// A node was told to come again.
    pub fn busy(&self) {
        self.0.busy.inc();
    }

    /// A registry did not give a piece.
    pub fn origin_failed(&self) {
        self.0.origin_failures.inc();
    }

    /// A node was caught.
    pub fn strike(&self) {
        self.0.strikes.inc();
    }

    /// A read of a local program has ended so, after so many seconds.
    pub fn read(&self, priority: Priority, status: u16, bytes: u64, seconds: f64) {
        let priority = priority.name();
        self.0.reads.get_or_create(&Read { priority, status }).inc();
        self.0.read.get_or_create(&ByPriority { priority }).inc_by(bytes);
        self.0.waits.get_or_create(&ByPriority { priority }).observe(seconds);
    }

    /// What nobody waits for makes room from now on.
    pub fn yields(&self, to: For) {
        let to = match to {
            For::Reader => "reader",
            For::Upload => "upload",
            For::Host => "host",
        };
        self.0.yields.get_or_create(&Yield { to }).inc();
    }

    /// It is held back so far.
    pub fn held_back(&self, hold: Hold) {
        self.0.held_back.set(hold.halvings().into());
    }

    /// The mirror has begun to answer.
    pub fn pull(&self, by: Giver) {
        let by = match by {
            Giver::Network => "network",
            Giver::Registry => "registry",
            Giver::Nobody => "nobody",
        };
        self.0.pulls.get_or_create(&Pull { by }).inc();
    }

    /// All of it, and what is there now, in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self, levels: &Levels) -> String {
        let set = |gauge: &Gauge, level: u64| gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        set(&self.0.members, levels.members as u64);
        set(&self.0.blobs, levels.blobs as u64);
        set(&self.0.stored, levels.stored);
        set(&self.0.budget, levels.budget);
        set(&self.0.beside, levels.beside);
        let mut page = String::new();
        // Writing to a string does not fail.
        text::encode(&mut page, &self.0.registry).ok();
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_said_by_name() {
        let metrics = Metrics::default();
        metrics.piece(From::Peer, Fate::Kept, 1000);
        metrics.piece(From::Peer, Fate::Kept, 24);
        metrics.piece(From::Origin, Fate::Wrong, 7);
        metrics.clone().sent(9);
        metrics.read(Priority::ReadAhead, 206, 5, 0.03);
        metrics.yields(For::Host);
        metrics.held_back(Hold::MOST);
        let page = metrics.text(&Levels { members: 3, blobs: 2, stored: 1031, budget: 1 << 40, beside: 12 });
        for line in [
            "shoal_p2p_pieces_total{from=\"peer\",fate=\"kept\"} 2",
            "shoal_p2p_received_bytes_total{from=\"peer\",fate=\"kept\"} 1024",
            "shoal_p2p_received_bytes_total{from=\"origin\",fate=\"wrong\"} 7",
            "shoal_p2p_sent_bytes_total 9",
            "shoal_p2p_reads_total{priority=\"read-ahead\",status=\"206\"} 1",
            "shoal_p2p_read_wait_seconds_bucket{le=\"0.05\",priority=\"read-ahead\"} 1",
            "shoal_p2p_yields_total{to=\"host\"} 1",
            "shoal_p2p_held_back 3",
            "shoal_p2p_members 3",
            "shoal_p2p_stored_bytes 1031",
            "shoal_p2p_beside_bytes 12",
            "# EOF",
        ] {
            assert!(page.lines().any(|said| said == line), "{line} is not in\n{page}");
        }
    }
}
