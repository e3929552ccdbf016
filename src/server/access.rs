//! The rules for which peers may connect, and how many connections each may have.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use ring::{Peer, PeerQuery};

use rumpsp::url::Url;

/// The rules for who may connect. Where everybody may, the server does not ask the system who a peer is.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The users who may connect to a unix URL. If this and `groups` are both empty, everybody may whom
    /// the mode of the socket file lets.
    pub users: Vec<u32>,
    /// The groups whose members may connect to a unix URL.
    pub groups: Vec<u32>,
    /// The networks whose hosts may connect to a tcp URL. If this is empty, every host may, but then the
    /// server listens only on the loopback address, unless `anywhere` is set.
    pub networks: Vec<IpNet>,
    /// True if the server listens at any URL, even if nothing says who may connect, as NetBSD's
    /// rump_server does.
    pub anywhere: bool,
    /// The number of connections that one peer may have. A peer is a user, a host, or a /64 network of
    /// IPv6 hosts.
    pub per_peer: Option<usize>,
}

/// The peer that a connection is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKey {
    User(u32),
    /// A host. For IPv6, only the first 64 bits are kept: a host that has one address of a /64 has them
    /// all.
    Host(IpAddr),
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerKey::User(uid) => write!(f, "user {uid}"),
            PeerKey::Host(host @ IpAddr::V4(_)) => write!(f, "{host}"),
            PeerKey::Host(host) => write!(f, "{host}/64"),
        }
    }
}

impl Access {
    /// Returns the question to ask the system about each connection to this URL, or `None` if there is
    /// none.
    pub fn ask(&self, url: &Url) -> Option<PeerQuery> {
        let lists = match url {
            Url::Unix(_) if !self.groups.is_empty() => return Some(PeerQuery::PeerAndGroups),
            Url::Unix(_) => !self.users.is_empty(),
            Url::Tcp(_) | Url::Tcp6(_) => !self.networks.is_empty(),
        };
        (lists || self.per_peer.is_some()).then_some(PeerQuery::Peer)
    }

    /// Returns `true` if something says who may connect to this URL. The protocol has no passwords, so
    /// everybody who reaches a port may use the server.
    pub fn is_said(&self, url: &Url) -> bool {
        let address = url.socket_addr();
        !self.networks.is_empty() || address.is_none_or(|address| address.ip().is_loopback())
    }

    /// Returns `true` if this peer may connect.
    fn allows(&self, peer: &Peer) -> bool {
        match peer {
            Peer::User { uid, gid, groups, .. } => {
                let any = self.users.is_empty() && self.groups.is_empty();
                let is_member =
                    self.groups.iter().any(|group| group == gid || groups.contains(group));
                any || is_member || self.users.contains(uid)
            }
            Peer::Address(address) => {
                let ip = address.ip().to_canonical();
                self.networks.is_empty() || self.networks.iter().any(|net| net.contains(&ip))
            }
        }
    }
}

/// The open connections, counted by peer.
pub struct Admission {
    access: Access,
    inside: HashMap<PeerKey, usize>,
}

impl Admission {
    /// Creates an `Admission` that has counted no connections.
    pub fn new(access: Access) -> Admission {
        Admission { access, inside: HashMap::new() }
    }

    /// Admits a peer and counts it, or returns the reason why the peer may not connect. `None` stands for
    /// a peer that the system was not asked about; it is always admitted.
    pub fn admit(&mut self, peer: Option<&Peer>) -> Result<Option<PeerKey>, String> {
        let Some(peer) = peer else {
            return Ok(None);
        };
        let key = key(peer);
        if !self.access.allows(peer) {
            return Err(format!("{key} may not connect"));
        }
        let Some(most) = self.access.per_peer else {
            return Ok(None);
        };
        let inside = self.inside.entry(key).or_default();
        if *inside >= most {
            return Err(format!("{key} has {most} connections already"));
        }
        *inside += 1;
        Ok(Some(key))
    }

    /// Notes that a connection of this peer is closed.
    pub fn leave(&mut self, key: PeerKey) {
        if let Some(inside) = self.inside.get_mut(&key) {
            *inside -= 1;
            if *inside == 0 {
                self.inside.remove(&key);
            }
        }
    }
}

fn key(peer: &Peer) -> PeerKey {
    match peer {
        Peer::User { uid, .. } => PeerKey::User(*uid),
        Peer::Address(address) => PeerKey::Host(match address.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
            ip => ip,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer::User { pid: 1, uid, gid, groups: groups.to_vec() }
    }

    fn host(address: &str) -> Peer {
        Peer::Address(address.parse().unwrap())
    }

    fn door(change: impl FnOnce(&mut Access)) -> Admission {
        let mut access = Access::default();
        change(&mut access);
        Admission::new(access)
    }

    #[test]
    fn a_user_or_a_member_of_a_group_may() {
        let mut door = door(|access| (access.users, access.groups) = (vec![7], vec![30]));
        for (peer, may) in [
            (user(7, 1, &[]), true),
            (user(8, 30, &[]), true),
            (user(8, 1, &[2, 30]), true),
            (user(8, 1, &[2]), false),
            (user(0, 0, &[]), false),
        ] {
            assert_eq!(door.admit(Some(&peer)).is_ok(), may, "{peer:?}");
        }
    }

    #[test]
    fn hosts_of_the_networks_may() {
        let networks = ["10.0.0.0/8", "fd00::/16", "127.0.0.1/32"];
        let mut door = door(|access| {
            access.networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        });
        for (address, may) in [
            ("10.255.0.1:1", true),
            ("11.0.0.1:1", false),
            ("127.0.0.1:9", true),
            ("127.0.0.2:9", false),
            ("[fd00::1]:1", true),
            ("[fd01::1]:1", false),
            ("[::ffff:10.1.1.1]:1", true),
        ] {
            assert_eq!(door.admit(Some(&host(address))).is_ok(), may, "{address}");
        }
    }

    #[test]
    fn a_peer_has_so_many_connections_and_one_more_when_one_has_gone() {
        let mut door = door(|access| access.per_peer = Some(2));
        let key = door.admit(Some(&host("[2001:db8::1]:1"))).unwrap().unwrap();
        door.admit(Some(&host("[2001:db8::2]:1"))).unwrap();
        let refused = door.admit(Some(&host("[2001:db8::3]:1"))).unwrap_err();
        assert_eq!(refused, "2001:db8::/64 has 2 connections already");
        door.admit(Some(&host("[2001:db8:0:1::3]:1"))).expect("another network");
        door.leave(key);
        door.admit(Some(&host("[2001:db8::3]:1"))).expect("one has gone");
        door.leave(key);
        door.leave(key);
        assert!(!door.inside.contains_key(&key), "nothing is kept of who has gone");
    }

    #[test]
    fn nobody_is_asked_where_everybody_may() {
        let (unix, tcp) = ("unix:///s".parse().unwrap(), "tcp://127.0.0.1:1".parse().unwrap());
        let access = Access::default();
        assert_eq!((access.ask(&unix), access.ask(&tcp)), (None, None));
        let access = Access { groups: vec![1], ..Access::default() };
        assert_eq!((access.ask(&unix), access.ask(&tcp)), (Some(PeerQuery::PeerAndGroups), None));
        let access = Access { per_peer: Some(1), ..Access::default() };
        assert_eq!(
            (access.ask(&unix), access.ask(&tcp)),
            (Some(PeerQuery::Peer), Some(PeerQuery::Peer))
        );
    }
}
