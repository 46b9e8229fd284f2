//! Values as they are written.

use std::net::SocketAddr;

use nix::unistd::Group;
use service::size;

use super::Advertise;
use crate::PieceLayout;

pub(super) fn advertise(text: &str) -> Result<Advertise, String> {
    let whole = text.parse().map(|ip| Advertise { ip, port: None });
    let with_port = || text.parse().map(|at: SocketAddr| Advertise { ip: at.ip(), port: Some(at.port()) });
    let address = whole.or_else(|_| with_port()).map_err(|_| format!("{text:?} is not an address"))?;
    if address.ip.is_unspecified() { Err(format!("{text} is not one address")) } else { Ok(address) }
}

pub(super) fn piece_size(text: &str) -> Result<u32, String> {
    let size = size::parse(text)?;
    let sound = u32::try_from(size).ok().filter(|size| PieceLayout::new(0, *size).is_ok());
    sound.ok_or_else(|| format!("{text} is no power of two from 64KiB to 16MiB"))
}

pub(super) fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let found = Group::from_name(text).map_err(|error| format!("{text:?}: {error}"))?;
    found.map(|group| group.gid.as_raw()).ok_or_else(|| format!("there is no group {text:?}"))
}
