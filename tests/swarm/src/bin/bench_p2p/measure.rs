//! The piece network in network namespaces, beside its simulation: how long the last node takes, what the origin sends.

use std::{
    fs,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use swarm::Scene;

use crate::{memory, rivals};
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

/// What a lazy start reads of an image: so many pieces of so many.
const LAZY: (usize, usize) = (100, 1600);

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
        Ok(Self { bed, pids, nodes, shape, seed: 0 })
    }

    fn run(mut self, last: bool) -> Result<Vec<Row>> {
        let Shape { rounds, pieces, piece, trouble, rivals, .. } = self.shape;
        let nodes = self.nodes;
        let name = self.names();
        let line = seconds(self.line_time());
        let idle = memory::own(&self.pids)?;
        let one = seconds(median_of(rounds, || Ok(self.spread(1, Trouble::default())?.last()))?);
        let cpu = self.cpu_time()?;
        let mut runs = self.rounds(rounds, Trouble::default())?;
        let cpu = seconds(self.cpu_time()?.saturating_sub(cpu));
        let copies = runs.iter().map(|run| run.copies).fold(0.0, f64::max);
        runs.sort_by_key(Run::last);
        let middle = &runs[runs.len() / 2];
        let scene = self.scene();
        let (simulated, in_process) = (swarm::run(&scene), swarm::in_process(&scene)?);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let gigabytes = (rounds * nodes * pieces * piece as usize) as f64 / 1e9;
        let mut rows = vec![
            Row::share(name("T(1) of the line's time"), line, one, "s").gate(Gate::AtMost(1.1)),
            Row::share(name("last node of T(1)"), one, seconds(middle.last()), "s").gate(Gate::AtMost(1.2)),
            Row::share(name("median node of T(1)"), one, seconds(middle.quantile(50)), "s"),
            Row::share(name("last node of the simulated"), simulated.last(), seconds(middle.last()), "s")
                .gate(Gate::Within(0.1)),
            Row::share(name("last node of that in process"), in_process.last, seconds(middle.last()), "s")
                .gate(Gate::Within(0.1)),
            Row::share(name("copies from the origin"), 1.0, copies, "").gate(Gate::AtMost(1.05)),
            Row::share(
                name("each for itself, by the line"),
                self.each_for_itself(),
                seconds(middle.last()),
                "s",
            ),
            Row::share(name("CPU seconds for a GB to a node"), 1.0, cpu / gigabytes, "s"),
            Row::share(name("memory of an idle p2pd"), 1.0, idle, "MB"),
        ];
        if last && rivals {
            rows.extend(self.rivals(one, middle.last())?);
        }
        if last && trouble {
            rows.extend(self.troubles(middle.quantile(99), middle.last())?);
        }
        Ok(rows)
    }

    /// Names of rows.
    fn names(&self) -> impl Fn(&str) -> String + use<> {
        let (nodes, Shape { origin, plain, .. }) = (self.nodes, self.shape);
        let kind = if plain { ", plain" } else { "" };
        move |what| format!("{nodes} nodes, origin {origin}x{kind}: {what}")
    }

    /// Ours beside what else brings a blob to many.
    fn rivals(&mut self, one: f64, ours: Duration) -> Result<Vec<Row>> {
        let Shape { pieces, piece, rate, origin, .. } = self.shape;
        let (name, ours) = (self.names(), seconds(ours));
        self.seed += 1;
        let blob = self.bed.publish(self.seed, pieces, piece)?;
        let http = seconds(rivals::plain_http(&self.bed, &blob)?);
        let mut rows = vec![
            Row::share(name("plain HTTP, of T(1)"), one, http, "s"),
            Row::share(name("last node of plain HTTP's"), http, ours, "s"),
        ];
        if rivals::Torrent::is_there() {
            let torrent = rivals::Torrent::seed(&blob, piece, rate * origin / 8)?;
            let torrent = seconds(torrent.leech(&self.bed)?);
            rows.push(Row::share(name("BitTorrent (aria2), of T(1)"), one, torrent, "s"));
            rows.push(Row::share(name("last node of BitTorrent's"), torrent, ours, "s"));
        }
        Ok(rows)
    }

    fn lazy(&mut self, reads: Reads, what: &str) -> Result<[Row; 2]> {
        let (rounds, name) = (self.shape.rounds, self.names());
        let lazy = Trouble { reads, ..Trouble::default() };
        let one = median_of(rounds, || Ok(self.spread(1, lazy)?.last()))?;
        let mut runs = self.rounds(rounds, lazy)?;
        runs.sort_by_key(Run::last);
        let middle = &runs[runs.len() / 2];
        let copies = runs.iter().map(|run| run.copies).fold(0.0, f64::max);
        Ok([
            Row::share(
                name(&format!("{what}, last of one alone")),
                seconds(one),
                seconds(middle.last()),
                "s",
            ),
            Row::share(name(&format!("{what}, copies from the origin")), 1.0, copies, ""),
        ])
    }

    fn troubles(&mut self, p99: Duration, last: Duration) -> Result<Vec<Row>> {
        let (nodes, rounds) = (self.nodes, self.shape.rounds);
        let name = self.names();
        let [time, copies] = self.lazy(Reads::Foretold, "lazy")?;
        let mut rows = vec![time.gate(Gate::AtMost(2.0)), copies.gate(Gate::AtMost(1.1))];
        rows.extend(self.lazy(Reads::Unforeseen, "lazy, not foretold")?);
        let slow = Trouble { slow: nodes.div_ceil(20), ..Trouble::default() };
        let runs = self.rounds(rounds, slow)?;
        let with = median(runs.iter().map(|run| run.quantile(99)).collect());
        rows.push(
            Row::share(name("p99 with 5 % slow nodes"), seconds(p99), seconds(with), "s")
                .gate(Gate::AtMost(1.1)),
        );
        // These do not come back: the last of all.
        let killed = Trouble { killed: nodes.div_ceil(10), ..Trouble::default() };
        let run = self.spread(nodes, killed)?;
        rows.push(
            Row::share(name("last with 10 % killed half-way"), seconds(last), seconds(run.last()), "s")
                .gate(Gate::AtMost(1.15)),
        );
        Ok(rows)
    }

    fn rounds(&mut self, rounds: usize, trouble: Trouble) -> Result<Vec<Run>> {
        (0..rounds).map(|_| self.spread(self.nodes, trouble)).collect()
    }

    /// Brings a new blob to the first `readers` nodes.
    fn spread(&mut self, readers: usize, trouble: Trouble) -> Result<Run> {
        self.seed += 1;
        let Shape { pieces, piece, plain, rate, .. } = self.shape;
        let (wanted, pieces) = if trouble.reads == Reads::All { (pieces, pieces) } else { LAZY };
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
        finished.sort();
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let copies = (self.bed.relay.received() - before) as f64 / len as f64;
        Ok(Run { finished, copies })
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

    /// What the processes have used so far.
    fn cpu_time(&self) -> Result<Duration> {
        let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.context("a clock")?.unsigned_abs();
        let mut ticks = 0;
        for pid in &self.pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // proc(5): utime and stime are the 14th and 15th field; the second ends with a bracket.
            let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
            let used = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
            ticks += used.sum::<Result<u64, _>>()?;
        }
        Ok(Duration::from_millis(ticks * 1000 / ticks_per_second))
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn median_of(rounds: usize, measure: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let times: Result<Vec<_>> = std::iter::repeat_with(measure).take(rounds).collect();
    Ok(median(times?))
}
