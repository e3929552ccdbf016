//! `net.*.pcblist`: the sockets, as netstat(1) and sockstat(1) read them.
//!
//! Sources: NetBSD `sys/kern/uipc_domain.c` (`sysctl_unpcblist`), `sys/netinet/tcp_usrreq.c`
//! (`sysctl_inpcblist`).

use super::super::call::{Result, SyscallContext};
use super::super::sockets::{self, listing};
use super::elements::elements;
use super::{Request, generic, query};
use kernel::Errno;

/// The entries to have room for beyond the present number, when the client asks for the size (`PCB_SLOP`).
const SLOP: u64 = 20;

const LOCAL: i32 = sockets::LOCAL as i32;

/// `net.FAMILY.KIND.pcblist.0.0.SIZE.COUNT`: KIND is a socket type for AF_LOCAL, otherwise a protocol.
pub(super) fn list(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    at: usize,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let (family, kind) = (name[1], name[2]);
    let (size, count) = match name[at..] {
        [generic::QUERY] if family == LOCAL => return query(run, &[], request, needed),
        [_, _, size, count] => (size, count),
        _ => return Err(Errno::EINVAL.into()),
    };
    let fixed = listing::ENTRY as u64;
    if request.old != 0 && i64::from(size) as u64 != fixed {
        return Err(Errno::EINVAL.into());
    }
    let found = listing::all(run.system(), |socket| match family {
        LOCAL => socket.is(family, Some(kind), None),
        _ => socket.is(family, None, Some(kind)),
    });
    elements(run, request, needed, &found, (fixed, count, SLOP), listing::entry)
}
