//! Flags, by the names that containerd-nydus-grpc has always had.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Parser};
use service::telemetry::{LogFormat, LogLevel};

use crate::config::DataPath;

/// containerd snapshotter for lazy images
#[derive(Debug, Parser)]
#[command(name = "containerd-nydus-grpc", version = service::version::LONG)]
pub struct Cli {
    /// Directory for snapshots, cache and database
    /// [default: /var/lib/containerd/io.containerd.snapshotter.v1.nydus]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Socket to serve containerd on [default: /run/containerd-nydus/containerd-nydus-grpc.sock]
    #[arg(long, value_name = "SOCKET")]
    pub address: Option<PathBuf>,
    /// Configuration file (TOML); flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// nydusd program [default: beside this program, then in PATH]
    #[arg(long, value_name = "FILE")]
    pub nydusd: Option<PathBuf>,
    /// nydusd configuration (JSON) to fill in for each image
    #[arg(long, alias = "config-path", value_name = "FILE")]
    pub nydusd_config: Option<PathBuf>,
    /// Who answers readers of lazy images [default: auto]
    #[arg(long, value_enum)]
    pub data_path: Option<DataPath>,
    /// Socket of this node's piece network (p2pd), which nydusd asks before the registry while it is there; empty for
    /// none [default: /run/shoal/p2pd.sock]
    #[arg(long, value_name = "SOCKET")]
    pub p2p_socket: Option<OsString>,
    /// Directory of <host>/hosts.toml; may be given several times
    /// [default: /etc/containerd/certs.d, /etc/docker/certs.d]
    #[arg(long = "hosts-dir", value_name = "DIR")]
    pub hosts_dirs: Vec<PathBuf>,
    /// End nydusd and take its mount away when this program ends; `false` leaves it serving running containers, and
    /// the next start finds it [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub cleanup_on_close: Option<bool>,
    /// Least important level to log; `RUST_LOG` has the last word [default: info]
    #[arg(long, short = 'l', value_enum, ignore_case = true)]
    pub log_level: Option<LogLevel>,
    /// Form of log lines
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Accepted for old scripts: logs always go to stderr
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub log_to_stdout: Option<bool>,
    /// Accepted for old scripts: one nydusd serves all images
    #[arg(long, value_name = "MODE", hide = true)]
    pub daemon_mode: Option<String>,
    /// Accepted for old scripts; `fusedev` is what there is
    #[arg(long, value_name = "DRIVER", hide = true)]
    pub fs_driver: Option<String>,
    /// Accepted for old scripts: no builder is needed
    #[arg(long, value_name = "FILE", hide = true)]
    pub nydus_image: Option<PathBuf>,
    /// Accepted for old scripts: no mount helper is needed
    #[arg(long, value_name = "FILE", hide = true)]
    pub nydus_overlayfs_path: Option<PathBuf>,
}
