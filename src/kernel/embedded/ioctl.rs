//! ioctl: what can be asked of any descriptor; each kind of file answers the rest itself.
//!
//! Sources: NetBSD `sys/kern/sys_generic.c`, `sys/sys/{filio,ttycom,ioccom}.h`; ioctl(2).

use super::abi::open;
use super::call::{Answer, Run};
use super::table::{Listed, partly};

pub(super) const CALLS: &[Listed] = &[partly(
    54,
    ioctl,
    "FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, FIONREAD, FIONWRITE, FIONSPACE, and TIOCGETA on the console",
)];

const FIOCLEX: u32 = 0x2000_6601;
const FIONCLEX: u32 = 0x2000_6602;
pub(super) const FIOASYNC: u32 = 0x8004_667d;
pub(super) const FIONBIO: u32 = 0x8004_667e;
pub(super) const FIONREAD: u32 = 0x4004_667f;
pub(super) const FIONWRITE: u32 = 0x4004_6679;
pub(super) const FIONSPACE: u32 = 0x4004_6678;
pub(super) const SIOCATMARK: u32 = 0x4004_7307;

/// `int ioctl(int fd, u_long com, ... void *data)`
fn ioctl(run: &mut Run<'_, '_>) -> Answer {
    let (fd, request, addr) = (run.int(0), run.uint(1), run.word(2));
    let file = run.file(fd)?;
    match request {
        FIOCLEX | FIONCLEX => run.task.files.set_close_on_exec(fd, request == FIOCLEX),
        FIONBIO | FIOASYNC if file.ops.signals() => {
            let on = i32::from_le_bytes(run.copyin(addr)?) != 0;
            file.ops.ioctl(run, &file, request, addr)?;
            file.set(if request == FIONBIO { open::NONBLOCK } else { open::ASYNC }, on);
        }
        _ => file.ops.ioctl(run, &file, request, addr)?,
    }
    Ok([0, 0])
}
