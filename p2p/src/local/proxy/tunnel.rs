//! `CONNECT`: bytes both ways.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use axum::{
    extract::Request,
    http::{StatusCode, uri::Authority},
    response::{IntoResponse as _, Response},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::TcpStream,
    time::{Duration, Instant, sleep_until, timeout},
};

use super::{Action, IDLE, Proxy, rules::Asked};
use crate::local::handlers::refuse;

/// Longest time to find a host and connect to it.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest time to connect to one of its addresses.
const DIAL: Duration = Duration::from_secs(5);
/// Longest time until the caller takes the tunnel.
const HANDOVER: Duration = Duration::from_secs(10);
/// Bytes that are on their way through a tunnel, each way.
const BUFFER: usize = 32 << 10;

/// Connects to the host that is asked for, and then the caller with it.
pub(super) async fn open(proxy: &Proxy, request: Request) -> Response {
    let Some((host, port)) = request.uri().authority().and_then(target) else {
        return refuse(StatusCode::BAD_REQUEST, "CONNECT wants HOST:PORT");
    };
    if proxy.rules.decide(&Asked::tunnel(&host, port)) == Some(Action::Deny) {
        return refuse(StatusCode::FORBIDDEN, format!("a rule denies {host}:{port}"));
    }
    let Ok(place) = proxy.tunnels.clone().try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many tunnels");
    };
    let server = match timeout(CONNECT, connect(proxy, &host, port)).await {
        Ok(Ok(server)) => server,
        Ok(Err(refusal)) => return refusal.answer(&host, port),
        Err(_) => return Refusal::Late.answer(&host, port),
    };
    let (upgrade, cut) = (hyper::upgrade::on(request), proxy.cut.clone());
    proxy.running.spawn(async move {
        let _place = place;
        let carried = async {
            let Ok(Ok(caller)) = timeout(HANDOVER, upgrade).await else { return Ok(()) };
            carry_both(TokioIo::new(caller), server, IDLE).await
        };
        tokio::select! {
            () = cut.cancelled() => tracing::debug!(host, port, "tunnel is cut"),
            carried = carried => tracing::debug!(host, port, ?carried, "tunnel has ended"),
        }
    });
    StatusCode::OK.into_response()
}

/// Why there is no tunnel.
#[derive(Debug)]
enum Refusal {
    Forbidden,
    Circle,
    Late,
    Failed(io::Error),
}

impl Refusal {
    fn answer(self, host: &str, port: u16) -> Response {
        let (status, reason) = match self {
            Self::Forbidden => (StatusCode::FORBIDDEN, "is at no address that may be asked".to_owned()),
            Self::Circle => (StatusCode::LOOP_DETECTED, "is this proxy".to_owned()),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, format!("has not answered within {CONNECT:?}")),
            Self::Failed(error) => (StatusCode::BAD_GATEWAY, format!("cannot be connected to: {error}")),
        };
        refuse(status, format!("{host}:{port} {reason}"))
    }
}

/// Host, without the brackets of an address, and port.
fn target(authority: &Authority) -> Option<(String, u16)> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some((host.to_owned(), authority.port_u16()?))
}

async fn connect(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, Refusal> {
    let addresses = proxy.forward.addresses(host, port).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Refusal::Forbidden,
        _ => Refusal::Failed(error),
    })?;
    let server = dial(&addresses).await.map_err(Refusal::Failed)?;
    let ends = server.peer_addr().and_then(|peer| Ok((peer, server.local_addr()?.ip())));
    let (peer, own) = ends.map_err(Refusal::Failed)?;
    if is_at(proxy.at, peer, own) {
        return Err(Refusal::Circle);
    }
    server.set_nodelay(true).map_err(Refusal::Failed)?;
    Ok(server)
}

async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(server)) => return Ok(server),
            Ok(Err(error)) => failed = error,
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

/// Whether who listens at `listener` is at `peer`, which this machine has reached from its address `own`.
fn is_at(listener: SocketAddr, peer: SocketAddr, own: IpAddr) -> bool {
    let (ip, bound) = (peer.ip().to_canonical(), listener.ip().to_canonical());
    let is_here = ip.is_loopback() || ip == own.to_canonical();
    listener.port() == peer.port() && (bound == ip || bound.is_unspecified() && is_here)
}

/// When bytes last moved, either way.
struct Moved(Mutex<Instant>);

impl Moved {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns once nothing has moved for `idle`.
    async fn rests(&self, idle: Duration) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + idle;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// Carries bytes until both sides have ended, one has failed, or nothing moves any more.
async fn carry_both<A, B>(caller: A, server: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let moved = Moved(Mutex::new(Instant::now()));
    let ((from_caller, to_caller), (from_server, to_server)) = (split(caller), split(server));
    let both = async {
        let there = carry(from_caller, to_server, &moved);
        tokio::try_join!(there, carry(from_server, to_caller, &moved))
    };
    tokio::select! {
        carried = both => carried.map(drop),
        () = moved.rests(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Carries bytes one way, and their end.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        moved.now();
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        moved.now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_knows_its_own_address_however_it_is_reached() {
        let at = |listener: &str, peer: &str, own: &str| {
            is_at(listener.parse().unwrap(), peer.parse().unwrap(), own.parse().unwrap())
        };
        assert!(at("127.0.0.1:7", "127.0.0.1:7", "127.0.0.1"));
        assert!(at("127.0.0.1:7", "[::ffff:127.0.0.1]:7", "::ffff:127.0.0.1"));
        assert!(at("0.0.0.0:7", "127.0.0.2:7", "127.0.0.1"));
        assert!(at("0.0.0.0:7", "10.0.0.1:7", "10.0.0.1"));
        assert!(!at("0.0.0.0:7", "10.0.0.2:7", "10.0.0.1"));
        assert!(!at("127.0.0.1:7", "127.0.0.2:7", "127.0.0.1"));
        assert!(!at("127.0.0.1:7", "127.0.0.1:8", "127.0.0.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_side_may_end_before_the_other() {
        let ((mut caller, near), (far, mut server)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let tunnel = tokio::spawn(carry_both(near, far, IDLE));
        let question = vec![0x16; 100_000];
        let asked = question.clone();
        let asking = tokio::spawn(async move {
            caller.write_all(&asked).await.unwrap();
            caller.shutdown().await.unwrap();
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert!(heard == question);
        server.write_all(b"after the end of the question").await.unwrap();
        drop(server);
        assert_eq!(asking.await.unwrap(), b"after the end of the question");
        tunnel.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_in_which_nothing_moves_ends_and_one_that_is_used_does_not() {
        let ((mut caller, near), (far, mut server)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let tunnel = tokio::spawn(carry_both(near, far, IDLE));
        for _ in 0..5 {
            tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
            server.write_all(b"x").await.unwrap();
            assert_eq!(caller.read_u8().await.unwrap(), b'x');
        }
        let ended = tunnel.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0, "both sides are told");
    }
}
