//! The piece network in network namespaces, beside its simulation: how long the last node takes, what the origin sends.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use swarm::Scene;

use crate::{process, rivals};
use integration_tests::{
    bench::report::{Gate, Row, median},
    command::wait_for,
    network::limit_upload,
    p2pd::P2pd,
    swarm_bed::{Rates, SwarmBed},
};

/// What is measured: the 200 MB test of the Dragonfly v1 paper, scaled down: as many pieces, slower links.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Of each measurement.
    pub(super) rounds: usize,
    /// Of each node's link, in bits per second.
    pub(super) rate: u64,
    /// The registry's link, in those of a node.
    pub(super) origin: u64,
    /// Of the blob.
    pub(super) pieces: usize,
    /// Bytes of each.
    pub(super) piece: u32,
    /// Whether nobody lists them.
    pub(super) plain: bool,
    /// Whether the largest bed is measured with nodes in trouble too,
    pub(super) trouble: bool,
    /// and beside plain HTTP and BitTorrent.
    pub(super) rivals: bool,
}

/// What a lazy start reads of an image: so many pieces of so many,
const LAZY: (usize, usize) = (100, 1600);
/// and where each is waited for before the next is asked for.
const ONE_BY_ONE: (usize, usize) = (30, 500);

/// Measures one bed after another.
pub(super) fn measure(sizes: &[usize], shape: Shape) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (at, nodes) in sizes.iter().enumerate() {
        let (nodes, last) = (*nodes, at + 1 == sizes.len());
        // Each bed has its own thread, which is its hub.
        let measured = thread::spawn(move || Bench::start(nodes, shape)?.run(last)).join();
        rows.extend(measured.map_err(|_| anyhow::anyhow!("the bed of {nodes} nodes panicked"))??);
    }
    Ok(rows)
}

/// What is left of a link for what TCP carries, where it is busy both ways: of 1514 bytes on an Ethernet 1448 are payload, and
/// every two such frames are acknowledged by one of 66 bytes on the way back.
const GOODPUT: f64 = 1448.0 / (1514.0 + 66.0 / 2.0);

struct Bench {
    bed: SwarmBed,
    pids: Vec<Pid>,
    nodes: usize,
    shape: Shape,
    seed: u64,
    rows: Vec<Row>,
}

/// One blob on its way to all nodes.
struct Run {
    /// When each node had it, ascending; those that were to be slow or killed left out.
    finished: Vec<Duration>,
    /// Copies that left the origin, in blobs or what was wanted of one.
    copies: f64,
}

impl Run {
    fn last(&self) -> Duration {
        self.quantile(100)
    }

    fn quantile(&self, percent: usize) -> Duration {
        let last = self.finished.len().saturating_sub(1);
        self.finished.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }
}

/// What befalls nodes, the last ones of the bed, and what all read.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    slow: usize,
    killed: usize,
    reads: Reads,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reads {
    #[default]
    All,
    /// The first pieces, in an order that p2pd is told.
    Foretold,
    /// The same pieces, each asked for when the one before is there.
    Unforeseen,
}

impl Bench {
    fn start(nodes: usize, shape: Shape) -> Result<Self> {
        let rates = Rates { node: shape.rate, origin: shape.rate * shape.origin };
        let bed = SwarmBed::start_with(nodes, rates, &["--piece-size".into(), shape.piece.to_string()])?;
        let pids = bed.on_all(|node| Ok(node.pid()))?;
        Ok(Self { bed, pids, nodes, shape, seed: 0, rows: Vec::new() })
    }

    fn run(mut self, last: bool) -> Result<Vec<Row>> {
        let shape = self.shape;
        let idle = process::own_memory(&self.pids)?;
        self.add(Row::share("memory of an idle p2pd", 1.0, idle, "MB"));
        let one = seconds(self.spread(1, Trouble::default())?.last());
        let line = seconds(self.line_time());
        self.add(Row::share("T(1) of the line's time", line, one, "s").gate(Gate::AtMost(1.1)));
        let (p99, all) = self.all_at_once(one)?;
        if last && shape.rivals {
            self.rivals(one, all)?;
        }
        if last && shape.trouble {
            self.lazy(Reads::Foretold, "lazy", (Some(Gate::AtMost(2.0)), Some(Gate::AtMost(1.1))))?;
            self.lazy(Reads::Unforeseen, "lazy, not foretold", (None, None))?;
            self.troubles(p99, all)?;
        }
        Ok(self.rows)
    }

    /// Takes up a row, and tells of it at once: all of them take an hour.
    #[allow(clippy::print_stderr, reason = "progress")]
    fn add(&mut self, row: Row) {
        let Shape { origin, plain, .. } = self.shape;
        let kind = if plain { ", plain" } else { "" };
        let what = format!("{} nodes, origin {origin}x{kind}: {}", self.nodes, row.what);
        eprintln!("{what}: {:.3} {}, {:.2}", row.ours, row.unit, row.ratio);
        self.rows.push(Row { what, ..row });
    }

    /// All nodes want a blob; gives the seconds of the 99th of a hundred, and of the last.
    fn all_at_once(&mut self, one: f64) -> Result<(f64, f64)> {
        let Shape { rounds, pieces, piece, .. } = self.shape;
        let cpu = process::cpu_time(&self.pids)?;
        let mut runs = self.rounds(Trouble::default())?;
        let cpu = seconds(process::cpu_time(&self.pids)?.saturating_sub(cpu));
        let copies = runs.iter().map(|run| run.copies).fold(0.0, f64::max);
        runs.sort_by_key(Run::last);
        let middle = &runs[runs.len() / 2];
        let last = seconds(middle.last());
        self.add(Row::share("last node of T(1)", one, last, "s").gate(Gate::AtMost(1.2)));
        self.add(Row::share("median node of T(1)", one, seconds(middle.quantile(50)), "s"));
        self.add(Row::share("copies from the origin", 1.0, copies, "").gate(Gate::AtMost(1.05)));
        self.add(Row::share("each for itself, by the line", self.each_for_itself(), last, "s"));
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let gigabytes = (rounds * self.nodes * pieces * piece as usize) as f64 / 1e9;
        self.add(Row::share("CPU seconds for a GB to a node", 1.0, cpu / gigabytes, "s"));
        let scene = self.scene();
        for (what, other) in
            [("simulated", swarm::run(&scene).last()), ("in process", swarm::in_process(&scene)?.last)]
        {
            let row = Row::share(format!("last node of the one {what}"), other, last, "s");
            self.add(row.gate(Gate::Within(0.1)));
        }
        Ok((seconds(middle.quantile(99)), last))
    }

    /// Ours beside what else brings a blob to many.
    fn rivals(&mut self, one: f64, ours: f64) -> Result<()> {
        let Shape { pieces, piece, rate, origin, .. } = self.shape;
        self.seed += 1;
        let blob = self.bed.publish(self.seed, pieces, piece)?;
        let http = seconds(rivals::plain_http(&self.bed, &blob)?);
        self.add(Row::share("plain HTTP, of T(1)", one, http, "s"));
        self.add(Row::share("last node of plain HTTP's", http, ours, "s"));
        if rivals::Torrent::is_there() {
            let torrent = rivals::Torrent::seed(&blob, piece, rate * origin / 8)?;
            let torrent = seconds(torrent.leech(&self.bed)?);
            self.add(Row::share("BitTorrent (aria2), of T(1)", one, torrent, "s"));
            self.add(Row::share("last node of BitTorrent's", torrent, ours, "s"));
        }
        Ok(())
    }

    fn lazy(&mut self, reads: Reads, what: &str, gates: (Option<Gate>, Option<Gate>)) -> Result<()> {
        let lazy = Trouble { reads, ..Trouble::default() };
        let one = seconds(self.spread(1, lazy)?.last());
        let all = self.spread(self.nodes, lazy)?;
        let last = Row::share(format!("{what}, last of one alone"), one, seconds(all.last()), "s");
        self.add(Row { gate: gates.0, ..last });
        let copies = Row::share(format!("{what}, copies from the origin"), 1.0, all.copies, "");
        self.add(Row { gate: gates.1, ..copies });
        Ok(())
    }

    fn troubles(&mut self, p99: f64, last: f64) -> Result<()> {
        let slow = Trouble { slow: self.nodes.div_ceil(20), ..Trouble::default() };
        let runs = self.rounds(slow)?;
        let with = seconds(median(runs.iter().map(|run| run.quantile(99)).collect()));
        self.add(Row::share("p99 with 5 % slow nodes", p99, with, "s").gate(Gate::AtMost(1.1)));
        let killed = Trouble { killed: self.nodes.div_ceil(10), ..Trouble::default() };
        let runs = self.rounds(killed)?;
        let with = seconds(median(runs.iter().map(Run::last).collect()));
        self.add(Row::share("last with 10 % killed half-way", last, with, "s").gate(Gate::AtMost(1.15)));
        Ok(())
    }

    fn rounds(&mut self, trouble: Trouble) -> Result<Vec<Run>> {
        (0..self.shape.rounds).map(|_| self.spread(self.nodes, trouble)).collect()
    }

    /// Brings a new blob to the first `readers` nodes.
    fn spread(&mut self, readers: usize, trouble: Trouble) -> Result<Run> {
        self.seed += 1;
        let Shape { pieces, piece, plain, rate, .. } = self.shape;
        let (wanted, pieces) = match trouble.reads {
            Reads::All => (pieces, pieces),
            Reads::Foretold => LAZY,
            Reads::Unforeseen => ONE_BY_ONE,
        };
        let blob = self.bed.publish(self.seed, pieces, piece)?;
        let len = blob.bytes.len().min(wanted * piece as usize);
        let healthy = readers - trouble.slow - trouble.killed;
        self.limit(healthy..healthy + trouble.slow, rate / 10)?;
        let before = self.bed.relay.received();
        let read = blob.clone();
        let work = move |node: &mut P2pd| {
            let began = Instant::now();
            if plain {
                read.pull(node)?;
                return Ok(began.elapsed());
            }
            read.introduce(node)?;
            match trouble.reads {
                Reads::All => read.read(node, 0..len, "background")?,
                Reads::Foretold => read.read(node, 0..len, "trace")?,
                Reads::Unforeseen => {
                    let starts = (0..len).step_by(piece as usize);
                    starts
                        .map(|at| at..len.min(at + piece as usize))
                        .try_for_each(|range| read.read(node, range, "demand"))?;
                }
            }
            Ok(began.elapsed())
        };
        let reads: Vec<_> = self.bed.nodes[..readers].iter().map(|node| node.begin(work.clone())).collect();
        if trouble.killed > 0 {
            let (began, line) = (Instant::now(), self.line_time());
            wait_for("half of the time", line, || Ok((began.elapsed() > line / 2).then_some(())))?;
            for pid in &self.pids[readers - trouble.killed..readers] {
                kill(*pid, Signal::SIGKILL)?;
            }
        }
        let mut finished = Vec::new();
        for (at, read) in reads.into_iter().enumerate() {
            let outcome = read.wait();
            if at < healthy {
                finished.push(outcome.with_context(|| format!("node {at}"))?);
            }
        }
        self.limit(healthy..healthy + trouble.slow, rate)?;
        self.restart(readers - trouble.killed..readers)?;
        finished.sort();
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let copies = (self.bed.relay.received() - before) as f64 / len as f64;
        Ok(Run { finished, copies })
    }

    /// Brings nodes back that were killed.
    fn restart(&mut self, killed: Range<usize>) -> Result<()> {
        let nodes = self.nodes;
        for at in killed.clone() {
            self.pids[at] = self.bed.nodes[at].call(|node| node.restart().map(|()| node.pid()))?;
        }
        if killed.is_empty() { Ok(()) } else { self.bed.on_all(move |node| node.sees(nodes)).map(drop) }
    }

    /// Changes how fast some nodes send.
    fn limit(&self, nodes: Range<usize>, rate: u64) -> Result<()> {
        self.bed.nodes[nodes].iter().try_for_each(|node| node.call(move |_| limit_upload(rate)))
    }

    /// The same without sockets: links are as fast as what TCP leaves of these.
    #[allow(clippy::cast_precision_loss, reason = "rates are small")]
    fn scene(&self) -> Scene {
        let Shape { rate, origin, pieces, piece, .. } = self.shape;
        let rate = rate as f64 / 8.0 * GOODPUT;
        Scene {
            nodes: self.nodes,
            pieces: u32::try_from(pieces).expect("few"),
            piece_size: piece,
            rate,
            origin_rate: rate * origin as f64,
            ..Scene::default()
        }
    }

    /// How long a link takes for a blob.
    fn line_time(&self) -> Duration {
        let Shape { rate, pieces, piece, .. } = self.shape;
        Duration::from_micros(pieces as u64 * u64::from(piece) * 8 * 1_000_000 / rate)
    }

    /// Seconds that all nodes need where each asks the registry.
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    fn each_for_itself(&self) -> f64 {
        seconds(self.line_time()) * (self.nodes as f64 / self.shape.origin as f64).max(1.0)
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
