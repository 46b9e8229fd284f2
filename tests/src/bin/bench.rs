//! Measures Shoal against what it replaces; all numbers of a table are of one run.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use integration_tests::bench::{cold, convert, report, warm};

/// Measure Shoal against overlayfs and zstd, and print the ratios
#[derive(Debug, Parser)]
struct Cli {
    /// What to measure; everything by default
    #[arg(value_enum)]
    what: Vec<What>,
    /// Interleaved rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Directory for the JSON files
    #[arg(long, default_value = "target")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Pull to ready line, behind a slower link
    Cold,
    /// File system speed once data is there
    Warm,
    /// Conversion speed and memory
    Convert,
}

fn main() -> ExitCode {
    service::exit::report("bench", run(Cli::parse()))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let what = if cli.what.is_empty() { What::value_variants().to_vec() } else { cli.what };
    std::fs::create_dir_all(&cli.output)?;
    for what in what {
        let (name, rows) = match what {
            What::Cold => ("cold", cold::measure(cli.rounds)?),
            What::Warm => ("warm", warm::measure(cli.rounds)?),
            What::Convert => ("convert", convert::measure(cli.rounds)?),
        };
        report::show(name, &rows, &cli.output)?;
    }
    Ok(())
}
