//! Makes the ring: the flags to ask for, the resources to register, and the errors when the kernel
//! refuses.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode};

use crate::buffers::{Buffers, GROUP};
use crate::restrict::restrict;
use crate::{Arena, Config, Error, Features};

/// A ring that was set up, with the features it has.
pub(crate) struct Setup {
    pub io: IoUring,
    pub features: Features,
    /// The ring's index among the thread's registered rings.
    pub registered: Option<u32>,
}

/// Makes a ring and registers with it the descriptor table, the receive buffers, and the arena if zero
/// copy sends are wanted.
pub(crate) fn setup(config: &Config, buffers: &Buffers, arena: &Arena) -> Result<Setup, Error> {
    require_all(Features::ALL - config.without)?;
    let (mut io, mut features) = create(config)?;
    features |= what_the_kernel_says(&io)?;
    register_table(&io, config.sockets)?;
    register_buffers(&io, buffers)?;
    features |= Features::DIRECT_DESCRIPTORS
        | Features::PROVIDED_BUFFER_RING
        | Features::CANCEL_ANY
        | Features::MULTISHOT_ACCEPT
        | Features::SEND_WAITALL;
    features = features - config.without;
    require_all(features)?;
    if config.zero_copy_from.is_some() && features.contains(Features::SEND_ZC) {
        register_arena(&io, arena)?;
    }
    let registered = if config.without.contains(Features::REGISTERED_RING) {
        None
    } else {
        register_ring(&io).ok()
    };
    if registered.is_some() {
        features |= Features::REGISTERED_RING;
    }
    if features.contains(Features::RESTRICTIONS) {
        features = features - enable(&io, config, features)?;
    }
    if config.peers && features.contains(Features::GETSOCKOPT) && !answers(&mut io)? {
        features = features - Features::GETSOCKOPT;
    }
    log(features, config);
    Ok(Setup { io, features, registered })
}

/// Checks that every feature without a fallback is among `features`; the error names the first missing
/// one.
fn require_all(features: Features) -> Result<(), Error> {
    for row in Features::TABLE {
        if row.fallback.is_empty() && !features.contains(row.feature) {
            return Err(Error::Missing { feature: row.name, since: row.since });
        }
    }
    Ok(())
}

/// Logs which features with a fallback are not among `features`.
fn log(features: Features, config: &Config) {
    for row in Features::TABLE {
        if features.contains(row.feature) {
            continue;
        }
        let (name, since, instead) = (row.name, row.since, row.fallback);
        if config.without.contains(row.feature) {
            tracing::info!("io_uring: {name} is switched off: {instead}");
        } else {
            tracing::warn!("io_uring: no {name} (Linux {since} has it): {instead}");
        }
    }
}

/// The setup flags in the order they are given up when the kernel does not know one: newest first.
const SETUP_FLAGS: [Features; 6] = [
    Features::NO_SQARRAY,
    Features::DEFER_TASKRUN,
    Features::SINGLE_ISSUER,
    Features::COOP_TASKRUN,
    Features::SUBMIT_ALL,
    Features::RESTRICTIONS,
];

/// `io_uring_setup(2)`, with as many of the flags as the kernel knows.
fn create(config: &Config) -> Result<(IoUring, Features), Error> {
    let mut features = SETUP_FLAGS.into_iter().fold(Features::NONE, |all, flag| all | flag);
    features = features - config.without;
    for give_up in [Features::NONE].into_iter().chain(SETUP_FLAGS) {
        features = features - give_up;
        if !features.contains(Features::SINGLE_ISSUER) {
            // The kernel defers work only to a single issuer.
            features = features - Features::DEFER_TASKRUN;
        }
        match build(config, features) {
            Ok(io) => return Ok((io, features)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Err(refused(io::Error::from_raw_os_error(libc::EINVAL)))
}

fn build(config: &Config, features: Features) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    let completions =
        if config.completions == 0 { config.entries.saturating_mul(4) } else { config.completions };
    builder.setup_clamp().setup_cqsize(completions).dontfork();
    if features.contains(Features::SUBMIT_ALL) {
        builder.setup_submit_all();
    }
    if features.contains(Features::COOP_TASKRUN) {
        builder.setup_coop_taskrun();
    }
    if features.contains(Features::SINGLE_ISSUER) {
        builder.setup_single_issuer();
    }
    if features.contains(Features::DEFER_TASKRUN) {
        builder.setup_defer_taskrun();
    }
    if features.contains(Features::COOP_TASKRUN) || features.contains(Features::DEFER_TASKRUN) {
        builder.setup_taskrun_flag();
    }
    if features.contains(Features::NO_SQARRAY) {
        builder.setup_no_sqarray();
    }
    if features.contains(Features::RESTRICTIONS) {
        // A ring can be restricted only before it is enabled.
        builder.setup_r_disabled();
    }
    builder.build(config.entries)
}

/// Returns the error for a failed `io_uring_setup(2)`, which says what to do.
fn refused(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => Error::Unavailable(forbidden(&sysctl())),
        Some(libc::ENOSYS) => Error::Unavailable(
            "the kernel was built without it or is older than Linux 5.1, or a seccomp filter (a \
             container's?) hides it; allow io_uring_setup, io_uring_enter and io_uring_register there"
                .into(),
        ),
        _ => Error::registering("an io_uring")(error),
    }
}

/// Returns the value of the sysctl kernel.io_uring_disabled (Linux 6.6), empty if there is none.
fn sysctl() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().to_owned()
}

/// Returns what forbids io_uring, by the value of the sysctl.
fn forbidden(disabled: &str) -> String {
    match disabled {
        "2" => "the sysctl kernel.io_uring_disabled is 2, which switches it off for everybody; set it \
                to 0"
            .into(),
        "1" => "the sysctl kernel.io_uring_disabled is 1, which leaves it to CAP_SYS_ADMIN and the \
                group of kernel.io_uring_group; join that group, or set it to 0"
            .into(),
        _ => "a seccomp filter or security module (a container's?) forbids it; allow io_uring_setup, \
              io_uring_enter and io_uring_register there"
            .into(),
    }
}

/// Returns the features that the kernel's flags and opcodes tell of.
///
/// Some features have no flag or opcode of their own and came with another: multishot recv with SEND_ZC
/// in Linux 6.0, SENDMSG_ZC from registered buffers with READV_FIXED in 6.15, and GETSOCKOPT with
/// READ_MULTISHOT in 6.7.
fn what_the_kernel_says(io: &IoUring) -> Result<Features, Error> {
    let mut features = Features::NONE;
    let mut add = |there: bool, feature| {
        if there {
            features |= feature;
        }
    };
    let params = io.params();
    add(params.is_feature_nodrop(), Features::NODROP);
    add(params.is_feature_fast_poll(), Features::FAST_POLL);
    add(params.is_feature_ext_arg(), Features::EXT_ARG);
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe).map_err(Error::system("IORING_REGISTER_PROBE"))?;
    add(probe.is_supported(opcode::SendZc::CODE), Features::SEND_ZC | Features::MULTISHOT_RECV);
    add(probe.is_supported(opcode::ReadvFixed::CODE), Features::SENDMSG_ZC_FIXED);
    add(probe.is_supported(opcode::ReadMulti::CODE), Features::GETSOCKOPT);
    if !probe.is_supported(opcode::Shutdown::CODE) {
        return Err(Error::Missing { feature: "IORING_OP_SHUTDOWN", since: "5.11" });
    }
    Ok(features)
}

fn register_table(io: &IoUring, sockets: u32) -> Result<(), Error> {
    io.submitter().register_files_sparse(sockets).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => missing(Features::DIRECT_DESCRIPTORS),
        Some(libc::EMFILE) => Error::Descriptors {
            what: format!("a table of {sockets} direct descriptors"),
            limit: crate::error::limit(libc::RLIMIT_NOFILE),
        },
        _ => Error::registering("the direct descriptor table")(error),
    })
}

fn register_buffers(io: &IoUring, buffers: &Buffers) -> Result<(), Error> {
    let (address, count) = (buffers.address(), buffers.count());
    // SAFETY: the ring's memory is `count` entries at `address`, and is unmapped only after the ring
    // was closed (see `Ring`'s drop).
    let done = unsafe { io.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) };
    done.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => missing(Features::PROVIDED_BUFFER_RING),
        _ => Error::registering("the provided buffer ring")(error),
    })
}

fn register_arena(io: &IoUring, arena: &Arena) -> Result<(), Error> {
    // SAFETY: the mapping is unmapped only with the last handle of the arena, and the kernel holds on
    // to its pages itself.
    let done = unsafe { io.submitter().register_buffers(&[arena.mapping()]) };
    done.map_err(Error::registering("the registered arena"))
}

/// Registers the ring (`IORING_REGISTER_RING_FDS`). It is then entered by an index, which saves the
/// kernel from taking a reference of its file in each enter of a process with several threads.
fn register_ring(io: &IoUring) -> io::Result<u32> {
    let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: io.as_raw_fd() as u64 };
    ring_update(io, REGISTER_RING_FDS, &mut update)?;
    Ok(update.offset)
}

/// Gives the ring's index back (`IORING_UNREGISTER_RING_FDS`): the index keeps the ring open, and a
/// thread has only 16 indices.
pub(crate) fn unregister_ring(io: &IoUring, index: u32) {
    let mut update = RingUpdate { offset: index, reserved: 0, data: 0 };
    if let Err(error) = ring_update(io, UNREGISTER_RING_FDS, &mut update) {
        tracing::warn!("io_uring: IORING_UNREGISTER_RING_FDS: {error}");
    }
}

const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

fn ring_update(io: &IoUring, opcode: u32, update: &mut RingUpdate) -> io::Result<()> {
    let (fd, update) = (io.as_raw_fd(), &raw mut *update);
    // SAFETY: `update` is our caller's, and is one of the structs that both opcodes read and write.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, update, 1) };
    if done == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Restricts the ring and enables it. Returns the feature that did not work, if any.
fn enable(io: &IoUring, config: &Config, features: Features) -> Result<Features, Error> {
    let restricted = restrict(io, config, features);
    let enabled = io.submitter().register_enable_rings();
    enabled.map_err(Error::system("IORING_REGISTER_ENABLE_RINGS"))?;
    Ok(if restricted.is_ok() { Features::NONE } else { Features::RESTRICTIONS })
}

/// Returns `true` if peer queries are answered; a security module might forbid them.
fn answers(io: &mut IoUring) -> Result<bool, Error> {
    crate::peer_query::answers(io).map_err(Error::system("asking for SO_PEERCRED"))
}

pub(crate) fn missing(feature: Features) -> Error {
    let row = Features::TABLE.iter().find(|row| row.feature == feature);
    let row = row.expect("every feature has a row");
    Error::Missing { feature: row.name, since: row.since }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_forbids_io_uring() {
        assert!(forbidden("2").contains("io_uring_disabled is 2"));
        assert!(forbidden("1").contains("io_uring_group"));
        assert!(forbidden("").contains("seccomp") && forbidden("0").contains("seccomp"));
        let absent = refused(io::Error::from_raw_os_error(libc::ENOSYS)).to_string();
        assert!(absent.contains("not available") && absent.contains("seccomp"), "{absent}");
    }

    #[test]
    fn a_ring_that_cannot_be_restricted_is_enabled_all_the_same() {
        let (config, features) = (Config::default(), Features::RESTRICTIONS);
        let io = build(&config, features).unwrap();
        let disabled = io.submitter().submit().unwrap_err();
        assert_eq!(disabled.raw_os_error(), Some(libc::EBADFD));
        // The kernel takes restrictions only once.
        restrict(&io, &config, features).unwrap();
        assert_eq!(enable(&io, &config, features).unwrap(), Features::RESTRICTIONS);
        assert_eq!(io.submitter().submit().unwrap(), 0);
    }

    #[test]
    fn limits_are_named_with_their_value() {
        let memory = refused(io::Error::from_raw_os_error(libc::ENOMEM)).to_string();
        assert!(memory.contains("RLIMIT_MEMLOCK is ") && memory.contains("ulimit -l"), "{memory}");
        let files = refused(io::Error::from_raw_os_error(libc::EMFILE)).to_string();
        assert!(files.contains("RLIMIT_NOFILE is ") && files.contains("ulimit -n"), "{files}");
    }
}
