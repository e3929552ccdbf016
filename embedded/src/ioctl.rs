//! ioctl: the requests that every descriptor answers; each kind of file answers the rest itself.
//!
//! Sources: NetBSD `sys/kern/sys_generic.c`, `sys/sys/{filio,ttycom,ioccom}.h`; ioctl(2).

use crate::owner::{Owner, Whom};
use std::sync::Arc;

use super::abi::{i32_at, open};
use super::call::{Answer, SyscallContext};
use super::listed::{Listed, Runs, partly};
use super::process::INIT;
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[partly(
    sys::IOCTL,
    Runs::Inline,
    ioctl,
    "FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, FIONREAD, FIONWRITE, FIONSPACE, SIOCATMARK, the owner of a pipe or socket, what getifaddrs(3) and ifconfig(8) ask of lo0, and TIOCGETA on the console",
)];

const FIOCLEX: u32 = 0x2000_6601;
const FIONCLEX: u32 = 0x2000_6602;
pub(super) const FIOASYNC: u32 = 0x8004_667d;
pub(super) const FIONBIO: u32 = 0x8004_667e;
pub(super) const FIONREAD: u32 = 0x4004_667f;
pub(super) const FIONWRITE: u32 = 0x4004_6679;
pub(super) const FIONSPACE: u32 = 0x4004_6678;
/// The request for a terminal's settings, by which isatty(3) asks.
pub(super) const TIOCGETA: u32 = 0x402c_7413;
pub(super) const SIOCATMARK: u32 = 0x4004_7307;

/// Requests that set and get the owner of a file, who gets its signals: a process or, if negative, a group.
/// The second pair negates the ID, and takes groups only.
const FIOSETOWN: u32 = 0x8004_667c;
const FIOGETOWN: u32 = 0x4004_667b;
const TIOCSPGRP: u32 = 0x8004_7476;
const TIOCGPGRP: u32 = 0x4004_7477;
/// The first pair once more, for sockets.
const SIOCSPGRP: u32 = 0x8004_7308;
const SIOCGPGRP: u32 = 0x4004_7309;

/// A request contains the size of what its argument points to, at most a page, and a flag that it is copied
/// in (`ioccom.h`).
const MOST: u32 = 4096;
const IN: u32 = 0x8000_0000;

/// Returns the number of bytes of the request's argument.
pub(super) const fn size(request: u32) -> u32 {
    request >> 16 & 0x1fff
}

/// `int ioctl(int fd, u_long com, ... void *data)`
fn ioctl(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (fd, request, addr) = (run.int(0), run.uint(1), run.word(2));
    let file = run.file(fd)?;
    file.check(open::FREAD | open::FWRITE)?;
    if let FIOCLEX | FIONCLEX = request {
        run.proc.files.set_close_on_exec(fd, request == FIOCLEX);
        return Ok([0, 0]);
    }
    let request = match request {
        SIOCSPGRP if file.ops.socket().is_some() => FIOSETOWN,
        SIOCGPGRP if file.ops.socket().is_some() => FIOGETOWN,
        _ => request,
    };
    if size(request) > MOST {
        return Err(Errno::ENOTTY.into());
    }
    if request & IN != 0 && size(request) > 0 {
        let mut argument = vec![0; size(request) as usize];
        run.memory().copyin(addr, &mut argument)?;
        if let FIONBIO | FIOASYNC = request {
            // Set whatever the file answers, as in NetBSD.
            let flag = if request == FIONBIO { open::NONBLOCK } else { open::ASYNC };
            file.set(flag, i32_at(&argument, 0) != 0);
        }
        if let (FIOSETOWN | TIOCSPGRP, Some(owner)) = (request, file.ops.owner()) {
            let id = i32_at(&argument, 0);
            let id = match request {
                TIOCSPGRP if id < 0 => return Err(Errno::EINVAL.into()),
                TIOCSPGRP => -id,
                _ => id,
            };
            set_owner(run, owner, id)?;
            return Ok([0, 0]);
        }
    }
    match (request, file.ops.owner()) {
        (FIOGETOWN, Some(owner)) => run.copyout(&owner.id().to_le_bytes(), addr)?,
        (TIOCGPGRP, Some(owner)) => run.copyout(&(-owner.id()).to_le_bytes(), addr)?,
        _ => file.ops.ioctl(run, &file, request, addr)?,
    }
    Ok([0, 0])
}

/// Sets the owner of a file's signals: a process, a group of the caller's session if `id` is negative, or
/// nobody. NetBSD: `fsetown`.
pub(super) fn set_owner(run: &SyscallContext<'_, '_>, owner: &Owner, id: i32) -> Result<(), Errno> {
    let system = run.system();
    let whom = match id {
        1.. => match system.processes.find(id) {
            None if id > INIT => return Err(Errno::ESRCH),
            proc => proc.map_or(Whom::Nobody, |proc| Whom::Process(Arc::downgrade(&proc))),
        },
        0 => Whom::Nobody,
        _ => {
            let group =
                id.checked_neg().and_then(|id| system.groups.find(id)).ok_or(Errno::EINVAL)?;
            if !Arc::ptr_eq(&group.session, &run.proc.group().session) {
                return Err(Errno::EPERM);
            }
            Whom::Group(Arc::downgrade(&group))
        }
    };
    owner.set(id, whom);
    Ok(())
}
