use super::super::Limits;
use super::super::testing::{Guest, NOWHERE, kernel, kernel_with, o};
use kernel::Errno;

const DUPFD: u64 = 0;
const GETFD: u64 = 1;
const SETFD: u64 = 2;
const GETFL: u64 = 3;
const SETFL: u64 = 4;
const CLOSEM: u64 = 10;
const MAXFD: u64 = 11;
const DUPFD_CLOEXEC: u64 = 12;

#[test]
fn a_new_client_has_the_console() {
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = said.clone();
    let kernel = super::super::Embedded::new(super::super::Config {
        console: Some(Box::new(move |bytes| sink.lock().unwrap().extend_from_slice(bytes))),
        ..Default::default()
    });
    let guest = Guest::new(&kernel);
    assert_eq!(kernel.usage().files, 0);
    assert_eq!(guest.write(1, b"hello"), Ok(5));
    assert_eq!(*said.lock().unwrap(), b"hello");
    assert_eq!(guest.read(0, 1), Err(Errno::EBADF));
    assert_eq!(guest.call(440, &[2, guest.buffer()]), Ok(0));
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o020_600u32.to_le_bytes());
    assert_eq!(guest.open("/dev/null", o::RDWR), Ok(3));
    assert_eq!(guest.fails(92, &[1, SETFL, o::NONBLOCK]), Errno::ENOTTY);
    assert_eq!(guest.fails(199, &[1, 0, 0, 0]), Errno::ESPIPE);
}

#[test]
fn the_lowest_free_number_is_given() {
    let guest = Guest::new(&kernel());
    for fd in 3..8 {
        assert_eq!(guest.open("/dev/null", o::RDWR), Ok(fd));
    }
    guest.close(4).unwrap();
    guest.close(6).unwrap();
    assert_eq!(guest.call(41, &[3]), Ok(4));
    assert_eq!(guest.call(92, &[3, DUPFD, 5]), Ok(6));
    assert_eq!(guest.call(92, &[3, DUPFD, 100]), Ok(100));
    assert_eq!(guest.call(92, &[3, MAXFD]), Ok(100));
    assert_eq!(guest.call(92, &[50, CLOSEM]), Ok(0));
    assert_eq!(guest.call(92, &[3, MAXFD]), Ok(7));
    assert_eq!(guest.call(92, &[0, CLOSEM]), Ok(0));
    assert_eq!(guest.call(92, &[0, MAXFD]), Ok(-1));
    assert_eq!(guest.open("/dev/null", o::RDWR), Ok(0));
}

#[test]
fn bad_descriptors_are_refused() {
    let guest = Guest::new(&kernel());
    for fd in [3, 1023, 1024, 1 << 20, u64::MAX, i32::MAX as u64, 1 << 31] {
        assert_eq!(guest.fails(6, &[fd]), Errno::EBADF);
        assert_eq!(guest.fails(3, &[fd, 0, 0]), Errno::EBADF);
        assert_eq!(guest.fails(41, &[fd]), Errno::EBADF);
        assert_eq!(guest.fails(92, &[fd, GETFD]), Errno::EBADF);
        assert_eq!(guest.fails(440, &[fd, 0]), Errno::EBADF);
    }
    assert_eq!(guest.fails(92, &[u64::MAX, CLOSEM]), Errno::EBADF);
    assert_eq!(guest.fails(92, &[0, 99]), Errno::EINVAL);
}

#[test]
fn dup2_replaces_and_dup3_takes_flags() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let (reader, writer) = guest.pipe();
    assert_eq!(guest.call(90, &[fd, writer]), Ok(writer as i64));
    assert_eq!(guest.read(reader, 1), Ok(vec![]));
    assert_eq!(guest.call(90, &[fd, fd]), Ok(fd as i64));
    assert_eq!(guest.fails(90, &[fd, 1024]), Errno::EBADF);
    assert_eq!(guest.fails(90, &[fd, u64::MAX]), Errno::EBADF);
    assert_eq!(guest.fails(90, &[77, 5]), Errno::EBADF);
    assert_eq!(guest.call(454, &[fd, 9, o::CLOEXEC]), Ok(9));
    assert_eq!(guest.call(92, &[9, GETFD]), Ok(1));
    assert_eq!(guest.fails(454, &[fd, 9, o::APPEND]), Errno::EINVAL);
    assert_eq!(guest.call(454, &[fd, fd, o::APPEND]), Ok(fd as i64));
}

#[test]
fn flags_of_descriptors_and_of_open_files() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::WRONLY | o::CREAT | o::APPEND | o::CLOEXEC).unwrap();
    assert_eq!(guest.call(92, &[fd, GETFL]), Ok((o::WRONLY | o::APPEND) as i64));
    assert_eq!(guest.call(92, &[fd, GETFD]), Ok(1));
    let twin = guest.call(41, &[fd]).unwrap() as u64;
    assert_eq!(guest.call(92, &[twin, GETFD]), Ok(0));
    assert_eq!(guest.call(92, &[twin, SETFD, 3]), Ok(0));
    assert_eq!(guest.call(92, &[twin, GETFD]), Ok(1));
    assert_eq!(guest.call(92, &[fd, SETFD, 0]), Ok(0));
    assert_eq!(guest.call(92, &[fd, SETFL, o::NONBLOCK | o::RDWR | o::TRUNC]), Ok(0));
    assert_eq!(guest.call(92, &[twin, GETFL]), Ok((o::WRONLY | o::NONBLOCK) as i64));
    assert_eq!(guest.call(92, &[fd, DUPFD_CLOEXEC, 20]), Ok(20));
    assert_eq!(guest.call(92, &[20, GETFD]), Ok(1));
    assert_eq!(guest.fails(92, &[fd, DUPFD, 1024]), Errno::EINVAL);
    assert_eq!(guest.fails(92, &[fd, DUPFD, u64::MAX]), Errno::EINVAL);
    assert_eq!(guest.call(92, &[fd, 14, 1]), Ok(0));
    assert_eq!(guest.call(92, &[fd, 13]), Ok(1));
    assert_eq!(guest.fails(92, &[fd, 99, 0]), Errno::EINVAL);
}

#[test]
fn a_fork_shares_open_files_and_not_numbers() {
    let kernel = kernel();
    let parent = Guest::new(&kernel);
    let fd = parent.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    parent.write(fd, b"0123456789").unwrap();
    parent.call(199, &[fd, 0, 2, 0]).unwrap();
    let child = parent.fork();
    assert_eq!(child.read(fd, 3).unwrap(), b"234");
    assert_eq!(parent.read(fd, 3).unwrap(), b"567");
    parent.close(fd).unwrap();
    assert_eq!(child.read(fd, 3).unwrap(), b"89");
    assert_eq!(parent.read(fd, 3), Err(Errno::EBADF));
    // A prefork without a client keeps its copy until it is released.
    let prefork = child.process.prefork().unwrap();
    child.process.release();
    assert_eq!(kernel.usage().files, 2);
    prefork.release();
    assert_eq!(kernel.usage().files, 1);
    parent.process.release();
    assert_eq!(kernel.usage().files, 0);
}

#[test]
fn descriptors_and_open_files_are_bounded() {
    let kernel = kernel_with(Limits { files_per_process: 5, files: 8, ..Limits::default() });
    let guest = Guest::new(&kernel);
    guest.open("/dev/null", o::RDWR).unwrap();
    assert_eq!(guest.fails(42, &[]), Errno::EMFILE);
    assert_eq!(guest.call(41, &[3]), Ok(4));
    assert_eq!(guest.fails(41, &[3]), Errno::EMFILE);
    assert_eq!(guest.open("/tmp/none", o::RDWR | o::CREAT), Err(Errno::EMFILE));
    assert_eq!(guest.fails(394, &[2, 1, 0]), Errno::EMFILE);
    assert_eq!(guest.open("/tmp/none", o::RDWR), Err(Errno::EMFILE));
    guest.close(4).unwrap();
    assert_eq!(guest.open("/tmp/none", o::RDWR), Err(Errno::ENOENT));
    // Two consoles and one file so far: the system has room for five more.
    let others: Vec<Guest> = (0..4).map(|_| Guest::new(&kernel)).collect();
    for other in &others {
        let _ = other.open("/dev/null", o::RDWR);
    }
    assert_eq!(others[3].open("/dev/null", o::RDWR), Err(Errno::ENFILE));
    assert_eq!(others[3].fails(42, &[]), Errno::ENFILE);
}

#[test]
fn ioctl_does_what_any_descriptor_can() {
    let guest = Guest::new(&kernel());
    let (fioclex, fionclex, fionbio) = (0x2000_6601, 0x2000_6602, 0x8004_667e);
    let (fionread, tiocgeta) = (0x4004_667f, 0x402c_7413);
    let file = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(file, b"12345").unwrap();
    guest.call(199, &[file, 0, 2, 0]).unwrap();
    assert_eq!(guest.call(54, &[file, fionread, guest.buffer()]), Ok(0));
    assert_eq!(guest.get(guest.buffer(), 4), [3, 0, 0, 0]);
    assert_eq!(guest.call(54, &[file, fioclex, 0]), Ok(0));
    assert_eq!(guest.call(92, &[file, GETFD]), Ok(1));
    assert_eq!(guest.call(54, &[file, fionclex, 0]), Ok(0));
    assert_eq!(guest.call(92, &[file, GETFD]), Ok(0));
    let (reader, writer) = guest.pipe();
    guest.write(writer, b"12").unwrap();
    assert_eq!(guest.call(54, &[reader, fionread, guest.buffer()]), Ok(0));
    assert_eq!(guest.get(guest.buffer(), 4), [2, 0, 0, 0]);
    guest.read(reader, 2).unwrap();
    assert_eq!(guest.call(54, &[reader, fionbio, guest.place(&[1, 0, 0, 0])]), Ok(0));
    assert_eq!(guest.read(reader, 1), Err(Errno::EAGAIN));
    assert_eq!(guest.call(54, &[1, tiocgeta, guest.buffer()]), Ok(0));
    assert_eq!(guest.fails(54, &[1, fionbio, guest.place(&[1, 0, 0, 0])]), Errno::ENOTTY);
    for (fd, request, errno) in [
        (file, tiocgeta, Errno::ENOTTY),
        (1, fionbio, Errno::EFAULT),
        (file, 0, Errno::ENOTTY),
        (77, fionread, Errno::EBADF),
        (file, fionbio, Errno::EFAULT),
    ] {
        assert_eq!(guest.fails(54, &[fd, request, 0x10]), errno, "{request:#x}");
    }
}

#[test]
fn a_pipe_s_end_knows_whom_its_signals_are_for() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let set = |id: i32| guest.call(92, &[reader, 6, id as u64]);
    let get = |fd| guest.call(92, &[fd, 5]).unwrap();
    let child = guest.fork();
    let pid = child.process.pid();
    assert_eq!((set(pid), get(reader), get(writer)), (Ok(0), pid.into(), 0));
    // The child's own group is in a session of its own.
    child.call(147, &[]).unwrap();
    assert_eq!(set(-pid), Err(Errno::EPERM));
    assert_eq!((set(99_999), set(-99_999)), (Err(Errno::ESRCH), Err(Errno::EINVAL)));
    assert_eq!((set(i32::MIN), set(0), get(reader)), (Err(Errno::EINVAL), Ok(0), 0));
    let own = guest.process.pid();
    guest.call(82, &[0, 0]).unwrap();
    assert_eq!((set(-own), get(reader)), (Ok(0), (-own).into()));
    let (place, out) = (guest.place(&pid.to_le_bytes()), guest.buffer());
    for (request, errno) in [(0x8004_667c, Ok(0)), (0x8004_7476, Err(Errno::EPERM))] {
        assert_eq!(guest.call(54, &[reader, request, place]), errno);
    }
    for (request, id) in [(0x4004_667b, pid), (0x4004_7477, -pid)] {
        guest.call(54, &[reader, request, out]).unwrap();
        assert_eq!(guest.get(out, 4), id.to_le_bytes());
    }
    assert_eq!(guest.fails(54, &[reader, 0x8004_7476, guest.place(&[255; 4])]), Errno::EINVAL);
    assert_eq!(guest.fails(54, &[reader, 0x8004_7308, place]), Errno::ENOTTY);
}

#[test]
fn a_socket_knows_whom_its_signals_are_for() {
    let guest = Guest::new(&kernel());
    let socket = guest.call(394, &[2, 1, 0]).unwrap() as u64;
    let pid = guest.process.pid();
    let (place, out) = (guest.place(&pid.to_le_bytes()), guest.buffer());
    for (set, get, id) in [
        (0x8004_667c, 0x4004_667b, pid),
        (0x8004_7308, 0x4004_7309, pid),
        (0x8004_667c, 0x4004_7477, -pid),
    ] {
        guest.call(54, &[socket, set, guest.place(&[0; 4])]).unwrap();
        assert_eq!(guest.call(92, &[socket, 5]), Ok(0));
        assert_eq!(guest.call(54, &[socket, set, place]), Ok(0));
        guest.call(54, &[socket, get, out]).unwrap();
        assert_eq!(guest.get(out, 4), id.to_le_bytes());
        assert_eq!(guest.call(92, &[socket, 5]), Ok(pid.into()));
    }
    // A connection inherits it from the listening socket.
    let name = guest.place(&[16, 2, 0x27, 0x0f, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    guest.call(104, &[socket, name, 16]).unwrap();
    guest.call(106, &[socket, 1]).unwrap();
    let client = guest.call(394, &[2, 1, 0]).unwrap() as u64;
    guest.call(98, &[client, name, 16]).unwrap();
    let server = guest.call(30, &[socket, 0, 0]).unwrap() as u64;
    let owners = [server, client].map(|fd| guest.call(92, &[fd, 5]).unwrap());
    assert_eq!(owners, [pid.into(), 0]);
}

#[test]
fn requests_are_checked_before_anybody_sees_them() {
    let guest = Guest::new(&kernel());
    let (reader, _) = guest.pipe();
    let asks = |request, addr| guest.fails(54, &[reader, request, addr]);
    // Requests longer than a page; copied in, though unknown; unknown.
    assert_eq!(asks(0x1234_5678, NOWHERE), Errno::ENOTTY);
    assert_eq!(asks(0x8004_4141, NOWHERE), Errno::EFAULT);
    assert_eq!(asks(0x8004_4141, guest.buffer()), Errno::ENOTTY);
    assert_eq!(asks(0x4004_667f, 0), Errno::EFAULT);
}

#[test]
fn commands_for_the_file_system_find_none() {
    let guest = Guest::new(&kernel());
    let file = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let (reader, _) = guest.pipe();
    let kqueue = guest.call(344, &[]).unwrap() as u64;
    let takes = 0x9008_0000;
    for fd in [file, reader] {
        assert_eq!(guest.fails(92, &[fd, 0x8000_0000, 0]), Errno::EOPNOTSUPP);
        assert_eq!(guest.fails(92, &[fd, takes, NOWHERE]), Errno::EFAULT);
        assert_eq!(guest.fails(92, &[fd, takes, guest.buffer()]), Errno::EOPNOTSUPP);
    }
    assert_eq!(guest.fails(92, &[kqueue, 0x8000_0000, 0]), Errno::ENOTTY);
    assert_eq!(guest.fails(92, &[kqueue, SETFL, 0]), Errno::ENOTTY);
    assert_eq!(guest.fails(92, &[99, 0x8000_0000, 0]), Errno::EBADF);
    // Nor is there a limit of names to a kqueue.
    assert_eq!(guest.fails(192, &[kqueue, 6]), Errno::EINVAL);
}
