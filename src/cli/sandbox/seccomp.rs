//! Which system calls a sandboxed server has: those that a running one was seen to make, and those
//! that the C library may put in their place.
//!
//! A call that is not listed answers EPERM and does not kill. The C library and Rust's own try things
//! that they can do without, a backtrace of a worker that panicked for one, and that is to end in an
//! error of one client and not of all. What an attacker is refused is the same either way.
//!
//! seccomp looks at system calls, not at what io_uring does when it is told to: which operations the
//! ring has is up to the ring, and files and connections are Landlock's as well.
//!
//! Source: seccomp(2); the calls by strace(1) of start, load, signals and end.

use std::collections::BTreeMap;
use std::process;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::Failure;

/// Calls allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // The ring, and the eventfd that wakes it.
    libc::SYS_io_uring_enter,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_read,
    libc::SYS_close,
    // Signals come over a socket pair, and panics may abort.
    libc::SYS_recvfrom,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Who is at the other end.
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory; what makes it executable is below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: their locks, start, place and end.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Clocks, where they are not read without a call, and random numbers.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_getrandom,
    // The socket file, if it is still the same: away with it. Landlock says where.
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_flock,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    // Allowed here, but hidden by [`begin`].
    libc::SYS_clone3,
];

/// `CLONE_VM | CLONE_SIGHAND | CLONE_THREAD`: what makes a thread of a new process.
const A_THREAD: u64 = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;

/// New name spaces: no thread of a server has one of its own.
const NAME_SPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// `IORING_UNREGISTER_FILES` and `IORING_UNREGISTER_RING_FDS`: a ring's orderly end.
const RING_ENDS: [u64; 2] = [3, 21];

/// Hides clone3(2), whose flags no filter can see: the C library makes its threads by clone(2) then,
/// whose flags can be looked at. To be called before there is a second thread to be told.
pub fn begin() -> Result<(), Failure> {
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    apply(SeccompFilter::new(hidden, SeccompAction::Allow, refused, arch()?)?)
}

/// Leaves the allowed calls to all threads there are and will be.
pub fn seal() -> Result<(), Failure> {
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    rules.extend(bounded()?);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    apply(SeccompFilter::new(rules, refused, SeccompAction::Allow, arch()?)?)?;
    tracing::info!("--sandbox: seccomp, {} system calls are left", ALLOWED.len() + BOUNDED);
    Ok(())
}

/// How many calls are [`bounded`].
const BOUNDED: usize = 8;

/// Calls allowed with some arguments only.
fn bounded() -> Result<[(c_long, Vec<SeccompRule>); BOUNDED], Failure> {
    let not_executable = || when(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    let ends = RING_ENDS.map(|opcode| when(1, SeccompCmpOp::Eq, opcode));
    let thread = [
        condition(0, SeccompCmpOp::MaskedEq(A_THREAD), A_THREAD)?,
        condition(0, SeccompCmpOp::MaskedEq(NAME_SPACES), 0)?,
    ];
    Ok([
        (libc::SYS_mmap, vec![not_executable()?]),
        (libc::SYS_mprotect, vec![not_executable()?]),
        (libc::SYS_clone, vec![SeccompRule::new(thread.into())?]),
        (libc::SYS_io_uring_register, ends.into_iter().collect::<Result<_, _>>()?),
        // To whom a socket is connected, not to an address: a signal handler tells of its signal.
        (libc::SYS_sendto, vec![when(4, SeccompCmpOp::Eq, 0)?]),
        // abort(3), of this process only.
        (libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, process::id().into())?]),
        (libc::SYS_prctl, vec![when(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?]),
        (libc::SYS_fcntl, vec![when(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?]),
    ])
}

/// A rule of one condition.
fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Failure> {
    Ok(SeccompRule::new(vec![condition(argument, operator, value)?])?)
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, Failure> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?)
}

/// Numbers of calls are those of this machine. A call by another (32 bit) numbering ends the process.
fn arch() -> Result<TargetArch, Failure> {
    Ok(std::env::consts::ARCH.try_into()?)
}

fn apply(filter: SeccompFilter) -> Result<(), Failure> {
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}
