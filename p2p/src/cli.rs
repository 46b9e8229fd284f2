//! Flags of `p2pd`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use service::{telemetry::LogArgs, version};

const EXAMPLES: &str = "\
Examples:
  The first node of a cluster, and the string that others join with:
    p2pd up --share 'registry.example.com/*'
    p2pd token

  Every other node:
    p2pd up --join shoal1-... --share 'registry.example.com/*'";

/// Nodes feed each other, and a registry sends about one copy
#[derive(Debug, Parser)]
#[command(name = "p2pd", version = version::LONG, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it")]
    pub log: LogArgs,
}

/// What p2pd can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node
    #[command(visible_alias = "up")]
    Peer(Box<PeerArgs>),
    /// Print the string that other nodes join this node's cluster with
    Token {
        /// Directory of the node's state
        #[arg(long, value_name = "DIR", env = "SHOAL_P2PD_ROOT", default_value = crate::config::ROOT)]
        root: PathBuf,
    },
}

/// Flags of `p2pd peer`. Each wins over its environment variable, that over the file, and that over the default.
#[derive(Debug, Default, Args)]
pub struct PeerArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "SHOAL_P2PD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where other nodes reach this one, by TCP and UDP [default: 0.0.0.0:4700]
    #[arg(long, value_name = "ADDR:PORT", env = "SHOAL_P2PD_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// What other nodes are told to reach this one at, with a port or without [default: the address listened on, or
    /// that of the default route]
    #[arg(long, value_name = "ADDR", env = "SHOAL_P2PD_ADVERTISE")]
    pub advertise: Option<String>,
    /// Join the cluster of this token; without one the first start begins a cluster
    #[arg(long, value_name = "TOKEN", env = "SHOAL_JOIN", hide_env_values = true)]
    pub join: Option<String>,
    /// File of that token
    #[arg(long, value_name = "FILE", env = "SHOAL_JOIN_FILE")]
    pub join_file: Option<PathBuf>,
    /// Directory for state and pieces [default: /var/lib/shoal/p2p]
    #[arg(long, value_name = "DIR", env = "SHOAL_P2PD_ROOT")]
    pub root: Option<PathBuf>,
    /// Socket for programs of this node [default: /run/shoal/p2pd.sock]
    #[arg(long, value_name = "PATH", env = "SHOAL_P2PD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Group that may use the socket, by name or number [default: our own]
    #[arg(long, value_name = "GROUP", env = "SHOAL_P2PD_SOCKET_GROUP")]
    pub socket_group: Option<String>,
    /// Serve a registry mirror for containerd, Docker and Podman there, such as 127.0.0.1:4701; who reaches the address
    /// may read what is shared [default: none]
    #[arg(long, value_name = "ADDR:PORT", env = "SHOAL_P2PD_MIRROR")]
    pub mirror: Option<SocketAddr>,
    /// Say at http://ADDR:PORT/metrics what this node has done, in the format of Prometheus [default: on the socket alone]
    #[arg(long, value_name = "ADDR:PORT", env = "SHOAL_P2PD_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Serve a forward proxy for HTTP_PROXY and HTTPS_PROXY there, such as 127.0.0.1:4702; who reaches the address may
    /// read what is shared, and connect from this node to whatever proxy_rules of the file do not deny [default: none]
    #[arg(long, value_name = "ADDR:PORT", env = "SHOAL_P2PD_PROXY")]
    pub proxy: Option<SocketAddr>,
    /// Repository whose content every member and all who may use the socket may read: HOST/NAME, or HOST/PREFIX*; or files
    /// of a web server that are shared without a digest: https://HOST/PREFIX*; may be given several times
    #[arg(long, value_name = "PATTERN", env = "SHOAL_P2PD_SHARE", value_delimiter = ',')]
    pub share: Vec<String>,
    /// Most bytes of pieces on disk [default: 16GiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_P2PD_BUDGET")]
    pub budget: Option<String>,
    /// Directory of another cache on this node, such as nydusd's: what it takes is left of the budget less; may be given
    /// several times
    #[arg(long, value_name = "DIR", env = "SHOAL_P2PD_BESIDE", value_delimiter = ',')]
    pub beside: Vec<PathBuf>,
    /// Bytes of the disk that stay free [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_P2PD_KEEP_FREE")]
    pub keep_free: Option<String>,
    /// Bytes of a piece of blobs and files that no image cuts; a power of two, the same on every node [default: 1MiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_P2PD_PIECE_SIZE")]
    pub piece_size: Option<String>,
    /// Leave a blob that no program has read for so long; its pieces stay while there is room [default: 1800]
    #[arg(long, value_name = "SECONDS", env = "SHOAL_P2PD_IDLE")]
    pub idle: Option<u64>,
    /// Bytes per second: upload=RATE, download=RATE, origin=RATE, prefetch=RATE, and task.upload=RATE and so on for each
    /// blob; RATE is like 100MiB, or none; may be given several times
    #[arg(long = "limit", value_name = "USE=RATE", env = "SHOAL_P2PD_LIMITS", value_delimiter = ',')]
    pub limits: Vec<String>,
    /// Hold back what nobody waits for while some process waits for a processor in more than this part of the time, or never:
    /// none [default: 80]
    #[arg(long, value_name = "PERCENT", env = "SHOAL_P2PD_YIELD_CPU")]
    pub yield_cpu: Option<String>,
    /// The same for a disk [default: none]
    #[arg(long, value_name = "PERCENT", env = "SHOAL_P2PD_YIELD_IO")]
    pub yield_io: Option<String>,
    /// Directory of <host>/hosts.toml; may be given several times [default: /etc/containerd/certs.d, /etc/docker/certs.d]
    #[arg(long = "hosts-dir", value_name = "DIR", env = "SHOAL_P2PD_HOSTS_DIRS", value_delimiter = ',')]
    pub hosts_dirs: Vec<PathBuf>,
    /// Fetch from registries at link-local addresses and those of clouds' metadata, too
    #[arg(long, env = "SHOAL_P2PD_ALLOW_LINK_LOCAL")]
    pub allow_link_local: bool,
    /// Check the configuration and end
    #[arg(long)]
    pub check_config: bool,
    /// Print the configuration as it would be used, without the token, and end
    #[arg(long)]
    pub print_config: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_is_peer_with_every_default() {
        let Command::Peer(args) = Cli::try_parse_from(["p2pd", "up"]).unwrap().command else {
            panic!("peer")
        };
        assert!(args.config.is_none() && args.listen.is_none() && args.share.is_empty());
    }
}
