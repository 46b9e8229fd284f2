//! Logging: one line per event on stderr, as text or JSON.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

/// Flags that every binary has.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Least important level to log; `RUST_LOG` has the last word
    #[arg(long, short = 'l', value_enum, default_value = "info", ignore_case = true, global = true)]
    pub log_level: LogLevel,
    /// Form of log lines
    #[arg(long, value_enum, default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// Levels of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// Also what may soon.
    #[value(alias = "warning")]
    Warn,
    /// Also the life of the program.
    Info,
    /// Also each decision.
    Debug,
    /// Everything.
    Trace,
}

/// Forms of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. Called once, first thing in `main`.
pub fn start(args: &LogArgs) {
    let level = match args.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let layer = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests of one process, keeps the first logger.
    let started = match args.log_format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => layer.json().try_init(),
    };
    drop(started);
}
