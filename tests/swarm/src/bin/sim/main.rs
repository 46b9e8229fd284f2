//! Simulates swarms: our policy beside those of others, or runs of it of many sizes.

mod runs;
mod table;

use clap::Parser;

/// Simulate swarms of nodes that all begin to fetch one blob at once
///
/// Without --nodes: a table of rules by which nodes choose whom to give pieces to, as a model in slots, and of our
/// policy, simulated with the daemon's own code, in the same units. Rows that are named after a product model its
/// partner rule, not the product.
///
/// With --nodes: our policy alone, in seconds, for swarms of these sizes.
#[derive(Debug, Parser)]
#[command(
    name = "sim",
    after_help = "Examples:
  cargo xtask sim
  cargo xtask sim --large --json > table.json
  cargo xtask sim --nodes 1,64,1200,10000
  cargo xtask sim --nodes 1,64 --piece 256 --rate 5 --slow 5
  cargo xtask sim --nodes 64 --pieces 1600 --lazy 100"
)]
struct Cli {
    /// How many nodes; several runs where several are given
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<usize>,
    /// Add 10,000 nodes with 800 pieces to the table: a quarter of an hour and some GB of memory
    #[arg(long, conflicts_with = "nodes")]
    large: bool,
    /// Leave 10,000 nodes out of the table: half a minute
    #[arg(long, conflicts_with_all = ["nodes", "large"])]
    small: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Decides what is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    shape: runs::Shape,
}

fn main() {
    let cli = Cli::parse();
    if cli.nodes.is_empty() {
        let sizes = match (cli.small, cli.large) {
            (true, _) => &table::SIZES[..3],
            (_, false) => &table::SIZES[..4],
            (_, true) => &table::SIZES[..],
        };
        table::print(sizes, cli.seed, cli.json);
    } else {
        runs::print(&cli.nodes, &cli.shape, cli.seed, cli.json);
    }
}
