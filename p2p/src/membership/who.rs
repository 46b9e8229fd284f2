//! A process of a node, and what members say about one.

use std::net::SocketAddr;

use foca::{Member, State};
use p2p_api::peer;

use crate::NodeId;

/// A process of a node. Of two of one node the later counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) node: NodeId,
    /// Where it is reached, by TCP and UDP alike.
    pub(super) address: SocketAddr,
    /// Grows from process to process of a node, and whenever a process is taken for dead.
    pub(super) boot: u64,
}

impl foca::Identity for Who {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { boot: self.boot.saturating_add(1), ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.boot > adversary.boot
    }
}

/// Whether a node may be reached there at all.
pub(super) fn is_reachable(address: SocketAddr) -> bool {
    address.port() > 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

/// What a message says about a member; `None` where that makes no sense.
pub(super) fn read(member: &peer::Member) -> Option<Member<Who>> {
    let node = NodeId(member.id.as_ref().try_into().ok()?);
    let address = member.address.parse().ok().filter(|address| is_reachable(*address))?;
    let state = match member.state() {
        peer::State::Alive => State::Alive,
        peer::State::Suspect => State::Suspect,
        peer::State::Down => State::Down,
    };
    let incarnation = member.incarnation.try_into().ok()?;
    Some(Member::new(Who { node, address, boot: member.boot }, incarnation, state))
}

/// What is said about a member.
pub(super) fn write(member: &Member<Who>) -> peer::Member {
    let who = member.id();
    let state = match member.state() {
        State::Alive => peer::State::Alive,
        State::Suspect => peer::State::Suspect,
        State::Down => peer::State::Down,
    };
    peer::Member {
        id: who.node.0.to_vec().into(),
        address: who.address.to_string(),
        incarnation: member.incarnation().into(),
        state: state.into(),
        boot: who.boot,
        ..peer::Member::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_a_member_is_read_as_it_was_written() {
        let who = Who { node: NodeId([3; 32]), address: "10.1.2.3:4700".parse().unwrap(), boot: 7 };
        for state in [State::Alive, State::Suspect, State::Down] {
            let member = Member::new(who, 5, state);
            assert_eq!(read(&write(&member)), Some(member));
        }
    }

    #[test]
    fn addresses_at_which_nobody_is_are_refused() {
        let who = Who { node: NodeId([3; 32]), address: "10.1.2.3:4700".parse().unwrap(), boot: 7 };
        let good = write(&Member::alive(who));
        for address in ["0.0.0.0:1", "[::]:1", "224.0.0.1:1", "10.0.0.1:0", "example.com:1", ""] {
            assert_eq!(read(&peer::Member { address: address.into(), ..good.clone() }), None, "{address}");
        }
        assert_eq!(read(&peer::Member { id: vec![1].into(), ..good.clone() }), None);
        assert_eq!(read(&peer::Member { incarnation: 1 << 16, ..good }), None);
    }
}
