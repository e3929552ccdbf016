//! Restrictions: the ring is set up to take no requests other than those it makes.
//!
//! A ring that starts disabled is told which requests it may take, and then enabled. From then on the
//! kernel answers any other request with EACCES, whoever has the ring's descriptor. See
//! `io_uring_register_restrictions(3)`, `io_uring_enable_rings(3)`, Linux 5.10.

use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue};

use crate::{Config, Features};

/// Register operations allowed on an enabled ring: `IORING_UNREGISTER_FILES`,
/// `IORING_REGISTER_FILES_UPDATE` (for adopting) and `IORING_UNREGISTER_RING_FDS`.
const REGISTER: [u8; 3] = [3, 6, 21];

/// The requests that every ring makes.
const ALWAYS: [u8; 8] = [
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::PollAdd::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::Shutdown::CODE,
];

/// Returns the further requests that a ring of this configuration makes, with these features.
fn sometimes(config: &Config, features: Features) -> impl Iterator<Item = u8> {
    let zero_copy = config.zero_copy_from.is_some() && features.contains(Features::SEND_ZC);
    let vectored = zero_copy && features.contains(Features::SENDMSG_ZC_FIXED);
    let asks = config.peers && features.contains(Features::GETSOCKOPT);
    [
        (zero_copy, opcode::SendZc::CODE),
        (vectored, opcode::SendMsgZc::CODE),
        (asks, opcode::SetSockOpt::CODE),
    ]
    .into_iter()
    .filter_map(|(used, code)| used.then_some(code))
}

/// Restricts a ring that is not enabled yet. Everything else must be registered before.
pub(crate) fn restrict(io: &IoUring, config: &Config, features: Features) -> io::Result<()> {
    let flags = squeue::Flags::FIXED_FILE | squeue::Flags::IO_LINK | squeue::Flags::BUFFER_SELECT;
    let requests = ALWAYS.into_iter().chain(sometimes(config, features));
    let mut restrictions: Vec<_> = requests.map(Restriction::sqe_op).collect();
    restrictions.extend(REGISTER.map(Restriction::register_op));
    restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
    io.submitter().register_restrictions(&mut restrictions)
}

#[cfg(test)]
mod tests {
    use io_uring::{Probe, types};

    use super::*;
    use crate::Ring;
    use crate::queue::Enter;

    fn ring(config: Config) -> Ring {
        Ring::new(&Config { entries: 8, recv_buffers: 2, sockets: 4, ..config }).unwrap()
    }

    /// Has the ring make a request that no part of the ring makes, and returns the result.
    fn make(ring: &mut Ring, entry: squeue::Entry) -> i32 {
        ring.queue.push(&[entry.user_data(0)], &mut ring.stats);
        ring.queue.enter(Enter::Wait(None), &mut ring.stats).unwrap();
        let completion = ring.queue.pop(&mut ring.stats).unwrap();
        assert!(completion.token.is_none());
        completion.result
    }

    fn forbidden() -> Vec<squeue::Entry> {
        let (here, name) = (types::Fd(libc::AT_FDCWD), c"/dev/null".as_ptr());
        vec![
            opcode::OpenAt::new(here, name).build(),
            opcode::Nop::new().build(),
            opcode::Read::new(types::Fd(-1), std::ptr::null_mut(), 0).build(),
            opcode::Connect::new(types::Fd(-1), std::ptr::null(), 0).build(),
            opcode::UringCmd16::new(types::Fd(-1), 0).build(),
            opcode::SendZc::new(types::Fd(-1), std::ptr::null(), 0).build(),
            opcode::SendMsgZc::new(types::Fd(-1), std::ptr::null()).build(),
            // A flag that the ring does not set, on a request that it makes.
            opcode::Shutdown::new(types::Fd(-1), 0).build().flags(squeue::Flags::ASYNC),
        ]
    }

    #[test]
    fn what_it_never_asks_for_is_refused_and_it_goes_on() {
        let mut ring = ring(Config::default());
        assert!(ring.features().contains(Features::RESTRICTIONS));
        for (number, entry) in forbidden().into_iter().enumerate() {
            assert_eq!(make(&mut ring, entry), -libc::EACCES, "forbidden()[{number}]");
        }
        let shutdown = opcode::Shutdown::new(types::Fd(-1), 0).build();
        assert_eq!(make(&mut ring, shutdown), -libc::EBADF, "what it asks for is tried");
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = ring.adopt(near.into()).unwrap();
        ring.close(socket);
        ring.wait(None, || true).unwrap();
        assert!(matches!(ring.next_event(), Some(crate::Event::Closed { .. })));
    }

    #[test]
    fn what_it_might_have_asked_for_depends_on_the_configuration() {
        let zero_copy = opcode::SendZc::new(types::Fd(-1), std::ptr::null(), 0).build();
        let command = opcode::UringCmd16::new(types::Fd(-1), 0).build();
        let mut copies = ring(Config { zero_copy_from: Some(1), ..Config::default() });
        assert_eq!(make(&mut copies, command.clone()), -libc::EACCES);
        assert_eq!(make(&mut copies, zero_copy), -libc::EBADF);
        let mut asks = ring(Config { peers: true, ..Config::default() });
        assert_eq!(make(&mut asks, command), -libc::EBADF);
    }

    #[test]
    fn it_can_be_left_unrestricted() {
        let without = Features::RESTRICTIONS;
        let mut ring = ring(Config { without, ..Config::default() });
        assert!(!ring.features().contains(Features::RESTRICTIONS));
        assert_eq!(make(&mut ring, opcode::Nop::new().build()), 0);
    }

    #[test]
    fn nothing_more_can_be_registered() {
        let ring = ring(Config::default());
        let submitter = ring.queue.io().submitter();
        let refused = |done: io::Result<()>| done.unwrap_err().raw_os_error();
        assert_eq!(refused(submitter.register_probe(&mut Probe::new())), Some(libc::EACCES));
        assert_eq!(refused(submitter.register_eventfd(0)), Some(libc::EACCES));
        assert_eq!(refused(submitter.register_files_sparse(1)), Some(libc::EACCES));
        let again = submitter.register_restrictions(&mut [Restriction::sqe_op(0)]);
        assert_eq!(refused(again), Some(libc::EACCES), "nor can more be allowed");
    }
}
