//! The seccomp part of the sandbox: the server may make only those system calls that a running one was
//! seen to make, and those that the C library may put in their place.
//!
//! A call that is not listed answers EPERM and does not kill the process. The C library and Rust's own
//! try calls that they can do without, such as for a backtrace of a worker that panicked. That is to end
//! in an error for one client, not for all. An attacker is refused the same in either case.
//!
//! seccomp looks at system calls, not at what io_uring does when it is told to: the ring decides which
//! operations it has, and files and connections are bounded by Landlock as well.
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

/// The calls that are allowed with any arguments.
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
    // The address at the other end.
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory. The calls that can make it executable are below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: their locks, start, CPUs and end.
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
    // Clocks, where reading them takes a call, and random numbers.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_getrandom,
    // Removal of the socket file, if it is still the same. Landlock bounds where.
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_flock,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    // This call is allowed here, but hidden by [`begin`].
    libc::SYS_clone3,
];

/// `CLONE_VM | CLONE_SIGHAND | CLONE_THREAD`: the flags that make a thread rather than a process.
const A_THREAD: u64 = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;

/// The flags for new name spaces: no thread of a server has one of its own.
const NAME_SPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// `IORING_UNREGISTER_FILES` and `IORING_UNREGISTER_RING_FDS`: a ring's orderly end.
const RING_ENDS: [u64; 2] = [3, 21];

/// Hides clone3(2), whose flags no filter can see, so the C library makes its threads by clone(2), whose
/// flags a filter can see. To be called before there is a second thread.
pub fn begin() -> Result<(), Failure> {
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    apply(SeccompFilter::new(hidden, SeccompAction::Allow, refused, arch()?)?)
}

/// Leaves only the allowed calls to all threads, existing and later.
pub fn seal() -> Result<(), Failure> {
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    rules.extend(bounded()?);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    apply(SeccompFilter::new(rules, refused, SeccompAction::Allow, arch()?)?)?;
    tracing::info!("--sandbox: seccomp, {} system calls are left", ALLOWED.len() + BOUNDED);
    Ok(())
}

/// The number of [`bounded`] calls.
const BOUNDED: usize = 8;

/// Returns the calls that are allowed with some arguments only.
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
        // sendto(2) on a connected socket, without an address: a signal handler tells of its signal by
        // it.
        (libc::SYS_sendto, vec![when(4, SeccompCmpOp::Eq, 0)?]),
        // tgkill(2) within this process only, for abort(3).
        (libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, process::id().into())?]),
        (libc::SYS_prctl, vec![when(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?]),
        (libc::SYS_fcntl, vec![when(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?]),
    ])
}

/// Returns a rule of one condition.
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

/// Returns this machine's architecture. Calls by another (32 bit) numbering end the process.
fn arch() -> Result<TargetArch, Failure> {
    Ok(std::env::consts::ARCH.try_into()?)
}

fn apply(filter: SeccompFilter) -> Result<(), Failure> {
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}
