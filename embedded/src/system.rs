//! Calls for the system as a whole: its end.
//!
//! Sources: NetBSD `sys/kern/kern_xxx.c`, `sys/rump/librump/rumpkern/emul.c`; reboot(2).

use super::call::{Answer, Stop, SyscallContext};
use super::listed::{Listed, Runs, call};
use kernel::sys;

pub(super) const CALLS: &[Listed] = &[call(sys::REBOOT, Runs::Inline, reboot)];

/// `RB_STRING`: a boot string is passed.
const STRING: u32 = 0x400;

/// `int reboot(int opt, char *bootstr)`: whatever the flags, a rump kernel stops serving its clients.
fn reboot(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (how, addr) = (run.uint(0), run.word(1));
    run.proc.credentials().check_superuser()?;
    if how & STRING != 0 {
        let mut string = [0; 128];
        // A bad string is ignored.
        if let Err(error @ kernel::CopyError::Asked) = run.memory().copyinstr(addr, &mut string) {
            return Err(error.into());
        }
    }
    tracing::info!(pid = run.proc.pid, flags = how, "the kernel is halted by a client");
    Err(Stop::Halt)
}
