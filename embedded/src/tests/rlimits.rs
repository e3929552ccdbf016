//! Resource limits: who may set them, what they bound, and how they are inherited.

use super::super::testing::{Guest, NOWHERE, kernel, kernel_with, o};
use super::super::{Embedded, Limits};
use kernel::Errno;

const GET: i32 = 194;
const SET: i32 = 195;
const FSIZE: u64 = 1;
const STACK: u64 = 3;
const CORE: u64 = 4;
const NPROC: u64 = 7;
const NOFILE: u64 = 8;
const INFINITY: u64 = i64::MAX as u64;

fn get(guest: &Guest, which: u64) -> (u64, u64) {
    guest.call(GET, &[which, guest.buffer()]).unwrap();
    let word = |at| u64::from_le_bytes(guest.get(guest.buffer() + at, 8).try_into().unwrap());
    (word(0), word(8))
}

fn set(guest: &Guest, which: u64, soft: u64, hard: u64) -> Result<i64, Errno> {
    guest.call(SET, &[which, guest.place(&[soft.to_le_bytes(), hard.to_le_bytes()].concat())])
}

#[test]
fn they_are_raised_by_the_superuser_only() {
    let guest = Guest::new(&kernel());
    assert_eq!(get(&guest, FSIZE), (INFINITY, INFINITY));
    assert_eq!(set(&guest, CORE, 10, 20), Ok(0));
    assert_eq!(set(&guest, CORE, 30, 30), Ok(0));
    assert_eq!(set(&guest, CORE, 31, 30), Err(Errno::EINVAL));
    assert_eq!(set(&guest, 12, 1, 2), Err(Errno::EINVAL));
    assert_eq!(guest.fails(SET, &[12, NOWHERE]), Errno::EFAULT, "looked at first");
    assert_eq!(guest.fails(GET, &[12, guest.buffer()]), Errno::EINVAL);
    assert_eq!(guest.fails(GET, &[u64::MAX, guest.buffer()]), Errno::EINVAL);
    guest.call(183, &[5]).unwrap();
    assert_eq!(set(&guest, CORE, 30, 30), Ok(0), "no change is none");
    assert_eq!(set(&guest, CORE, 20, 30), Ok(0));
    assert_eq!(set(&guest, CORE, 30, 31), Err(Errno::EPERM));
    assert_eq!(set(&guest, CORE, 32, 31), Err(Errno::EINVAL));
    assert_eq!(set(&guest, CORE, 20, 25), Ok(0));
    assert_eq!(set(&guest, CORE, 20, 30), Err(Errno::EPERM), "there is no way back");
    assert_eq!(get(&guest, CORE), (20, 25));
}

#[test]
fn nobody_gets_more_than_there_is() {
    let limits = Limits { processes: 50, files_per_process: 60, ..Limits::default() };
    let guest = Guest::new(&kernel_with(limits));
    for (which, most) in [(NPROC, 50), (NOFILE, 60)] {
        assert_eq!(get(&guest, which), (most, most));
        assert_eq!(set(&guest, which, 10, INFINITY), Ok(0));
        assert_eq!(get(&guest, which), (10, most));
    }
    assert_eq!(set(&guest, STACK, 5000, INFINITY), Ok(0));
    assert_eq!(get(&guest, STACK), (8192, 128 << 20));
}

#[test]
fn children_inherit_them_and_have_their_own() {
    let guest = Guest::new(&kernel());
    set(&guest, CORE, 1, 2).unwrap();
    let child = guest.fork();
    assert_eq!(get(&child, CORE), (1, 2));
    set(&child, CORE, 0, 1).unwrap();
    assert_eq!((get(&guest, CORE), get(&child, CORE)), ((1, 2), (0, 1)));
    child.process.exec(b"other");
    assert_eq!(get(&child, CORE), (0, 1));
}

#[test]
fn descriptors() {
    let guest = Guest::new(&kernel());
    for fd in 3..6 {
        assert_eq!(guest.open("/dev/null", o::RDWR), Ok(fd));
    }
    assert_eq!(set(&guest, NOFILE, 5, 10), Ok(0));
    // Descriptors beyond the limit stay open, but no number from 5 on is given.
    assert_eq!(guest.write(5, b"x"), Ok(1));
    let child = guest.fork();
    for who in [&guest, &child] {
        assert_eq!(who.open("/dev/null", o::RDWR), Err(Errno::EMFILE));
        assert_eq!(who.fails(41, &[0]), Errno::EMFILE);
        assert_eq!(who.fails(42, &[]), Errno::EMFILE);
        assert_eq!(who.fails(394, &[2, 1, 0]), Errno::EMFILE);
        assert_eq!(who.fails(90, &[0, 5]), Errno::EBADF);
        assert_eq!(who.fails(454, &[0, 5, 0]), Errno::EBADF);
        assert_eq!(who.fails(92, &[0, 0, 5]), Errno::EINVAL, "F_DUPFD");
        assert_eq!(who.fails(92, &[0, 0, 4]), Errno::EMFILE, "F_DUPFD");
        assert_eq!(who.call(90, &[0, 4]), Ok(4));
    }
    guest.close(3).unwrap();
    assert_eq!(guest.call(41, &[0]), Ok(3));
    assert_eq!(guest.fails(41, &[0]), Errno::EMFILE);
    assert_eq!(set(&guest, NOFILE, 8, 10), Ok(0));
    assert_eq!(guest.call(41, &[0]), Ok(6));
    assert_eq!(child.fails(41, &[0]), Errno::EMFILE, "its own limit is as it was");
    assert_eq!(set(&guest, NOFILE, 0, 10), Ok(0));
    assert_eq!(guest.fails(41, &[0]), Errno::EMFILE);
    assert_eq!(guest.fails(90, &[0, 0]), Errno::EBADF);
}

#[test]
fn file_sizes() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    set(&guest, FSIZE, 10, 10).unwrap();
    assert_eq!(guest.write(fd, b"1234567"), Ok(7));
    assert_eq!(guest.write(fd, b"8901"), Err(Errno::EFBIG), "all of it or nothing");
    assert_eq!(guest.signals.taken(), [25]);
    assert_eq!(guest.write(fd, b"890"), Ok(3));
    assert_eq!(guest.signals.taken(), []);
    let at = guest.place(b"x");
    assert_eq!(guest.call(174, &[fd, at, 1, 0, 9]), Ok(1));
    assert_eq!(guest.fails(174, &[fd, at, 1, 0, 10]), Errno::EFBIG);
    let appending = guest.open("/tmp/file", o::WRONLY | o::APPEND).unwrap();
    assert_eq!(guest.write(appending, b"x"), Err(Errno::EFBIG));
    assert_eq!(guest.signals.taken(), [25, 25]);
    // Truncation is not a write, and a device or a pipe has no length.
    assert_eq!(guest.call(201, &[fd, 0, 100]), Ok(0));
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    assert_eq!(guest.write(null, b"12345678901234"), Ok(14));
    let (_, writer) = guest.pipe();
    assert_eq!(guest.write(writer, b"12345678901234"), Ok(14));
    assert_eq!(guest.fork().write(fd, b"x"), Err(Errno::EFBIG), "inherited");
    set(&guest, FSIZE, INFINITY, INFINITY).unwrap();
    assert_eq!(guest.write(appending, b"x"), Ok(1));
    assert_eq!(guest.signals.taken(), []);
}

fn processes_of(kernel: &Embedded, uid: u32) -> u64 {
    kernel.system.uidinfo.count(uid)
}

#[test]
fn processes_of_a_user() {
    let kernel = kernel();
    let root = Guest::new(&kernel);
    let (guest, other) = (root.fork(), root.fork());
    assert_eq!(processes_of(&kernel, 0), 3);
    for who in [&guest, &other] {
        set(who, NPROC, 3, 3).unwrap();
        who.call(23, &[5]).unwrap();
    }
    assert_eq!((processes_of(&kernel, 0), processes_of(&kernel, 5)), (1, 2));
    let third = guest.process.prefork().unwrap();
    assert_eq!(guest.process.prefork().err(), Some(Errno::EAGAIN));
    assert_eq!(other.process.prefork().err(), Some(Errno::EAGAIN), "whoever's child it is");
    assert_eq!(processes_of(&kernel, 5), 3);
    // A token that was given stays valid.
    let child = third.adopt(guest.signals.clone()).unwrap();
    assert_eq!(child.prefork().err(), Some(Errno::EAGAIN));
    third.release();
    assert_eq!(processes_of(&kernel, 5), 3);
    child.release();
    assert_eq!(processes_of(&kernel, 5), 2);
    assert!(other.process.prefork().is_ok());
    // The limit does not bind the superuser, whose processes are counted by the real user.
    set(&root, NPROC, 1, 1).unwrap();
    assert!(root.process.prefork().is_ok());
    root.call(126, &[5, 0]).unwrap();
    assert_eq!((processes_of(&kernel, 0), processes_of(&kernel, 5)), (0, 3));
    drop((root, guest, other, third, child));
    assert_eq!((processes_of(&kernel, 0), processes_of(&kernel, 5)), (0, 0));
}

#[test]
fn a_child_counts_for_the_user_its_parent_is_just_then() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..2_000 {
                guest.call(126, &[5 * (turn % 2), 0]).unwrap();
            }
        });
        for _ in 0..2_000 {
            guest.process.prefork().unwrap().release();
        }
    });
    guest.call(126, &[6, 0]).unwrap();
    assert_eq!([0, 5, 6].map(|user| processes_of(&kernel, user)), [0, 0, 1]);
}
