//! Logging: one line per event on stderr, as text or JSON.

use std::{io::IsTerminal, sync::OnceLock};

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

/// Changes the filter of the running logger.
type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

impl LogLevel {
    /// A level by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        <Self as ValueEnum>::from_str(name, true).ok()
    }

    const fn directive(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts logging. Called once, first thing in `main`.
pub fn start(args: &LogArgs) {
    let level = args.log_level.directive();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let layer = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests of one process, keeps the first logger.
    let started = match args.log_format {
        LogFormat::Text => {
            let layer = layer.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = layer.reload_handle();
            drop(SET_FILTER.set(Box::new(move |filter| handle.reload(filter).is_ok())));
            layer.try_init()
        }
        LogFormat::Json => {
            let layer = layer.json().with_filter_reloading();
            let handle = layer.reload_handle();
            drop(SET_FILTER.set(Box::new(move |filter| handle.reload(filter).is_ok())));
            layer.try_init()
        }
    };
    drop(started);
}

/// Logs from `level` on from now on; `false` where logging has not been started.
pub fn set_level(level: LogLevel) -> bool {
    SET_FILTER.get().is_some_and(|set| set(EnvFilter::new(level.directive())))
}
