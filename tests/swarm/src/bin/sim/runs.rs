//! Our policy alone: how long the last node takes, and what the origin sends.

use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use swarm::{Outcome, Scene, run};

/// What is fetched, and what befalls the nodes.
#[derive(Debug, Args)]
pub(super) struct Shape {
    /// Pieces of the blob
    #[arg(long, requires = "nodes", default_value_t = 200)]
    pieces: u32,
    /// KiB of a piece
    #[arg(long, requires = "nodes", default_value_t = 1024)]
    piece: u32,
    /// Rate of a node's link, each way, in Mbit/s
    #[arg(long, requires = "nodes", default_value_t = 200.0)]
    rate: f64,
    /// The origin's rate in links of a node
    #[arg(long, requires = "nodes", default_value_t = 20.0)]
    origin: f64,
    /// Nodes in a hundred with a tenth of the rate upwards
    #[arg(long, requires = "nodes", default_value_t = 0)]
    slow: usize,
    /// Nodes in a hundred that die half-way
    #[arg(long, requires = "nodes", default_value_t = 0)]
    killed: usize,
    /// Nodes want only so many pieces, in one order that all know
    #[arg(long, requires = "nodes", default_value_t = 0)]
    lazy: u32,
}

impl Shape {
    fn scene(&self, nodes: usize, seed: u64) -> Scene {
        let mut order: Vec<u32> = (0..self.lazy).map(|place| place * 7919 % self.pieces).collect();
        order.dedup();
        Scene {
            nodes,
            pieces: self.pieces,
            piece_size: self.piece << 10,
            rate: self.rate * 125e3,
            origin_rate: self.rate * 125e3 * self.origin,
            slow: nodes * self.slow / 100,
            killed: nodes * self.killed / 100,
            order,
            seed,
            ..Scene::default()
        }
    }
}

#[allow(clippy::print_stdout, reason = "the table is what the command is for")]
pub(super) fn print(sizes: &[usize], shape: &Shape, seed: u64, json: bool) {
    let alone = run(&Scene { slow: 0, killed: 0, ..shape.scene(1, seed) }).last();
    if !json {
        println!(
            "{:>7} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7} {:>8} {:>10} {:>6}",
            "nodes",
            "p50 s",
            "p99 s",
            "last s",
            "/bound",
            "T(N)/T(1)",
            "copies",
            "origin s",
            "messages",
            "real s"
        );
    }
    for nodes in sizes {
        let scene = shape.scene(*nodes, seed);
        let began = Instant::now();
        let outcome = run(&scene);
        let row = row(&scene, &outcome, alone, began.elapsed().as_secs_f64());
        if json {
            println!("{row}");
        } else {
            println!("{}", line(&row));
        }
    }
}

fn row(scene: &Scene, outcome: &Outcome, alone: f64, real: f64) -> Value {
    json!({
        "nodes": scene.nodes,
        "p50_s": outcome.quantile(0.5),
        "p99_s": outcome.quantile(0.99),
        "last_s": outcome.last(),
        "of_bound": outcome.last() / scene.bound(),
        "of_one_node": outcome.last() / alone,
        "origin_copies": outcome.origin_copies(),
        "origin_done_s": outcome.origin_done,
        "messages": outcome.messages,
        "unfinished": outcome.unfinished,
        "real_s": real,
    })
}

fn line(row: &Value) -> String {
    let number = |name: &str| row[name].as_f64().unwrap_or(f64::INFINITY);
    let whole = |name: &str| row[name].as_u64().unwrap_or_default();
    let unfinished = match whole("unfinished") {
        0 => String::new(),
        some => format!("  {some} UNFINISHED"),
    };
    format!(
        "{:>7} {:>8.2} {:>8.2} {:>8.2} {:>8.3} {:>9.3} {:>7.3} {:>8.2} {:>10} {:>6.1}{unfinished}",
        whole("nodes"),
        number("p50_s"),
        number("p99_s"),
        number("last_s"),
        number("of_bound"),
        number("of_one_node"),
        number("origin_copies"),
        number("origin_done_s"),
        whole("messages"),
        number("real_s"),
    )
}
