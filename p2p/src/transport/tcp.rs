//! How two nodes come together over TCP: TLS, in which each proves who it is, then a greeting in both directions.
//!
//! The one that dials greets first. The other answers only if it wants the connection, so that the first knows.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use p2p_api::peer::{Body, Hello};
use rustls::{ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    Closed,
    frame::{self, Frame},
};
use crate::{Identity, NodeId, identity};

/// How many bytes the kernel takes beyond what is under way.
const UNSENT: u32 = 128 << 10;
/// How long it may take until a node that is dialed has answered.
pub(super) const DIAL: Duration = Duration::from_secs(2);
/// How long a node that dials may take to prove who it is.
pub(super) const PROVE: Duration = Duration::from_secs(5);

/// A node at the other end.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) node: NodeId,
    pub(super) hello: Hello,
}

/// Why a node was not reached.
#[derive(Debug)]
pub(super) enum DialFailed {
    /// It is this member, and does not want this connection.
    TurnedAway(NodeId),
    Unreachable(String),
}

/// Dials `address`, where `expected` is if that is known.
pub(super) async fn dial(
    identity: &Identity,
    expected: Option<NodeId>,
    address: SocketAddr,
    greeting: Bytes,
) -> Result<Met, DialFailed> {
    let unreachable = |error: &dyn std::error::Error| DialFailed::Unreachable(error.to_string());
    let config = identity.client_config(expected).map_err(|error| unreachable(&error))?;
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    tune(&stream).map_err(|error| unreachable(&error))?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream =
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| unreachable(&error))?;
    let mut stream = TlsStream::Client(stream);
    greet(&mut stream, &greeting).await.map_err(|closed| unreachable(&closed))?;
    let node = proven(&stream).map_err(|closed| unreachable(&closed))?;
    match greeting_from(&mut stream).await {
        Ok(hello) => Ok(Met { stream, node, hello }),
        Err(Closed::There) => Err(DialFailed::TurnedAway(node)),
        Err(closed) => Err(unreachable(&closed)),
    }
}

/// Sends at once, and takes no more than the network does: what the kernel holds, nothing urgent can overtake.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

/// Lets a node that dialed prove who it is, and hears its greeting.
pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> Result<Met, Closed> {
    tune(&stream).map_err(frame::failed)?;
    let stream = TlsAcceptor::from(config).accept(stream).await.map_err(frame::failed)?;
    let mut stream = TlsStream::Server(stream);
    let node = proven(&stream)?;
    let hello = greeting_from(&mut stream).await?;
    Ok(Met { stream, node, hello })
}

/// Answers a node that dialed: the connection is wanted.
pub(super) async fn greet(stream: &mut TlsStream<TcpStream>, greeting: &Bytes) -> Result<(), Closed> {
    let greeted = async {
        stream.write_all(greeting).await?;
        stream.flush().await
    };
    timeout(DIAL, greeted).await.map_err(|_| Closed::Stalled)?.map_err(frame::failed)
}

fn proven(stream: &TlsStream<TcpStream>) -> Result<NodeId, Closed> {
    let (_, connection) = stream.get_ref();
    identity::peer_of(connection.peer_certificates())
        .ok_or_else(|| Closed::Broken("no certificate".to_owned()))
}

async fn greeting_from(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, Closed> {
    match frame::read(stream).await? {
        Frame::Message(Body::Hello(hello)) => Ok(hello),
        _ => Err(Closed::Broken("no greeting".to_owned())),
    }
}
