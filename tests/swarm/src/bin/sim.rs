//! Simulates swarms of many sizes and prints how long the last node takes and what the origin sends.

use std::time::Instant;

use clap::Parser;
use swarm::{Scene, run};

/// Simulates a swarm: one blob, all nodes at once.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many nodes; several runs where several are given.
    #[arg(long, default_values_t = [1, 16, 64, 1200])]
    nodes: Vec<usize>,
    /// Pieces.
    #[arg(long, default_value_t = 200)]
    pieces: u32,
    /// KiB of a piece.
    #[arg(long, default_value_t = 1024)]
    piece: u32,
    /// Rate of a node's link, each way, in Mbit/s.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// The origin's rate in links of a node.
    #[arg(long, default_value_t = 20.0)]
    origin: f64,
    /// Nodes in a hundred with a tenth of the rate upwards.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// Nodes in a hundred that die half-way.
    #[arg(long, default_value_t = 0)]
    killed: usize,
    /// Nodes want only so many pieces, in one order that all know.
    #[arg(long, default_value_t = 0)]
    lazy: u32,
    /// Decides what is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[allow(clippy::print_stdout, reason = "the table is what the command is for")]
fn main() {
    let arguments = Arguments::parse();
    println!(
        "{:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8} {:>10} {:>6}",
        "nodes", "p50 s", "p99 s", "last s", "/bound", "copies", "origin s", "messages", "real s"
    );
    for nodes in &arguments.nodes {
        let mut order: Vec<u32> = (0..arguments.lazy).map(|place| place * 7919 % arguments.pieces).collect();
        order.dedup();
        let scene = Scene {
            nodes: *nodes,
            pieces: arguments.pieces,
            piece_size: arguments.piece << 10,
            rate: arguments.rate * 125e3,
            origin_rate: arguments.rate * 125e3 * arguments.origin,
            slow: nodes * arguments.slow / 100,
            killed: nodes * arguments.killed / 100,
            order,
            seed: arguments.seed,
            ..Scene::default()
        };
        let began = Instant::now();
        let outcome = run(&scene);
        let wanted = if scene.order.is_empty() { scene.pieces as usize } else { scene.order.len() };
        #[allow(clippy::cast_precision_loss, reason = "counts are small")]
        let bound = {
            let line = wanted as f64 * f64::from(scene.piece_size);
            let n = *nodes as f64;
            (line / scene.rate)
                .max(line / scene.origin_rate)
                .max(n * line / (scene.origin_rate + n * scene.rate))
        };
        println!(
            "{nodes:>7} {:>8.2} {:>8.2} {:>8.2} {:>8.3} {:>7.3} {:>8.2} {:>10} {:>6.1}{}",
            outcome.quantile(0.5),
            outcome.quantile(0.99),
            outcome.last(),
            outcome.last() / bound,
            outcome.origin_copies(),
            outcome.origin_done,
            outcome.messages,
            began.elapsed().as_secs_f64(),
            if outcome.unfinished > 0 {
                format!("  {} UNFINISHED", outcome.unfinished)
            } else {
                String::new()
            },
        );
    }
}
