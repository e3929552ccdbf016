//! ioctl: what can be asked of any descriptor. Devices of this kernel have no requests of their own;
//! the console looks like a terminal just far enough for `isatty(3)`.
//!
//! Sources: NetBSD `sys/kern/sys_generic.c`, `sys/sys/{filio,ttycom,ioccom}.h`,
//! `sys/rump/librump/rumpkern/cons.c`; ioctl(2).

use super::abi::open;
use super::call::{Answer, Run};
use super::descriptors::Object;
use super::sync::lock;
use super::table::{Listed, partly};
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[partly(
    54,
    ioctl,
    "FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, FIONREAD, and TIOCGETA on the console",
)];

const FIOCLEX: u32 = 0x2000_6601;
const FIONCLEX: u32 = 0x2000_6602;
const FIOASYNC: u32 = 0x8004_667d;
const FIONBIO: u32 = 0x8004_667e;
const FIONREAD: u32 = 0x4004_667f;
const TIOCGETA: u32 = 0x402c_7413;
/// The size of `struct termios`.
const TERMIOS_SIZE: usize = 44;

/// `int ioctl(int fd, u_long com, ... void *data)`
fn ioctl(run: &mut Run<'_, '_>) -> Answer {
    let (fd, request, addr) = (run.int(0), run.uint(1), run.word(2));
    let file = run.file(fd)?;
    let console = matches!(file.object, Object::Console);
    match request {
        FIOCLEX | FIONCLEX => run.task.files.set_close_on_exec(fd, request == FIOCLEX),
        FIONBIO | FIOASYNC if !console => {
            let on = i32::from_le_bytes(run.copyin(addr)?) != 0;
            file.set(if request == FIONBIO { open::NONBLOCK } else { open::ASYNC }, on);
        }
        FIONREAD if !console => {
            let count = match &file.object {
                Object::Inode(inode) if inode.device().is_none() => {
                    inode.stat().size - *lock(&file.offset)
                }
                Object::PipeReader(pipe) | Object::PipeWriter(pipe) => pipe.stat().size,
                _ => 0,
            };
            run.copyout(&(count as i32).to_le_bytes(), addr)?;
        }
        TIOCGETA if console => run.copyout(&[0; TERMIOS_SIZE], addr)?,
        _ => return Err(Errno::ENOTTY.into()),
    }
    Ok([0, 0])
}
