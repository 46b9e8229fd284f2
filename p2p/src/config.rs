//! Configuration of `p2pd peer`: defaults, then the TOML file, then the environment, then flags.

mod parse;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use registry::ClientOptions;
use serde::de::DeserializeOwned;
use service::{exit::UsageError, size};
use toml::{Table, Value};

use crate::{
    PieceLayout, Token, cli::PeerArgs, load::Bounds, local::proxy::Rules, rate::Setting, store::Budget,
};

/// Where state is kept unless something else is said.
pub const ROOT: &str = "/var/lib/shoal/p2p";
const LISTEN: &str = "0.0.0.0:4700";
const SOCKET: &str = "/run/shoal/p2pd.sock";
const BUDGET: u64 = 16 << 30;
const KEEP_FREE: u64 = 1 << 30;
const IDLE: u64 = 1800;
/// Longest path of a unix socket.
const SOCKET_PATH: usize = 107;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where other nodes reach this one.
    pub listen: SocketAddr,
    /// What they are told, where that is another address.
    pub advertise: Option<Advertise>,
    /// The cluster to join.
    pub join: Option<Token>,
    /// Directory for state and pieces.
    pub root: PathBuf,
    /// Socket for programs of this node.
    pub socket: PathBuf,
    /// Number of the group that may use it.
    pub socket_group: Option<u32>,
    /// Where containerd and others find a registry mirror, if there is to be one.
    pub mirror: Option<SocketAddr>,
    /// Where Prometheus finds what this node has done, besides the socket.
    pub metrics: Option<SocketAddr>,
    /// Where programs find a forward proxy, if there is to be one.
    pub proxy: Option<SocketAddr>,
    /// What goes which way through it.
    pub proxy_rules: Rules,
    /// Repositories whose content is shared.
    pub share: Vec<String>,
    /// Room for pieces.
    pub budget: Budget,
    /// Directories whose files take of the same budget.
    pub beside: Vec<PathBuf>,
    /// Bytes of a piece of what no image cuts.
    pub piece_size: u32,
    /// A blob that nobody reads is left after so long.
    pub idle: Duration,
    /// Bytes per second.
    pub limits: Vec<Setting>,
    /// When the host has other work.
    pub yields: Bounds,
    /// Directories of `<host>/hosts.toml`.
    pub hosts_dirs: Vec<PathBuf>,
    /// Whether origins may be at link-local addresses and those of clouds' metadata.
    pub allow_link_local: bool,
}

/// An address that others are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port, if it is not the one listened on.
    pub port: Option<u16>,
}

impl Config {
    /// Puts file, environment and flags together.
    ///
    /// # Errors
    /// [`UsageError`] that names all that makes no sense.
    pub fn load(args: PeerArgs) -> Result<Self, UsageError> {
        let table = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let mut keys = Keys { table, problems: Vec::new() };
        let config = Self {
            listen: keys.or_default(args.listen, "listen", || LISTEN.parse().expect("an address")),
            advertise: keys.parsed(args.advertise, "advertise", parse::advertise),
            join: keys.join(args.join, args.join_file),
            root: keys.or_default(args.root, "root", || ROOT.into()),
            socket: keys.or_default(args.socket, "socket", || SOCKET.into()),
            socket_group: keys.parsed(args.socket_group, "socket_group", parse::group),
            mirror: keys.take_or(args.mirror, "mirror"),
            metrics: keys.take_or(args.metrics, "metrics"),
            proxy: keys.take_or(args.proxy, "proxy"),
            proxy_rules: keys.rules(),
            share: keys.list(args.share, "share", Vec::new),
            budget: Budget {
                bytes: keys.parsed(args.budget, "budget", size::parse).unwrap_or(BUDGET),
                keep_free: keys.parsed(args.keep_free, "keep_free", size::parse).unwrap_or(KEEP_FREE),
            },
            beside: keys.list(args.beside, "beside", Vec::new),
            piece_size: keys
                .parsed(args.piece_size, "piece_size", parse::piece_size)
                .unwrap_or(PieceLayout::DEFAULT_SIZE),
            idle: Duration::from_secs(keys.or_default(args.idle, "idle", || IDLE)),
            limits: keys.limits(args.limits),
            yields: keys.bounds(args.yield_cpu, args.yield_io),
            hosts_dirs: keys.list(args.hosts_dirs, "hosts_dirs", || ClientOptions::default().hosts_dirs),
            allow_link_local: keys.or_default(
                args.allow_link_local.then_some(true),
                "allow_link_local",
                Default::default,
            ),
        };
        config.check(&mut keys.problems);
        keys.end()?;
        Ok(config)
    }

    fn check(&self, problems: &mut Vec<String>) {
        if !self.root.is_absolute() {
            problems.push(format!("root: {} is not an absolute path", self.root.display()));
        }
        if self.socket.as_os_str().len() > SOCKET_PATH - 20 || !self.socket.is_absolute() {
            let path = self.socket.display();
            problems.push(format!("socket: {path} is not an absolute path, or too long for a socket"));
        }
        if self.idle.is_zero() {
            problems.push("idle: at least a second".to_owned());
        }
        for pattern in &self.share {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
            if !name.contains('/') || name.starts_with('/') || name.contains('*') || name.contains("://") {
                let forms =
                    "neither HOST/NAME nor HOST/PREFIX*, before it http:// or https:// for web servers";
                problems.push(format!("share: {pattern:?} is {forms}"));
            }
        }
    }

    /// As a file would say it; the token is left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let paths = |paths: &[PathBuf]| -> Value {
            paths.iter().map(|path| Value::from(path.display().to_string())).collect::<Vec<_>>().into()
        };
        let mut table = Table::new();
        let mut set = |key: &str, value: Value| drop(table.insert(key.into(), value));
        set("listen", self.listen.to_string().into());
        if let Some(Advertise { ip, port }) = self.advertise {
            let text = port.map_or_else(|| ip.to_string(), |port| SocketAddr::new(ip, port).to_string());
            set("advertise", text.into());
        }
        set("root", self.root.display().to_string().into());
        set("socket", self.socket.display().to_string().into());
        if let Some(group) = self.socket_group {
            set("socket_group", group.to_string().into());
        }
        for (key, at) in [("mirror", self.mirror), ("proxy", self.proxy), ("metrics", self.metrics)] {
            if let Some(at) = at {
                set(key, at.to_string().into());
            }
        }
        set("proxy_rules", self.proxy_rules.to_toml());
        set("share", self.share.clone().into());
        set("budget", self.budget.bytes.to_string().into());
        set("keep_free", self.budget.keep_free.to_string().into());
        set("beside", paths(&self.beside));
        set("piece_size", self.piece_size.to_string().into());
        set("idle", i64::try_from(self.idle.as_secs()).unwrap_or(i64::MAX).into());
        set("limits", self.limits.iter().map(ToString::to_string).collect::<Vec<_>>().into());
        set("yield_cpu", Bounds::text(self.yields.cpu).into());
        set("yield_io", Bounds::text(self.yields.io).into());
        set("hosts_dirs", paths(&self.hosts_dirs));
        set("allow_link_local", self.allow_link_local.into());
        table.to_string()
    }
}

fn read(path: &Path) -> Result<Table, UsageError> {
    let problem = |what: String| UsageError(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| problem(error.message().to_owned()))
}

/// Keys of the file that nobody has taken yet, and what is wrong so far.
struct Keys {
    table: Table,
    problems: Vec<String>,
}

impl Keys {
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        match self.table.remove(key)?.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{key}: {}", error.message()));
                None
            }
        }
    }

    fn or_default<T: DeserializeOwned>(&mut self, given: Option<T>, key: &str, default: impl Fn() -> T) -> T {
        self.take_or(given, key).unwrap_or_else(default)
    }

    fn take_or<T: DeserializeOwned>(&mut self, given: Option<T>, key: &str) -> Option<T> {
        let filed = self.take(key);
        given.or(filed)
    }

    fn list<T: DeserializeOwned>(
        &mut self,
        given: Vec<T>,
        key: &str,
        default: impl Fn() -> Vec<T>,
    ) -> Vec<T> {
        let given = Some(given).filter(|given| !given.is_empty());
        self.or_default(given, key, default)
    }

    fn parsed<T>(
        &mut self,
        given: Option<String>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let filed = match self.table.get(key) {
            // A number of bytes may stand without quotes.
            Some(Value::Integer(number)) => {
                let number = number.to_string();
                self.table.remove(key).map(|_| number)
            }
            _ => self.take::<String>(key),
        };
        let parsed = parse(&given.or(filed)?);
        parsed.map_err(|problem| self.problems.push(format!("{key}: {problem}"))).ok()
    }

    fn limits(&mut self, given: Vec<String>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for text in self.list(given, "limits", Vec::<String>::new) {
            match text.parse() {
                Ok(setting) => settings.push(setting),
                Err(problem) => self.problems.push(format!("limits: {problem}")),
            }
        }
        settings
    }

    fn bounds(&mut self, cpu: Option<String>, io: Option<String>) -> Bounds {
        Bounds {
            cpu: self.parsed(cpu, "yield_cpu", Bounds::parse).unwrap_or(Bounds::DEFAULT.cpu),
            io: self.parsed(io, "yield_io", Bounds::parse).unwrap_or(Bounds::DEFAULT.io),
        }
    }

    fn rules(&mut self) -> Rules {
        Rules::read(self.take("proxy_rules").unwrap_or_default()).unwrap_or_else(|problems| {
            self.problems.extend(problems.into_iter().map(|problem| format!("proxy_rules: {problem}")));
            Rules::default()
        })
    }

    /// The token, given or in a file. What was given wins over what the configuration file says.
    fn join(&mut self, token: Option<String>, file: Option<PathBuf>) -> Option<Token> {
        let filed = (self.take("join"), self.take("join_file"));
        let (token, file) = if token.is_some() || file.is_some() { (token, file) } else { filed };
        let text = match (token, file) {
            (Some(_), Some(_)) => Err("give join or join_file, not both".to_owned()),
            (Some(text), None) => Ok(Some(text)),
            (None, Some(path)) => {
                let read = std::fs::read_to_string(&path);
                read.map(Some).map_err(|error| format!("join_file: {}: {error}", path.display()))
            }
            (None, None) => Ok(None),
        };
        let token = text.and_then(|text| {
            text.map(|text| text.parse().map_err(|error| format!("join: {error}"))).transpose()
        });
        token.unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    fn end(mut self) -> Result<(), UsageError> {
        self.problems.extend(self.table.keys().map(|key| format!("{key}: no such key")));
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(UsageError(format!("configuration: {}", self.problems.join("; ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusterSecret;

    fn with_file(text: &str, args: PeerArgs) -> Result<Config, UsageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p2pd.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(PeerArgs { config: Some(path), ..args })
    }

    #[test]
    fn nothing_has_to_be_set() {
        let config = Config::load(PeerArgs::default()).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.root.as_path()), (LISTEN, Path::new(ROOT)));
        assert_eq!(config.budget, Budget { bytes: BUDGET, keep_free: KEEP_FREE });
        assert!(config.join.is_none() && config.share.is_empty());
    }

    #[test]
    fn what_is_given_wins_over_the_file() {
        let args = || PeerArgs { root: Some("/flag".into()), ..PeerArgs::default() };
        let text = "root = '/file'\nbudget = '3GiB'\nkeep_free = 5\nyield_cpu = 'none'\nyield_io = 20\nmirror = '127.0.0.1:4701'\nproxy = '127.0.0.1:4702'\nshare = ['a.example/*']\nadvertise = '10.0.0.9'\n[[proxy_rules]]\nmatch = '*.example/a'\naction = 'deny'";
        let config = with_file(text, args()).unwrap();
        assert_eq!(config.root, Path::new("/flag"));
        assert_eq!(config.budget, Budget { bytes: 3 << 30, keep_free: 5 });
        assert_eq!(config.yields, Bounds { cpu: None, io: "20".parse().ok() });
        assert_eq!(config.advertise, Some(Advertise { ip: [10, 0, 0, 9].into(), port: None }));
        let again = with_file(&config.to_toml(), PeerArgs::default()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"), "what is printed can be read");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "nonsense = 1\nlisten = 'here'\nbudget = '3 apples'\nshare = ['*']\nroot = 'relative'\npiece_size = '3MiB'\nyield_io = 0\nproxy = 'there'\nproxy_rules = [{ match = 'a:b', action = 'deny' }]";
        let UsageError(told) = with_file(text, PeerArgs::default()).unwrap_err();
        for key in [
            "nonsense",
            "listen",
            "budget",
            "share",
            "root",
            "piece_size",
            "yield_io",
            "proxy",
            "proxy_rules: rule 1 (\"a:b\")",
        ] {
            assert!(told.contains(&format!("{key}: ")), "{key} in {told}");
        }
    }

    #[test]
    fn an_address_to_share_names_its_host_whole() {
        for (pattern, sound) in [
            ("registry.example/*", true),
            ("https://files.example/public/*", true),
            ("http://files.example/*", true),
            ("https://files.example*", false),
            ("ftp://files.example/*", false),
            ("*", false),
        ] {
            let args = PeerArgs { share: vec![pattern.to_owned()], ..PeerArgs::default() };
            assert_eq!(Config::load(args).is_ok(), sound, "{pattern}");
        }
    }

    #[test]
    fn a_token_comes_by_flag_or_file_and_is_never_printed() {
        let token = Token::new(vec!["10.0.0.1:4700".into()], ClusterSecret::generate().unwrap()).unwrap();
        let config = with_file(&format!("join = '{token}'"), PeerArgs::default()).unwrap();
        assert_eq!(config.join.as_ref().unwrap().addresses(), token.addresses());
        assert!(!config.to_toml().contains("shoal1"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{token}\n")).unwrap();
        let by_file = PeerArgs { join_file: Some(path), ..PeerArgs::default() };
        assert!(Config::load(by_file).unwrap().join.is_some());
        let wrong = PeerArgs { join: Some("shoal1-rubbish".into()), ..PeerArgs::default() };
        let UsageError(told) = Config::load(wrong).unwrap_err();
        assert!(told.contains("damaged") && !told.contains("rubbish"), "{told}");
    }
}
