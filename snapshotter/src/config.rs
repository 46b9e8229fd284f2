//! Configuration: defaults, then the TOML file, then flags.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::ValueEnum;
use serde::Deserialize;
use service::{
    exit::UsageError,
    telemetry::{LogArgs, LogLevel},
};

use crate::{cli::Cli, daemon::AtClose};

mod file;

use file::File;

/// Where p2pd listens unless told otherwise.
const P2P_SOCKET: &str = "/run/shoal/p2pd.sock";
/// Longest path of a unix socket.
const SOCKET_PATH: usize = 107;

/// Everything that can be set.
#[derive(Debug)]
pub struct Config {
    /// Directory for everything.
    pub root: PathBuf,
    /// Socket to serve on, and who may own it.
    pub address: Address,
    /// nydusd program.
    pub nydusd: PathBuf,
    /// nydusd configuration to fill in.
    pub nydusd_config: Option<PathBuf>,
    /// Who answers readers of lazy images.
    pub data_path: DataPath,
    /// Socket of the node's piece network.
    pub p2p_socket: Option<PathBuf>,
    /// nydusd's threads.
    pub threads: Option<u16>,
    /// Where blob data is cached; below the root by default.
    pub cache: Option<PathBuf>,
    /// Directories of `<host>/hosts.toml`.
    pub hosts_dirs: Vec<PathBuf>,
    /// What happens to nydusd at the end.
    pub at_close: AtClose,
    /// Logging.
    pub log: LogArgs,
    /// What the file sets that has no effect here.
    pub ignored: Vec<String>,
}

/// Who answers readers of lazy images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DataPath {
    /// The kernel's EROFS driver where machine and image allow it, nydusd by FUSE elsewhere
    #[default]
    Auto,
    /// nydusd, by FUSE
    Fuse,
}

/// The socket to serve on.
#[derive(Debug)]
pub struct Address {
    /// Its path.
    pub path: PathBuf,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

impl Config {
    /// Puts flags and file together.
    ///
    /// # Errors
    /// [`UsageError`] where they make no sense.
    pub fn load(cli: Cli) -> anyhow::Result<Self> {
        let file = cli.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        refuse_other_driver(cli.fs_driver.as_deref().or(file.fs_driver.as_deref()))?;
        let root = cli
            .root
            .or(file.root)
            .unwrap_or_else(|| "/var/lib/containerd/io.containerd.snapshotter.v1.nydus".into());
        check_root(&root)?;
        let path = cli
            .address
            .or(file.address)
            .unwrap_or_else(|| "/run/containerd-nydus/containerd-nydus-grpc.sock".into());
        check_socket(&path)?;
        check_socket(&root.join("api.sock"))?;
        let end = cli.cleanup_on_close.or(file.cleanup_on_close).unwrap_or(true);
        Ok(Self {
            root,
            address: Address { path, uid: file.uid, gid: file.gid },
            nydusd: cli.nydusd.or(file.nydusd).map_or_else(find_nydusd, Ok)?,
            nydusd_config: cli.nydusd_config.or(file.nydusd_config),
            data_path: cli.data_path.or(file.data_path).unwrap_or_default(),
            p2p_socket: p2p_socket(cli.p2p_socket.map(PathBuf::from).or(file.p2p_socket))?,
            threads: file.threads,
            cache: file.cache,
            hosts_dirs: if cli.hosts_dirs.is_empty() { file.hosts_dirs } else { cli.hosts_dirs },
            at_close: if end { AtClose::End } else { AtClose::Leave },
            log: LogArgs {
                log_level: cli.log_level.or(file.log_level).unwrap_or(LogLevel::Info),
                log_format: cli.log_format,
            },
            ignored: file.ignored,
        })
    }
}

fn usage(problem: impl Into<String>) -> anyhow::Error {
    UsageError(problem.into()).into()
}

fn refuse_other_driver(driver: Option<&str>) -> anyhow::Result<()> {
    match driver {
        None | Some("fusedev" | "") => Ok(()),
        Some(other) => Err(usage(format!("fs_driver {other:?} is not supported: use \"fusedev\""))),
    }
}

/// The path ends up in overlay mount options, which give some characters a meaning.
fn check_root(root: &Path) -> anyhow::Result<()> {
    let text = root.to_str().ok_or_else(|| usage("root is not UTF-8"))?;
    if !root.is_absolute() || text.contains([':', ',', '\\', '"', '\n', ' ']) {
        return Err(usage(format!(
            "root {text:?} must be absolute, without blanks and without any of : , \\ \""
        )));
    }
    Ok(())
}

fn check_socket(path: &Path) -> anyhow::Result<()> {
    if path.as_os_str().len() > SOCKET_PATH {
        return Err(usage(format!("{} is too long for a socket ({SOCKET_PATH} bytes)", path.display())));
    }
    Ok(())
}

/// An empty path says that there is none.
fn p2p_socket(given: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    let path = given.unwrap_or_else(|| P2P_SOCKET.into());
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    if !path.is_absolute() {
        return Err(usage(format!("p2p_socket {} must be absolute", path.display())));
    }
    check_socket(&path)?;
    Ok(Some(path))
}

/// Beside our own program, then in PATH.
fn find_nydusd() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("find our own program")?;
    let beside = own.parent().map(|directory| directory.join("nydusd"));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join("nydusd"));
    let found = beside.into_iter().chain(in_path).find(|candidate| candidate.is_file());
    found.ok_or_else(|| usage("nydusd is neither beside this program nor in PATH: give --nydusd"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn load(arguments: &[&str]) -> anyhow::Result<Config> {
        let fixed = ["containerd-nydus-grpc", "--nydusd", "/bin/nydusd"];
        Config::load(Cli::try_parse_from(fixed.iter().chain(arguments))?)
    }

    fn with_file(text: &str, arguments: &[&str]) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        load(&[arguments, &["--config", file.to_str().unwrap()]].concat())
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let config = load(&[]).unwrap();
        assert_eq!(config.root, Path::new("/var/lib/containerd/io.containerd.snapshotter.v1.nydus"));
        assert_eq!(config.address.path, Path::new("/run/containerd-nydus/containerd-nydus-grpc.sock"));
        assert_eq!(config.at_close, AtClose::End);
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let text = "version = 1\nroot = '/a'\naddress = '/b.sock'\ncleanup_on_close = false\n[log]\nlevel = 'warning'";
        let config = with_file(text, &["--root", "/c"]).unwrap();
        assert_eq!(
            (config.root.as_path(), config.address.path.as_path()),
            (Path::new("/c"), Path::new("/b.sock"))
        );
        assert_eq!(config.at_close, AtClose::Leave);
        assert_eq!(config.log.log_level, LogLevel::Warn);
    }

    #[test]
    fn flags_of_the_original_are_accepted() {
        let old =
            ["--log-to-stdout", "--daemon-mode", "shared", "--fs-driver", "fusedev", "--nydus-image", "/x"];
        load(&old).unwrap();
        load(&["--config-path", "/etc/n.json", "--log-to-stdout=true"]).unwrap();
        assert!(load(&["--fs-driver", "fscache"]).is_err());
    }

    #[test]
    fn unknown_keys_are_told_but_do_not_stop_the_start() {
        let config = with_file("nonsense = 1\n[system]\nenable = true\n[log]\nlevel='info'", &[]).unwrap();
        assert_eq!(config.ignored, ["nonsense", "system.enable"]);
    }

    #[test]
    fn file_of_another_version_or_with_wrong_types_is_a_usage_error() {
        for text in
            ["version = 2", "root = 1", "[daemon]\nthreads_number = -1", "= x", "cleanup_on_close = 'yes'"]
        {
            let error = with_file(text, &[]).unwrap_err();
            assert!(error.chain().any(|cause| cause.is::<UsageError>()), "{text}: {error:#}");
        }
    }

    #[test]
    fn the_piece_network_is_asked_where_it_listens_unless_told_otherwise() {
        let socket = |config: Config| config.p2p_socket.map(|path| path.display().to_string());
        assert_eq!(socket(load(&[]).unwrap()).unwrap(), P2P_SOCKET);
        let text = "version = 1\n[daemon]\np2p_socket = ''";
        assert_eq!(socket(with_file(text, &[]).unwrap()), None);
        assert_eq!(socket(with_file(text, &["--p2p-socket", "/p"]).unwrap()).unwrap(), "/p");
        assert_eq!(socket(load(&["--p2p-socket", ""]).unwrap()), None);
        assert!(load(&["--p2p-socket", "relative"]).is_err());
    }

    #[test]
    fn root_that_would_break_mount_options_is_refused() {
        for root in ["relative", "/a:b", "/a,b", "/a b"] {
            assert!(load(&["--root", root]).is_err(), "{root}");
        }
        assert!(load(&["--root", &format!("/{}", "r".repeat(110))]).is_err(), "too long for a socket");
    }
}
