//! Developer tasks: `cargo xtask check` while working, `cargo xtask ci` before handing in.

mod ci;
mod deny;
mod fuzz;
mod limits;
mod step;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The quick loop: format, limits, lint, and the tests beside the code
    Check,
    /// Everything a change must pass; as root
    Ci,
    /// Sizes of files, and who may depend on whom
    Limits,
    /// Licences, sources and banned crates
    Deny,
    /// The end-to-end tests alone; as root
    E2e {
        /// Name of one test file
        test: Option<String>,
    },
    /// Runs the fuzz targets, one after another
    Fuzz {
        /// How long each
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
    /// Measures; see `cargo xtask bench --help`
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Simulates swarms of nodes; see `cargo xtask sim --help`
    #[command(disable_help_flag = true)]
    Sim {
        /// Which swarms
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Check => ci::check(),
        Task::Ci => ci::all(),
        Task::Limits => limits::check(),
        Task::Deny => deny::check(),
        Task::E2e { test } => ci::end_to_end(test.as_deref()),
        Task::Fuzz { seconds } => fuzz::run_all(seconds),
        Task::Bench { args } => ci::bench(&args),
        Task::Sim { args } => ci::sim(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
