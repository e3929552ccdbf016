//! `net.route.rtable`: lists of interfaces for getifaddrs(3) and if_nametoindex(3). The table of routes is
//! empty.
//!
//! Source: NetBSD `sys/net/{route.h,rtsock.c}`; route(4), sysctl(7).

use super::super::call::{Result, SyscallContext};
use super::super::interfaces;
use super::{Request, generic, query};
use kernel::Errno;

/// `NET_RT_DUMP`, `NET_RT_FLAGS`, `NET_RT_IFLIST`
const ROUTES: i32 = 1;
const ROUTES_WITH: i32 = 2;
const INTERFACES: i32 = 5;

/// `RTF_LLDATA`: link addresses, which are listed by family.
const LINK_ADDRESSES: i32 = 0x400;

/// `net.route.rtable.FAMILY.WHAT.WHICH`: copies out the messages that fit. Without room it returns a tenth
/// more than the size of all. NetBSD: `sysctl_rtable`.
pub(super) fn list(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    at: usize,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let (family, what, which) = match name[at..] {
        [generic::QUERY] => return query(run, &[], request, needed),
        _ if request.new != 0 => return Err(Errno::EPERM.into()),
        [family, what, which] => (family as u8, what, which),
        _ => return Err(Errno::EINVAL.into()),
    };
    let messages = match what {
        ROUTES_WITH if family == 0 && (which == 0 || which & LINK_ADDRESSES != 0) => None,
        ROUTES | ROUTES_WITH => Some(Vec::new()),
        INTERFACES => Some(interfaces::messages(run.system(), family, which)),
        _ => None,
    };
    *needed = 0;
    let messages = messages.ok_or(Errno::EINVAL)?;
    let total: usize = messages.iter().map(Vec::len).sum();
    if request.old == 0 {
        *needed = total as u64 * 11 / 10;
        return Ok(());
    }
    let mut fit = Vec::new();
    for message in messages {
        if (fit.len() + message.len()) as u64 > request.room {
            break;
        }
        fit.extend(message);
    }
    *needed = fit.len() as u64;
    if !fit.is_empty() {
        run.copyout(&fit, request.old)?;
    }
    if fit.len() < total { Err(Errno::ENOMEM.into()) } else { Ok(()) }
}
