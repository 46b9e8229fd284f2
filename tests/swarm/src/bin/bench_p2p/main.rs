//! Measures the piece network in network namespaces beside its simulation; all numbers of a table are of one run.

mod measure;
mod process;
mod rivals;
mod unlimited;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use integration_tests::bench::report;
use measure::Shape;

/// Measure the piece network: real nodes in network namespaces, and the simulator beside them
#[derive(Debug, Parser)]
#[command(
    name = "bench p2p",
    after_help = "Examples:
  cargo xtask bench p2p
  cargo xtask bench p2p --nodes 16 --rounds 1 --origin 1"
)]
struct Cli {
    /// Nodes; the last number is the one that is also measured with slow and killed nodes
    #[arg(long, value_delimiter = ',', default_values_t = [16, 32, 64])]
    nodes: Vec<usize>,
    /// The registry's rate in links of a node
    #[arg(long, default_value_t = 20)]
    origin: u64,
    /// Rate of a node's link, each way, in Mbit/s: two cores carry 64 nodes at 5
    #[arg(long, default_value_t = 5)]
    rate: u64,
    /// Pieces of the blob
    #[arg(long, default_value_t = 200)]
    pieces: usize,
    /// KiB of a piece
    #[arg(long, default_value_t = 256)]
    piece: u32,
    /// Nobody lists its pieces: it is pulled through the nodes' mirrors
    #[arg(long)]
    plain: bool,
    /// Leave the lazy start, slow and killed nodes out
    #[arg(long)]
    short: bool,
    /// The same by plain HTTP and by BitTorrent too (Debian's aria2, mktorrent and opentracker), with the last number of nodes,
    /// the memory of a node that knows a thousand blobs, and the CPU of two nodes whose links have no limit
    #[arg(long)]
    beside: bool,
    /// Rounds of each measurement; with 64 nodes one takes ten minutes and up to 13 GB of disk, which goes at the end
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Directory for the JSON file
    #[arg(long, default_value = "target")]
    output: PathBuf,
}

fn main() -> ExitCode {
    service::exit::report("bench p2p", run(&Cli::parse()))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    std::fs::create_dir_all(&cli.output)?;
    let shape = Shape {
        rounds: cli.rounds,
        rate: cli.rate * 1_000_000,
        origin: cli.origin,
        pieces: cli.pieces,
        piece: cli.piece << 10,
        plain: cli.plain,
        trouble: !cli.short && !cli.plain,
        rivals: cli.beside,
    };
    let mut rows = measure::measure(&cli.nodes, shape)?;
    if cli.beside {
        rows.extend(unlimited::measure()?);
    }
    report::show("p2p", &rows, &cli.output)
}
