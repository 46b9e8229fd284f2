//! Flags of `nydusd`, those of the original among them.

use std::{os::fd::RawFd, path::PathBuf};

use clap::Parser;
use service::{telemetry::LogArgs, version};

const EXAMPLES: &str = "\
Examples:
  Mount one image and serve it until SIGTERM:
    nydusd --mountpoint /mnt --bootstrap image.boot --config nydusd.json --apisock /run/nydusd.sock

  Serve many images, mounted through the API:
    nydusd --mountpoint /mnt --apisock /run/nydusd.sock
    curl --unix-socket /run/nydusd.sock -X POST 'http://d/api/v1/mount?mountpoint=/app' \\
      -d '{\"fs_type\":\"rafs\",\"source\":\"image.boot\",\"config\":\"{...}\"}'";

/// Serves RAFS v6 images by FUSE, fetching their data when it is read.
#[derive(Debug, Parser)]
#[command(name = "nydusd", version = version::LONG, after_help = EXAMPLES)]
pub struct Cli {
    /// What to be; `fuse` where nothing is said
    #[arg(value_parser = parse_mode)]
    pub mode: Option<Mode>,
    /// Directory to mount at
    #[arg(long, short = 'M')]
    pub mountpoint: PathBuf,
    /// Bootstrap file of an image to mount at the root
    #[arg(long, short = 'B')]
    pub bootstrap: Option<PathBuf>,
    /// Configuration of that image: nydusd JSON, version 1 or 2
    #[arg(long, short = 'C')]
    pub config: Option<PathBuf>,
    /// Directory of blobs for that image, instead of the configuration's backend
    #[arg(long, short = 'D')]
    pub localfs_dir: Option<PathBuf>,
    /// Socket of the HTTP API
    #[arg(long, short = 'A')]
    pub apisock: Option<PathBuf>,
    /// Threads that answer the kernel
    #[arg(long, visible_alias = "fuse-threads", short = 'T', default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub thread_num: u16,
    /// Inherited descriptor of /dev/fuse, already mounted at the mountpoint; it is not unmounted at the end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(0..))]
    pub fuse_fd: Option<RawFd>,
    /// Files or directories of that image to fetch ahead of use; `-` reads a list from standard input
    #[arg(long, short = 'P', num_args = 1..)]
    pub prefetch_files: Vec<String>,
    /// Name of this daemon in API answers
    #[arg(long)]
    pub id: Option<String>,
    /// Socket of a supervisor, told in API answers
    #[arg(long)]
    pub supervisor: Option<PathBuf>,
    /// File to append log lines to, instead of stderr
    #[arg(long, short = 'L')]
    pub log_file: Option<PathBuf>,
    /// Open files to ask for; the hard limit decides where it is lower
    #[arg(long, default_value_t = 1_000_000)]
    pub rlimit_nofile: u64,
    /// Taken for compatibility; requests under way are always sent again
    #[arg(long, default_value = "resend")]
    pub failover_policy: String,
    /// How far the kernel reads ahead, in KiB
    #[arg(long, default_value_t = 128)]
    pub read_ahead_kb: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it")]
    pub log: LogArgs,
}

/// What the original nydusd can be; this one is a FUSE daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A FUSE daemon.
    Fuse,
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "fuse" => Ok(Mode::Fuse),
        "virtiofs" | "singleton" => Err(format!("{text} is not served by this nydusd, only fuse is")),
        _ => Err("the only mode is fuse".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_command_line_is_understood() {
        let line = "nydusd fuse --mountpoint /m --bootstrap b --config c --apisock s --thread-num 10 --log-level info \
                    --id x --supervisor s --failover-policy flush --rlimit-nofile 5 --prefetch-files /a /b";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(cli.thread_num, 10);
        assert_eq!(cli.prefetch_files, ["/a", "/b"]);
        let cli = Cli::try_parse_from(["nydusd", "--mountpoint", "/m", "--fuse-fd", "7"]).unwrap();
        assert_eq!((cli.mode, cli.fuse_fd), (None, Some(7)));
    }

    #[test]
    fn other_modes_are_refused_by_name() {
        let error = Cli::try_parse_from(["nydusd", "virtiofs", "--mountpoint", "/m"]).unwrap_err();
        assert!(error.to_string().contains("virtiofs is not served by this nydusd"), "{error}");
    }
}
