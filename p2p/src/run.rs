//! From a configuration to a node at work, and its end.

use std::{
    fs::DirBuilder,
    future::IntoFuture as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use axum::Router;
use p2p_api::peer::Role;
use registry::{Client, ClientOptions};
use service::{
    exit::UsageError,
    shutdown,
    socket::{Access, Socket},
    telemetry, version,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ClusterSecret, Identity, Token,
    beside::Lookout,
    cli::{Cli, Command, PeerArgs},
    config::{Advertise, Config},
    engine::{Engine, Parts},
    identity::{keep_token, kept_token, replace_token},
    load::{self, Bounds},
    local::{self, Local, Node, Registries, proxy::Proxy},
    membership::{Membership, MembershipConfig},
    metrics::Metrics,
    peer::Hold,
    rate::Limits,
    rights::{self, Rights, ShareList},
    store::Store,
    transport::{Pool, PoolConfig},
};

/// Most connections to other nodes.
const CONNECTIONS: usize = 1024;
/// Calls under way at the end get this long.
const DRAIN: Duration = Duration::from_secs(5);
/// And each part that ends after them this.
const END: Duration = Duration::from_secs(5);

/// Does what the command line says.
///
/// # Errors
/// Where it cannot be done.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    telemetry::start(&cli.log);
    match cli.command {
        Command::Peer(args) => peer(*args),
        Command::Token { root } => print_token(&root),
    }
}

fn peer(args: PeerArgs) -> anyhow::Result<()> {
    let (check, print) = (args.check_config, args.print_config);
    let config = Config::load(args)?;
    if print {
        std::io::stdout().write_all(config.to_toml().as_bytes())?;
    }
    if check || print {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config));
    runtime.shutdown_timeout(END);
    served
}

fn print_token(root: &Path) -> anyhow::Result<()> {
    let token = kept_token(&identity_dir(root))?;
    let token = token.with_context(|| {
        format!("{} is not of a node yet: p2pd peer begins a cluster or joins one", root.display())
    })?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}

fn identity_dir(root: &Path) -> std::path::PathBuf {
    root.join("identity")
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("signals cannot be listened to")?;
    make_directories(&config)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("other nodes cannot reach {}", config.listen))?;
    let listen = listener.local_addr()?;
    let datagrams = UdpSocket::bind(listen).await.with_context(|| format!("no datagrams at {listen}"))?;
    let advertise = advertise(config.advertise, listen);
    let token = cluster(&config, advertise)?;
    let identity = Identity::open(&identity_dir(&config.root), token.secret())?;
    let store = Arc::new(Store::open(&config.root.join("pieces"), config.budget)?);
    let doors = Doors::open(&config).await?;

    let (limits, metrics) = (Limits::new(&config.limits), Metrics::default());
    let (hold, host) = watch::channel(Hold::NONE);
    let (id, seal) = (identity.id(), identity.seal()?);
    let about = PoolConfig {
        build: version::COMMIT.into(),
        role: Role::Peer,
        connections: CONNECTIONS,
        limits: limits.clone(),
    };
    let (pool, events) = Pool::start(identity, listener, about)?;
    let (pool, (tell, told)) = (Arc::new(pool), Membership::inbox());
    let joining = MembershipConfig { advertise, seeds: token.addresses().to_vec() };
    let membership = Membership::start(Arc::clone(&pool), seal, datagrams, told, joining);
    let members = membership.members();
    let parts = Parts {
        transport: pool.clone(),
        events,
        store: Arc::clone(&store),
        members: members.clone(),
        told: tell,
        limits: limits.clone(),
        host,
        metrics: metrics.clone(),
        seed: fastrand::u64(..),
    };
    let guarded = !config.allow_link_local;
    let options = ClientOptions { hosts_dirs: config.hosts_dirs, guarded, ..ClientOptions::default() };
    let upstream = rights::anonymous(options.clone())?;
    let rights = Rights::new(ShareList::new(config.share), upstream.clone());
    let registries = Registries { client: Client::new(options.clone())?, upstream };
    let node = Node { id, members, limits, metrics, piece_size: config.piece_size };
    let local = Arc::new(Local::new(Engine::start(parts), registries, rights, node));
    tracing::info!(
        node = %id, address = %advertise, socket = %config.socket.display(), mirror = ?config.mirror,
        proxy = ?config.proxy, "serving"
    );
    let proxy = |at| Proxy::new(Arc::clone(&local), options, config.proxy_rules, at);
    let proxy = doors.proxy_at()?.map(proxy);
    let lookout = Lookout::start(store, config.beside);
    let served = tokio::select! {
        served = answer(doors, proxy, &local, stop) => served,
        () = look_after(&local, (config.idle, config.yields), hold) => Ok(()),
    };
    tracing::info!("ending");
    end(membership, lookout, local, pool).await;
    served
}

/// Does what recurs, for ever.
async fn look_after(local: &Local, (idle, yields): (Duration, Bounds), hold: watch::Sender<Hold>) {
    tokio::join!(local.close_idle(idle), load::keep(Path::new(load::PRESSURE), yields, hold));
}

/// Where this node is asked.
struct Doors {
    socket: Socket,
    mirror: Option<TcpListener>,
    proxy: Option<TcpListener>,
    figures: Option<TcpListener>,
}

impl Doors {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let socket = Socket::bind(&config.socket, Access::Group(config.socket_group))
            .with_context(|| format!("programs cannot be served at {}", config.socket.display()))?;
        let mirror = bind(config.mirror, "mirror").await?;
        let proxy = bind(config.proxy, "proxy").await?;
        let figures = bind(config.metrics, "page of figures").await?;
        Ok(Self { socket, mirror, proxy, figures })
    }

    fn proxy_at(&self) -> std::io::Result<Option<SocketAddr>> {
        self.proxy.as_ref().map(TcpListener::local_addr).transpose()
    }
}

async fn bind(at: Option<SocketAddr>, what: &'static str) -> anyhow::Result<Option<TcpListener>> {
    let Some(at) = at else { return Ok(None) };
    let bound = TcpListener::bind(at).await.with_context(|| format!("the {what} cannot be at {at}"))?;
    Ok(Some(bound))
}

/// Answers at one address, if there is one, until `stop`.
async fn answer_at(
    listener: Option<TcpListener>,
    calls: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    axum::serve(listener, calls).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Answers programs until `stop`, and those that wait a little longer.
async fn answer(
    doors: Doors,
    proxy: Option<Proxy>,
    local: &Arc<Local>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Doors { socket, mirror, proxy: relayed, figures } = doors;
    let _file = socket.file;
    let programs = axum::serve(socket.listener, local::router(Arc::clone(local)))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let pulls = answer_at(mirror, local::mirror(Arc::clone(local)), stop.clone());
    let scrapes = answer_at(figures, local::figures(Arc::clone(local)), stop.clone());
    let relays = async {
        let Some((listener, proxy)) = relayed.zip(proxy) else { return Ok(()) };
        proxy.serve(listener, stop.clone()).await
    };
    let served = async { tokio::try_join!(programs.into_future(), pulls, relays, scrapes) };
    let late = async {
        stop.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        served = served => served.map(drop).context("a socket has failed"),
        () = late => {
            tracing::warn!("calls under way are cut short");
            Ok(())
        }
    }
}

async fn end(membership: Membership, lookout: Lookout, local: Arc<Local>, pool: Arc<Pool>) {
    let stopping = async {
        lookout.stop().await;
        membership.stop().await;
        match Arc::try_unwrap(local) {
            Ok(local) => local.stop().await,
            // A call that was cut short still holds it; it ends with the runtime.
            Err(shared) => drop(shared),
        }
        if let Ok(pool) = Arc::try_unwrap(pool) {
            pool.stop().await;
        }
    };
    if timeout(END, stopping).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
}

fn make_directories(config: &Config) -> anyhow::Result<()> {
    let private = DirBuilder::new().recursive(true).mode(0o700).create(&config.root);
    private.with_context(|| format!("make {}", config.root.display()))?;
    let Some(directory) = config.socket.parent() else { return Ok(()) };
    // The socket itself says who may connect.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.with_context(|| format!("make {}", directory.display()))
}

/// The cluster of this node: the one that it is in, the one that it is to join, or a new one. It is kept with addresses
/// at which a node that joins finds somebody, this node first.
fn cluster(config: &Config, advertise: SocketAddr) -> anyhow::Result<Token> {
    let directory = identity_dir(&config.root);
    let kept = kept_token(&directory)?;
    if let (Some(kept), Some(join)) = (&kept, &config.join)
        && !kept.is_of_the_cluster_of(join)
    {
        let root = config.root.display();
        bail!(UsageError(format!(
            "this node is in another cluster: give it another root than {root} to join"
        )));
    }
    let known = config.join.iter().chain(&kept);
    let secret = match known.clone().next() {
        Some(token) => token.secret().clone(),
        None => ClusterSecret::generate()?,
    };
    let mut addresses = vec![advertise.to_string()];
    for address in known.flat_map(Token::addresses) {
        if !addresses.contains(address) && addresses.len() < SEEDS {
            addresses.push(address.clone());
        }
    }
    let token = Token::new(addresses, secret)?;
    match kept {
        None => Ok(keep_token(&directory, &token)?),
        Some(kept) if kept.addresses() == token.addresses() => Ok(kept),
        Some(_) => {
            replace_token(&directory, &token)?;
            Ok(token)
        }
    }
}

/// Addresses that a token has at most.
const SEEDS: usize = 8;

/// What others are told: what is configured, else the address that is listened on, else that of the default route.
fn advertise(configured: Option<Advertise>, listen: SocketAddr) -> SocketAddr {
    if let Some(Advertise { ip, port }) = configured {
        return SocketAddr::new(ip, port.unwrap_or_else(|| listen.port()));
    }
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let ip = route().unwrap_or_else(|error| {
        tracing::warn!("no route to anywhere ({error}): only this machine can reach this node");
        Ipv4Addr::LOCALHOST.into()
    });
    SocketAddr::new(ip, listen.port())
}

/// The address that packets to far away leave from. None is sent.
fn route() -> std::io::Result<IpAddr> {
    let socket = StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // An address of documentation: nobody has it.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &Path, join: Option<Token>) -> Config {
        Config { root: root.to_owned(), join, ..Config::load(PeerArgs::default()).unwrap() }
    }

    #[test]
    fn a_cluster_is_begun_once_joined_by_token_and_found_again() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |host| SocketAddr::from(([10, 0, 0, host], 4700));
        let begun = cluster(&config(first.path(), None), at(1)).unwrap();
        assert_eq!(begun.addresses(), ["10.0.0.1:4700"]);
        let again = cluster(&config(first.path(), None), at(1)).unwrap();
        assert_eq!(again.to_string(), begun.to_string());
        let joined = cluster(&config(second.path(), Some(begun.clone())), at(2)).unwrap();
        assert_eq!(joined.addresses(), ["10.0.0.2:4700", "10.0.0.1:4700"]);
        assert!(joined.is_of_the_cluster_of(&begun));
        let moved = cluster(&config(second.path(), None), at(3)).unwrap();
        assert_eq!(moved.addresses(), ["10.0.0.3:4700", "10.0.0.2:4700", "10.0.0.1:4700"]);
        assert_eq!(kept_token(&identity_dir(second.path())).unwrap().unwrap().to_string(), moved.to_string());
    }

    #[test]
    fn a_node_does_not_change_its_cluster_by_accident() {
        let root = tempfile::tempdir().unwrap();
        let at = SocketAddr::from(([10, 0, 0, 1], 4700));
        cluster(&config(root.path(), None), at).unwrap();
        let other = Token::new(vec!["10.0.0.9:1".into()], ClusterSecret::generate().unwrap()).unwrap();
        let refused = cluster(&config(root.path(), Some(other)), at).unwrap_err();
        assert!(refused.is::<UsageError>() && refused.to_string().contains("another cluster"));
    }
}
