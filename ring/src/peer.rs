//! The peer of a connection: the socket options that report it, and the meaning of their values.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use io_uring::{opcode, squeue, types};

/// The query a listener makes for each connection, by [`Ring::listen_for`](crate::Ring::listen_for).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerQuery {
    /// The user at the other end of a unix socket, or the address at the other end of a TCP socket.
    Peer,
    /// The peer as for `Peer`, and the supplementary groups of a user.
    PeerAndGroups,
}

/// The user or the address at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// For a unix socket: the process that called connect(2), as it was then. `SO_PEERCRED` and
    /// `SO_PEERGROUPS` in unix(7), socket(7).
    User {
        /// The process; 0 for a process of another PID namespace.
        pid: i32,
        /// The effective user; the overflow user (65534) if our user namespace has no number for it.
        uid: u32,
        /// The effective group.
        gid: u32,
        /// The supplementary groups. Empty if they were not asked for, or are more than 1024.
        groups: Vec<u32>,
    },
    /// For a TCP socket. An IPv4 client of an IPv6 listener is reported by its IPv4 address.
    Address(SocketAddr),
}

/// The most supplementary groups that are reported.
pub(crate) const MOST_GROUPS: usize = 1024;

/// A socket option that tells something about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    User,
    Groups,
    Address4,
    Address6,
}

/// `SO_PEERNAME`, which libc defines for some targets only: getpeername(2) as an option.
const SO_PEERNAME: i32 = 28;
/// Bytes of a `struct sockaddr_in` and a `struct sockaddr_in6`.
const SOCKADDR_IN: usize = size_of::<libc::sockaddr_in>();
const SOCKADDR_IN6: usize = size_of::<libc::sockaddr_in6>();
/// Bytes of a `struct ucred`: pid, uid, gid.
const UCRED: usize = size_of::<libc::ucred>();

impl Question {
    /// Returns the first question for a connection of this address family, or `None`.
    pub fn of_family(domain: i32) -> Option<Question> {
        match domain {
            libc::AF_UNIX => Some(Question::User),
            libc::AF_INET => Some(Question::Address4),
            libc::AF_INET6 => Some(Question::Address6),
            _ => None,
        }
    }

    fn option(self) -> i32 {
        match self {
            Question::User => libc::SO_PEERCRED,
            Question::Groups => libc::SO_PEERGROUPS,
            Question::Address4 | Question::Address6 => SO_PEERNAME,
        }
    }

    /// Returns the number of words an answer may have. The kernel writes exactly as many bytes of an
    /// address as are asked for, and refuses to be asked for more.
    pub fn words(self) -> usize {
        match self {
            Question::User => UCRED / 4,
            Question::Groups => MOST_GROUPS,
            Question::Address4 => SOCKADDR_IN / 4,
            Question::Address6 => SOCKADDR_IN6 / 4,
        }
    }

    /// Returns the request: `SOCKET_URING_OP_GETSOCKOPT`, Linux 6.7. The kernel writes to `answer`
    /// until the request completes with the number of bytes written. A direct descriptor needs
    /// `IOSQE_FIXED_FILE` as well.
    pub fn entry(self, fd: types::Fd, answer: &mut [u32]) -> squeue::Entry {
        const GETSOCKOPT: u32 = 2;
        debug_assert_eq!(answer.len(), self.words());
        let (level, option) = (libc::SOL_SOCKET as u32, self.option() as u32);
        let (to, len) = (answer.as_mut_ptr().cast_const().cast(), size_of_val(answer) as u32);
        let mut entry = opcode::SetSockOpt::new(fd, level, option, to, len).build();
        // The crate has only the setter, which differs in the operation: `cmd_op`, at offset 8.
        const _: () = assert!(size_of::<squeue::Entry>() == 64);
        // SAFETY: an entry is a `struct io_uring_sqe` of 64 bytes, aligned to 8; any value of `cmd_op`
        // is valid.
        unsafe { (&raw mut entry).cast::<u32>().add(2).write(GETSOCKOPT) };
        entry
    }

    /// Decodes an answer of `written` bytes; `None` if it is not valid.
    pub fn understand(self, answer: &[u32], written: usize) -> Option<Peer> {
        let bytes = size_of_val(answer.get(..self.words())?);
        if written != bytes {
            return None;
        }
        match self {
            Question::User => Some(Peer::User {
                pid: answer[0] as i32,
                uid: answer[1],
                gid: answer[2],
                groups: Vec::new(),
            }),
            Question::Groups => None,
            Question::Address4 | Question::Address6 => Some(Peer::Address(address(answer)?)),
        }
    }
}

/// Decodes the address in a `struct sockaddr_in` or `sockaddr_in6`.
fn address(words: &[u32]) -> Option<SocketAddr> {
    let mut bytes = [0; SOCKADDR_IN6];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes[4..8].try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), port))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes[8..24].try_into().ok()?;
            let ip = Ipv6Addr::from(ip);
            if let Some(ip) = ip.to_ipv4_mapped() {
                return Some(SocketAddr::new(ip.into(), port));
            }
            let scope = u32::from_ne_bytes(bytes[24..28].try_into().ok()?);
            Some(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|four| u32::from_ne_bytes(four.try_into().unwrap())).collect()
    }

    fn sockaddr(family: i32, port: u16, rest: &[u8]) -> Vec<u32> {
        let family = (family as u16).to_ne_bytes();
        words(&[&family[..], &port.to_be_bytes(), rest].concat())
    }

    fn heard(question: Question, answer: &[u32]) -> Option<String> {
        match question.understand(answer, size_of_val(answer))? {
            Peer::Address(address) => Some(address.to_string()),
            Peer::User { .. } => panic!("a user with an address"),
        }
    }

    #[test]
    fn addresses_of_both_families() {
        let v4 = sockaddr(libc::AF_INET, 80, &[127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(heard(Question::Address4, &v4).unwrap(), "127.0.0.9:80");
        let v6 = |ip: &str, scope: u32| {
            let ip: Ipv6Addr = ip.parse().unwrap();
            let rest = [&[0; 4][..], &ip.octets(), &scope.to_ne_bytes()].concat();
            heard(Question::Address6, &sockaddr(libc::AF_INET6, 5000, &rest)).unwrap()
        };
        assert_eq!(v6("::1", 0), "[::1]:5000");
        assert_eq!(v6("fe80::1", 3), "[fe80::1%3]:5000");
        assert_eq!(v6("::ffff:10.0.0.1", 0), "10.0.0.1:5000");
    }

    #[test]
    fn what_cannot_be_an_answer_is_none() {
        let unix = sockaddr(libc::AF_UNIX, 1, &[0; 12]);
        assert_eq!(heard(Question::Address4, &unix), None);
        let v4 = sockaddr(libc::AF_INET, 1, &[0; 12]);
        assert_eq!(Question::Address4.understand(&v4, 15), None, "it is short");
        assert_eq!(Question::Address6.understand(&v4, 16), None, "it is another's");
        assert_eq!(Question::User.understand(&[1, 2], 8), None);
        let user = Peer::User { pid: 1, uid: 2, gid: 3, groups: vec![] };
        assert_eq!(Question::User.understand(&[1, 2, 3], 12), Some(user));
    }

    #[test]
    fn an_entry_asks_for_what_fits() {
        let mut answer = vec![0; Question::Address4.words()];
        let entry = Question::Address4.entry(types::Fd(7), &mut answer);
        // SAFETY: an entry is 64 initialized bytes.
        let bytes: [u32; 16] = unsafe { std::mem::transmute(entry) };
        let addressed = [bytes[12], bytes[13]].map(u64::from);
        let (level, option, len) = (bytes[4], bytes[5], bytes[11]);
        assert_eq!((bytes[1], bytes[2]), (7, 2), "the descriptor, GETSOCKOPT");
        assert_eq!((level, option, len), (libc::SOL_SOCKET as u32, 28, 16));
        assert_eq!(addressed[0] | addressed[1] << 32, answer.as_ptr() as u64);
    }
}
