//! `shoal setup`: prints what containerd and systemd need. It writes nothing by itself.

mod render;

use std::process::Command;

use anyhow::Context;
use service::exit::UsageError;

use crate::output;

pub(crate) use render::DEFAULT_SOCKET;

/// Flags of `shoal setup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal setup --print
  shoal setup --print --containerd-version 2.1 --default
  shoal setup --print --part mirror > /etc/containerd/certs.d/registry.example.com/hosts.toml
  shoal setup --print --part systemd > /etc/systemd/system/containerd-nydus-grpc.service")]
pub(crate) struct Args {
    /// Print the configuration; nothing is ever written
    #[arg(long, required = true)]
    print: bool,
    /// Version of containerd, such as 1.6 or 2.1 (default: what containerd --version says)
    #[arg(long, value_name = "VERSION")]
    containerd_version: Option<String>,
    /// Socket of the snapshotter
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    address: String,
    /// Also make it the snapshotter that Kubernetes uses for every pod
    #[arg(long)]
    default: bool,
    /// Print one part only
    #[arg(long, value_enum)]
    part: Option<Part>,
}

/// Parts of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Additions to containerd's config.toml
    Containerd,
    /// A hosts.toml for a registry without TLS
    Hosts,
    /// A hosts.toml that pulls through the piece network, the same for Docker and Podman, and a proxy instead
    Mirror,
    /// The snapshotter's unit
    Systemd,
}

/// The versions of containerd that differ in their configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// 1.6 and 1.7: configuration version 2.
    One,
    /// 2.0: configuration version 3, no labels in its transfer service.
    TwoZero,
    /// From 2.1: CRI and clients pull through the transfer service.
    Two,
}

impl Generation {
    /// Reads `1.6`, `1.7.24~ds1`, `v2.1`, `2.x`.
    pub(crate) fn parse(text: &str) -> Result<Self, UsageError> {
        let mut parts = text.trim_start_matches('v').split('.');
        let minor = |text: Option<&str>| {
            text.and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok())
        };
        match (parts.next(), minor(parts.next())) {
            (Some("1"), Some(6..)) => Ok(Self::One),
            (Some("2"), Some(0)) => Ok(Self::TwoZero),
            (Some("2"), _) => Ok(Self::Two),
            _ => Err(UsageError(format!("containerd {text} is not known here; 1.6, 1.7 and 2.x are"))),
        }
    }
}

/// Prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let generation = || match &args.containerd_version {
        Some(version) => Ok(Generation::parse(version)?),
        None => installed().map(|(_, generation)| generation),
    };
    let text = match args.part {
        Some(Part::Containerd) => render::containerd(generation()?, &args.address, args.default),
        Some(Part::Hosts) => render::hosts(),
        Some(Part::Mirror) => render::mirror(),
        Some(Part::Systemd) => render::systemd(&args.address),
        None => render::everything(generation()?, &args.address, args.default),
    };
    output::line(text.trim_end())?;
    Ok(())
}

/// The version of containerd that is installed.
pub(crate) fn installed() -> anyhow::Result<(String, Generation)> {
    let hint = "cannot run containerd --version; name it with --containerd-version";
    let answer = Command::new("containerd").arg("--version").output().context(hint)?;
    let text = String::from_utf8_lossy(&answer.stdout);
    // "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1"
    let version = text.split_whitespace().nth(2).context("containerd --version tells no version")?;
    Ok((version.to_owned(), Generation::parse(version)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_debian_and_of_upstream_are_understood() {
        for (text, generation) in [
            ("1.6.20~ds1", Generation::One),
            ("1.7", Generation::One),
            ("v2.0.4", Generation::TwoZero),
            ("2.1.9+unknown", Generation::Two),
            ("2.x", Generation::Two),
        ] {
            assert_eq!(Generation::parse(text).unwrap(), generation, "{text}");
        }
    }

    #[test]
    fn other_versions_are_refused() {
        for text in ["1.5.9", "3.0", "", "containerd"] {
            assert!(Generation::parse(text).is_err(), "{text}");
        }
    }
}
