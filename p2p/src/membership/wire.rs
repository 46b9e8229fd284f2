//! Gossip as bytes.
//!
//! ```text
//! datagram  header | count 2 | count × (who, incarnation 2, state 1)
//! header    who of the sender | its incarnation 2 | who of the receiver | kind 1 | [who] | [number 1]
//! who       node 32 | boot 8 | 4 or 6 | address 4 or 16 | port 2
//! ```

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use super::who::{Who, is_reachable};
use crate::NodeId;

/// Bytes that are no gossip, or that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("no gossip, or too long")]
pub(super) struct Malformed;

/// Writes and reads gossip.
#[derive(Debug)]
pub(super) struct Wire;

/// A datagram, taken apart.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) header: Header<Who>,
    pub(super) members: Vec<Member<Who>>,
}

impl Parsed {
    pub(super) fn of(mut datagram: &[u8]) -> Result<Self, Malformed> {
        let header = Wire.decode_header(&mut datagram)?;
        let mut members = Vec::new();
        if datagram.has_remaining() {
            for _ in 0..datagram.try_get_u16().map_err(|_| Malformed)? {
                members.push(Wire.decode_member(&mut datagram)?);
            }
        }
        if datagram.has_remaining() { Err(Malformed) } else { Ok(Self { header, members }) }
    }

    /// As it came, or without some members.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::new();
        Wire.encode_header(&self.header, &mut bytes)?;
        if self.header.message != Message::Announce {
            bytes.put_u16(self.members.len().try_into().map_err(|_| Malformed)?);
            self.members.iter().try_for_each(|member| Wire.encode_member(member, &mut bytes))?;
        }
        Ok(bytes)
    }
}

impl Codec<Who> for Wire {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Who>, buf: impl BufMut) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(256);
        put_who(&mut bytes, &header.src);
        bytes.put_u16(header.src_incarnation);
        put_who(&mut bytes, &header.dst);
        let (kind, about, number) = match &header.message {
            Message::Ping(number) => (1, None, Some(number)),
            Message::Ack(number) => (2, None, Some(number)),
            Message::PingReq { target, probe_number } => (3, Some(target), Some(probe_number)),
            Message::IndirectPing { origin, probe_number } => (4, Some(origin), Some(probe_number)),
            Message::IndirectAck { target, probe_number } => (5, Some(target), Some(probe_number)),
            Message::ForwardedAck { origin, probe_number } => (6, Some(origin), Some(probe_number)),
            Message::Announce => (7, None, None),
            Message::Feed => (8, None, None),
            Message::Gossip => (9, None, None),
            Message::TurnUndead => (10, None, None),
            Message::Broadcast => return Err(Malformed),
        };
        bytes.put_u8(kind);
        about.into_iter().for_each(|who| put_who(&mut bytes, who));
        bytes.extend(number);
        put_whole(&bytes, buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Who>, Malformed> {
        let src = get_who(&mut buf)?;
        let src_incarnation = buf.try_get_u16().map_err(|_| Malformed)?;
        let dst = get_who(&mut buf)?;
        let kind = buf.try_get_u8().map_err(|_| Malformed)?;
        let about = (3..=6).contains(&kind).then(|| get_who(&mut buf)).transpose()?.unwrap_or(src);
        let probe_number =
            if kind <= 6 { buf.try_get_u8().map_err(|_| Malformed)? } else { Default::default() };
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq { target: about, probe_number },
            4 => Message::IndirectPing { origin: about, probe_number },
            5 => Message::IndirectAck { target: about, probe_number },
            6 => Message::ForwardedAck { origin: about, probe_number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::TurnUndead,
            _ => return Err(Malformed),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Who>, buf: impl BufMut) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(64);
        put_who(&mut bytes, member.id());
        bytes.put_u16(member.incarnation());
        bytes.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        put_whole(&bytes, buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Who>, Malformed> {
        let who = get_who(&mut buf)?;
        let incarnation = buf.try_get_u16().map_err(|_| Malformed)?;
        let state = match buf.try_get_u8() {
            Ok(0) => State::Alive,
            Ok(1) => State::Suspect,
            Ok(2) => State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(who, incarnation, state))
    }
}

/// All of it or nothing.
fn put_whole(bytes: &[u8], mut buf: impl BufMut) -> Result<(), Malformed> {
    if buf.remaining_mut() < bytes.len() {
        return Err(Malformed);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn put_who(bytes: &mut Vec<u8>, who: &Who) {
    bytes.put_slice(&who.node.0);
    bytes.put_u64(who.boot);
    match who.address.ip() {
        IpAddr::V4(ip) => {
            bytes.put_u8(4);
            bytes.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.put_u8(6);
            bytes.put_slice(&ip.octets());
        }
    }
    bytes.put_u16(who.address.port());
}

fn get_who(buf: &mut impl Buf) -> Result<Who, Malformed> {
    let node = NodeId(array(buf)?);
    let boot = u64::from_be_bytes(array(buf)?);
    let ip: IpAddr = match array(buf)? {
        [4] => array::<4>(buf)?.into(),
        [6] => array::<16>(buf)?.into(),
        _ => return Err(Malformed),
    };
    let address = SocketAddr::new(ip, u16::from_be_bytes(array(buf)?));
    if is_reachable(address) { Ok(Who { node, address, boot }) } else { Err(Malformed) }
}

fn array<const N: usize>(buf: &mut impl Buf) -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    buf.try_copy_to_slice(&mut bytes).map_err(|_| Malformed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn who(number: u8, address: &str) -> Who {
        Who { node: NodeId([number; 32]), address: address.parse().unwrap(), boot: 1 << 40 }
    }

    #[test]
    fn every_kind_of_gossip_is_read_as_it_was_written() {
        let (src, dst, about) = (who(1, "10.0.0.1:1"), who(2, "[fd00::2]:65535"), who(3, "10.0.0.3:4700"));
        let messages = [
            Message::Ping(1),
            Message::Ack(255),
            Message::PingReq { target: about, probe_number: 2 },
            Message::IndirectPing { origin: about, probe_number: 3 },
            Message::IndirectAck { target: about, probe_number: 4 },
            Message::ForwardedAck { origin: about, probe_number: 5 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ];
        for message in messages {
            let members = match message {
                Message::Announce => Vec::new(),
                _ => vec![Member::alive(about), Member::new(dst, 9, State::Suspect), Member::down(src)],
            };
            let sent =
                Parsed { header: Header { src, src_incarnation: 4, dst, message: message.clone() }, members };
            let bytes = sent.bytes().unwrap();
            let read = Parsed::of(&bytes).unwrap();
            assert_eq!((&read.header, &read.members), (&sent.header, &sent.members));
            let mut header = Vec::new();
            Wire.encode_header(&sent.header, &mut header).unwrap();
            for cut in (0..bytes.len()).filter(|cut| *cut != header.len()) {
                assert!(Parsed::of(&bytes[..cut]).is_err(), "{cut} bytes of {message:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let mut short = Vec::new();
        assert!(Wire.encode_member(&Member::alive(who(1, "10.0.0.1:1")), (&mut short).limit(10)).is_err());
        assert!(short.is_empty());
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Parsed::of(&bytes));
        }
    }
}
