use std::thread;

use super::super::testing::{Guest, NOWHERE, Pending, kernel, kernel_with, o};
use super::super::{Embedded, Limits};
use kernel::{
    Errno,
    sys::{FCNTL, FLOCK},
};

const GETLK: u64 = 7;
const SETLK: u64 = 8;
const SETLKW: u64 = 9;

const READ: i16 = 1;
const UNLOCK: i16 = 2;
const WRITE: i16 = 3;

const SH: u64 = 1;
const EX: u64 = 2;
const NB: u64 = 4;
const UN: u64 = 8;

/// Encodes a `struct flock`.
fn flock(kind: i16, whence: i16, start: i64, len: i64) -> Vec<u8> {
    let mut bytes = [start.to_le_bytes(), len.to_le_bytes()].concat();
    bytes.extend(77i32.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(whence.to_le_bytes());
    bytes
}

/// Calls `F_SETLK` for bytes counted from the beginning of the file.
fn set(guest: &Guest, fd: u64, kind: i16, start: i64, len: i64) -> Result<i64, Errno> {
    guest.call(FCNTL, &[fd, SETLK, guest.place(&flock(kind, 0, start, len))])
}

/// Begins an `F_SETLKW`.
fn set_wait(guest: &Guest, fd: u64, kind: i16, start: i64, len: i64) -> Pending {
    guest.start(FCNTL, &[fd, SETLKW, guest.place(&flock(kind, 0, start, len))])
}

/// Returns what `F_GETLK` answers: start, length, pid, kind and whence.
fn get(guest: &Guest, fd: u64, kind: i16, start: i64, len: i64) -> (i64, i64, i32, i16, i16) {
    let addr = guest.place(&flock(kind, 0, start, len));
    assert_eq!(guest.call(FCNTL, &[fd, GETLK, addr]), Ok(0));
    decode(&guest.get(addr, 24))
}

fn decode(bytes: &[u8]) -> (i64, i64, i32, i16, i16) {
    let long = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let short = |at: usize| i16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let pid = i32::from_le_bytes(bytes[16..20].try_into().unwrap());
    (long(0), long(8), pid, short(20), short(22))
}

/// Returns clients that each have opened `/tmp/file` for reading and writing, as descriptor 3.
fn guests<const N: usize>(kernel: &Embedded) -> [Guest; N] {
    std::array::from_fn(|_| {
        let guest = Guest::new(kernel);
        assert_eq!(guest.open("/tmp/file", o::RDWR | o::CREAT), Ok(3));
        guest
    })
}

#[test]
fn a_lock_is_in_the_way_of_others_and_of_its_owner_never() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    assert_eq!(get(&two, 3, WRITE, 0, 0), (0, 0, 77, UNLOCK, 0));
    assert_eq!(set(&one, 3, WRITE, 10, 10), Ok(0));
    assert_eq!(set(&one, 3, READ, 10, 5), Ok(0));
    assert_eq!(set(&two, 3, READ, 0, 15), Ok(0));
    assert_eq!(set(&two, 3, READ, 14, 2), Err(Errno::EAGAIN));
    assert_eq!(set(&two, 3, WRITE, 14, 1), Err(Errno::EAGAIN));
    assert_eq!(set(&one, 3, WRITE, 20, 0), Ok(0));
    // The first conflicting lock is reported, and none of the caller's own.
    let pid = one.process.pid();
    assert_eq!(get(&two, 3, WRITE, 0, 0), (10, 5, pid, READ, 0));
    assert_eq!(get(&two, 3, READ, 0, 0), (15, 5, pid, WRITE, 0));
    assert_eq!(get(&two, 3, READ, 25, 3), (20, 0, pid, WRITE, 0));
    assert_eq!(get(&two, 3, UNLOCK, 25, 3), (20, 0, pid, WRITE, 0));
    assert_eq!(get(&two, 3, READ, 10, 5), (10, 5, 77, UNLOCK, 0));
    assert_eq!(get(&one, 3, WRITE, 10, 10), (0, 15, two.process.pid(), READ, 0));
    assert_eq!(set(&one, 3, UNLOCK, 0, 0), Ok(0));
    assert_eq!(set(&two, 3, WRITE, 0, 0), Ok(0));
    // Locks of another file do not matter.
    let other = one.open("/tmp/other", o::RDWR | o::CREAT).unwrap();
    assert_eq!(set(&one, other, WRITE, 0, 0), Ok(0));
}

#[test]
fn bytes_are_counted_from_the_beginning_the_offset_or_the_end() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    one.write(3, &[0; 100]).unwrap();
    let lock = |guest: &Guest, whence, start, len| {
        guest.call(FCNTL, &[3, SETLK, guest.place(&flock(WRITE, whence, start, len))])
    };
    let held = |expected: &[(i64, i64)]| {
        for &(start, len) in expected {
            let found = get(&two, 3, READ, start, 1);
            assert_eq!((found.0, found.1), (start, len));
        }
        set(&one, 3, UNLOCK, 0, 0).unwrap();
        assert_eq!(get(&two, 3, WRITE, 0, 0).3, UNLOCK);
    };
    // The offset is 100, and so is the size.
    assert_eq!(lock(&one, 1, -10, 5), Ok(0));
    one.call(199, &[3, 0, 50, 0]).unwrap();
    assert_eq!(lock(&one, 1, 1, 2), Ok(0));
    assert_eq!(lock(&one, 2, -3, 0), Ok(0));
    assert_eq!(lock(&one, 0, 20, -5), Ok(0));
    held(&[(90, 5), (51, 2), (97, 0), (15, 5)]);
    assert_eq!(lock(&one, 0, 5, -5), Ok(0));
    assert_eq!(lock(&one, 0, 1, i64::MAX), Ok(0));
    held(&[(1, i64::MAX)]);
    // There is nothing before the begin of the file.
    assert_eq!(lock(&one, 0, -1, 5), Err(Errno::EINVAL));
    assert_eq!(lock(&one, 0, 5, -6), Err(Errno::EINVAL));
    assert_eq!(lock(&one, 0, 5, i64::MIN), Err(Errno::EINVAL));
    assert_eq!(lock(&one, 1, i64::MAX, 0), Err(Errno::EINVAL));
    assert_eq!(lock(&one, 2, -101, 0), Err(Errno::EINVAL));
    assert_eq!(lock(&one, 3, 0, 0), Err(Errno::EINVAL));
    // A range that ends past all offsets locks nothing.
    assert_eq!(lock(&one, 0, 2, i64::MAX), Ok(0));
    assert_eq!(get(&two, 3, WRITE, 0, 0).3, UNLOCK);
    assert_eq!(get(&two, 3, WRITE, 2, i64::MAX).3, UNLOCK);
    // The request comes back unchanged, counted from the offset.
    let addr = two.place(&flock(READ, 1, 7, 3));
    two.call(199, &[3, 0, 40, 0]).unwrap();
    assert_eq!(two.call(FCNTL, &[3, GETLK, addr]), Ok(0));
    assert_eq!(decode(&two.get(addr, 24)), (47, 3, 77, UNLOCK, 1));
}

#[test]
fn what_cannot_be_locked_is_refused() {
    let guest = Guest::new(&kernel());
    guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let reads = guest.open("/tmp/file", o::RDONLY).unwrap();
    let writes = guest.open("/tmp/file", o::WRONLY).unwrap();
    let (pipe, _) = guest.pipe();
    assert_eq!(guest.fails(FCNTL, &[99, SETLK, NOWHERE]), Errno::EFAULT);
    assert_eq!(set(&guest, 99, 17, 0, 0), Err(Errno::EBADF));
    assert_eq!(set(&guest, pipe, 17, 0, 0), Err(Errno::EINVAL));
    assert_eq!(set(&guest, 1, READ, 0, 0), Err(Errno::EINVAL));
    assert_eq!(set(&guest, reads, 17, 0, 0), Err(Errno::EINVAL));
    assert_eq!(set(&guest, reads, WRITE, -5, 0), Err(Errno::EBADF));
    assert_eq!(set(&guest, writes, READ, -5, 0), Err(Errno::EBADF));
    assert_eq!(set(&guest, reads, READ, 0, 0), Ok(0));
    assert_eq!(set(&guest, writes, WRITE, 0, 0), Ok(0));
    assert_eq!(set(&guest, reads, UNLOCK, 0, 0), Ok(0));
    let addr = guest.place(&flock(17, 0, 0, 0));
    assert_eq!(guest.fails(FCNTL, &[reads, GETLK, addr]), Errno::EINVAL);
    assert_eq!(guest.fails(FCNTL, &[reads, GETLK, NOWHERE]), Errno::EFAULT);
    // Directories and devices can be locked.
    let dir = guest.open("/tmp", o::RDONLY).unwrap();
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    assert_eq!(set(&guest, dir, READ, 0, 0), Ok(0));
    assert_eq!(set(&guest, null, WRITE, 0, 0), Ok(0));
    assert_eq!(guest.fails(FLOCK, &[99, 99]), Errno::EBADF);
    assert_eq!(guest.fails(FLOCK, &[pipe, 99]), Errno::EOPNOTSUPP);
    for bad in [0, 3, NB, SH | UN, 16 | EX] {
        assert_eq!(guest.fails(FLOCK, &[dir, bad]), Errno::EINVAL, "{bad}");
    }
}

#[test]
fn a_process_gives_up_its_locks_with_any_descriptor_of_the_file() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    let free = || get(&two, 3, WRITE, 0, 0).3 == UNLOCK;
    let lock = || {
        assert_eq!(set(&one, 3, WRITE, 0, 0), Ok(0));
        assert!(!free());
    };
    lock();
    let null = one.open("/dev/null", o::RDONLY).unwrap();
    one.close(null).unwrap();
    assert!(!free());
    // Another descriptor of the file, from another open.
    let other = one.open("/tmp/file", o::RDONLY).unwrap();
    one.close(other).unwrap();
    assert!(free());
    lock();
    let other = one.call(41, &[3]).unwrap() as u64;
    one.call(90, &[1, other]).unwrap();
    assert!(free());
    lock();
    one.open("/tmp/file", o::RDONLY | o::CLOEXEC).unwrap();
    one.process.exec(b"other");
    assert!(free());
    lock();
    let other = one.open("/tmp/file", o::RDONLY).unwrap();
    one.call(FCNTL, &[other, 10]).unwrap();
    assert!(free());
    // A child has none of its parent's locks, and its end releases none.
    lock();
    let child = one.fork();
    assert_eq!(get(&child, 3, READ, 0, 0).2, one.process.pid());
    assert_eq!(set(&child, 3, UNLOCK, 0, 0), Ok(0));
    child.close(3).unwrap();
    child.process.release();
    assert!(!free());
    // Neither does an unused prefork, and a client that takes one over is a process of its own.
    one.process.prefork().unwrap().release();
    assert!(!free());
    set(&one, 3, UNLOCK, 0, 0).unwrap();
    let child = one.fork();
    assert_eq!(set(&child, 3, WRITE, 5, 5), Ok(0));
    assert_eq!(set(&one, 3, READ, 0, 0), Err(Errno::EAGAIN));
    child.process.release();
    assert!(free());
    lock();
    one.process.release();
    assert!(free());
}

#[test]
fn who_waits_is_woken_when_the_bytes_come_free() {
    let kernel = kernel();
    let [one, two, three] = guests(&kernel);
    assert_eq!(set(&one, 3, WRITE, 0, 10), Ok(0));
    assert_eq!(set(&one, 3, WRITE, 20, 10), Ok(0));
    let mut waits = set_wait(&two, 3, READ, 5, 1);
    let mut elsewhere = set_wait(&three, 3, WRITE, 20, 1);
    assert_eq!((waits.run(), elsewhere.run()), (None, None));
    assert_eq!(waits.run(), None);
    assert!(!waits.woken());
    // A change of other bytes does not wake a call; one that makes its bytes shared does.
    assert_eq!(set(&one, 3, READ, 20, 10), Ok(0));
    assert!(elsewhere.woken() && !waits.woken());
    assert_eq!(elsewhere.run(), None);
    assert_eq!(set(&one, 3, READ, 0, 10), Ok(0));
    assert!(waits.woken() && !elsewhere.woken());
    assert_eq!(waits.run(), Some(Ok([0, 0])));
    one.close(3).unwrap();
    assert!(elsewhere.woken());
    assert_eq!(elsewhere.run(), Some(Ok([0, 0])));
    // The call is woken, but another was first.
    let mut waits = set_wait(&two, 3, WRITE, 20, 1);
    assert_eq!(waits.run(), None);
    set(&three, 3, UNLOCK, 0, 0).unwrap();
    assert!(waits.woken());
    assert_eq!(set(&three, 3, READ, 20, 1), Ok(0));
    assert_eq!(waits.run(), None);
    three.process.release();
    assert!(waits.woken());
    assert_eq!(waits.run(), Some(Ok([0, 0])));
}

#[test]
fn an_interrupted_wait_leaves_nothing() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    let bytes = kernel.usage().bytes;
    assert_eq!(set(&one, 3, WRITE, 0, 0), Ok(0));
    let mut waits = set_wait(&two, 3, WRITE, 0, 0);
    assert_eq!(waits.run(), None);
    assert_eq!(kernel.system.waits.len(), 1);
    assert_eq!(waits.interrupt(), Err(Errno::EINTR));
    assert_eq!(kernel.system.waits.len(), 0);
    // A client ends while its call sleeps.
    let mut waits = set_wait(&two, 3, WRITE, 0, 0);
    assert_eq!(waits.run(), None);
    drop(waits);
    assert_eq!(kernel.system.waits.len(), 0);
    assert_eq!(set(&one, 3, UNLOCK, 0, 0), Ok(0));
    assert_eq!(kernel.usage().bytes, bytes);
    assert_eq!(set(&one, 3, WRITE, 0, 0), Ok(0));
}

#[test]
fn the_descriptor_of_a_wait_may_come_to_mean_something_else() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    assert_eq!(set(&one, 3, WRITE, 0, 0), Ok(0));
    let mut waits = set_wait(&two, 3, WRITE, 0, 0);
    assert_eq!(waits.run(), None);
    two.close(3).unwrap();
    assert_eq!(two.open("/tmp/file", o::RDWR), Ok(3));
    assert_eq!(waits.run(), Some(Err(Errno::EBADF)));
}

#[test]
fn a_circle_of_waits_is_refused() {
    let kernel = kernel();
    let [one, two, three] = guests(&kernel);
    for (guest, at) in [(&one, 1), (&two, 2), (&three, 3)] {
        assert_eq!(set(guest, 3, WRITE, at, 1), Ok(0));
    }
    let mut first = set_wait(&one, 3, WRITE, 2, 1);
    let mut second = set_wait(&two, 3, READ, 3, 1);
    assert_eq!((first.run(), second.run()), (None, None));
    let mut third = set_wait(&three, 3, WRITE, 1, 1);
    assert_eq!(third.run(), Some(Err(Errno::EDEADLK)));
    assert_eq!(set(&three, 3, WRITE, 1, 1), Err(Errno::EAGAIN));
    // Over two files as well; but not any more once one of them has been woken.
    let other = |guest: &Guest| guest.open("/tmp/other", o::RDWR | o::CREAT).unwrap();
    let (of_two, of_three) = (other(&two), other(&three));
    assert_eq!(set(&two, of_two, WRITE, 0, 0), Ok(0));
    assert_eq!(set_wait(&three, of_three, READ, 9, 9).run(), Some(Err(Errno::EDEADLK)));
    set(&three, 3, UNLOCK, 3, 1).unwrap();
    assert!(second.woken());
    let mut third = set_wait(&three, of_three, READ, 9, 9);
    assert_eq!(third.run(), None);
    assert_eq!(second.run(), Some(Ok([0, 0])));
    drop((first, third));
    assert_eq!(kernel.system.waits.len(), 0);
}

#[test]
fn a_long_chain_counts_as_a_circle() {
    let kernel = kernel();
    let guests: Vec<Guest> = (0..52)
        .map(|at| {
            let guest = Guest::new(&kernel);
            guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
            set(&guest, 3, WRITE, at, 1).unwrap();
            guest
        })
        .collect();
    // The process at 51 waits for nobody, the one at 50 for that one, and so on.
    let waits: Vec<Pending> = (2..51)
        .rev()
        .map(|at| {
            let mut wait = set_wait(&guests[at], 3, WRITE, at as i64 + 1, 1);
            assert_eq!(wait.run(), None, "{at}");
            wait
        })
        .collect();
    assert_eq!(waits.len(), 49);
    assert_eq!(set_wait(&guests[1], 3, WRITE, 2, 1).run(), Some(Err(Errno::EDEADLK)));
}

#[test]
fn a_lock_of_an_open_file_is_shared_by_those_who_share_it() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    let child = one.fork();
    assert_eq!(one.call(FLOCK, &[3, EX]), Ok(0));
    assert_eq!(one.call(FCNTL, &[3, 3]), Ok(0x4002));
    assert_eq!(child.call(FLOCK, &[3, EX | NB]), Ok(0));
    assert_eq!(two.fails(FLOCK, &[3, SH | NB]), Errno::EAGAIN);
    // Another open file of the same process is another owner.
    let again = one.open("/tmp/file", o::RDWR).unwrap();
    assert_eq!(one.fails(FLOCK, &[again, SH | NB]), Errno::EAGAIN);
    // So is a process, whatever it has open.
    assert_eq!(set(&one, 3, READ, 5, 1), Err(Errno::EAGAIN));
    assert_eq!(get(&one, 3, READ, 5, 1), (0, 0, -1, WRITE, 0));
    // The lock lasts until the last descriptor is closed, or one of them unlocks it.
    one.close(again).unwrap();
    one.close(3).unwrap();
    assert_eq!(two.fails(FLOCK, &[3, SH | NB]), Errno::EAGAIN);
    let mut waits = two.start(FLOCK, &[3, SH]);
    assert_eq!(waits.run(), None);
    child.process.release();
    assert!(waits.woken());
    assert_eq!(waits.run(), Some(Ok([0, 0])));
    assert_eq!(one.open("/tmp/file", o::RDONLY), Ok(3));
    assert_eq!(one.call(FLOCK, &[3, SH | NB]), Ok(0));
    assert_eq!(one.call(FLOCK, &[3, UN]), Ok(0));
    assert_eq!(one.call(FCNTL, &[3, 3]), Ok(0));
    assert_eq!(two.call(FLOCK, &[3, EX | NB]), Ok(0));
    let dup = two.call(41, &[3]).unwrap() as u64;
    assert_eq!(two.call(FLOCK, &[dup, UN]), Ok(0));
    assert_eq!(one.call(FLOCK, &[3, EX]), Ok(0));
}

#[test]
fn going_from_shared_to_exclusive_lets_go_first_unless_it_does_not_wait() {
    let kernel = kernel();
    let [one, two] = guests(&kernel);
    assert_eq!(one.call(FLOCK, &[3, SH]), Ok(0));
    assert_eq!(two.call(FLOCK, &[3, SH]), Ok(0));
    assert_eq!(one.fails(FLOCK, &[3, EX | NB]), Errno::EAGAIN);
    assert_eq!(two.fails(FLOCK, &[3, EX | NB]), Errno::EAGAIN);
    let mut first = one.start(FLOCK, &[3, EX]);
    assert_eq!(first.run(), None);
    // The first gave up its own lock, so the second gets it at once, and goes back to a shared one.
    assert_eq!(two.call(FLOCK, &[3, EX]), Ok(0));
    assert_eq!(two.call(FLOCK, &[3, SH]), Ok(0));
    assert!(first.woken());
    assert_eq!(first.run(), None);
    assert_eq!(first.interrupt(), Err(Errno::EINTR));
    // What was given up stays so.
    assert_eq!(two.call(FLOCK, &[3, EX | NB]), Ok(0));
}

#[test]
fn a_file_can_be_opened_with_a_lock() {
    let kernel = kernel();
    let (one, two) = (Guest::new(&kernel), Guest::new(&kernel));
    assert_eq!(one.open("/tmp/new", o::RDWR | o::CREAT | o::EXCL | o::EXLOCK), Ok(3));
    assert_eq!(one.call(FCNTL, &[3, 3]), Ok(0x4002));
    let shared = o::RDONLY | o::SHLOCK;
    assert_eq!(two.open("/tmp/new", shared | o::NONBLOCK), Err(Errno::EAGAIN));
    let files = kernel.usage().files;
    let open = |flags| two.start(5, &[two.string("/tmp/new"), flags]);
    let (mut interrupted, mut waits) = (open(shared), open(shared));
    assert_eq!((interrupted.run(), waits.run()), (None, None));
    assert_eq!(interrupted.interrupt(), Err(Errno::EINTR));
    assert!(!waits.woken());
    // The waiting call has opened the file already, whatever happens to its name.
    two.call(10, &[two.string("/tmp/new")]).unwrap();
    one.call(FLOCK, &[3, UN]).unwrap();
    assert!(waits.woken());
    // Its number was reserved after the other had got the first one.
    assert_eq!(waits.run(), Some(Ok([4, 0])));
    assert_eq!(one.fails(FLOCK, &[3, EX | NB]), Errno::EAGAIN);
    assert_eq!(two.call(FLOCK, &[4, EX | NB]), Ok(0));
    two.close(4).unwrap();
    assert_eq!(kernel.usage().files, files);
    assert_eq!(one.call(FLOCK, &[3, EX | NB]), Ok(0));
}

#[test]
fn locks_have_a_bound_and_are_given_back() {
    const MOST: i64 = 16 * 1024;
    let kernel = kernel();
    let [mut one, two] = guests(&kernel);
    one.slow = false;
    let before = kernel.usage().bytes;
    let files: Vec<u64> =
        (0..64).map(|n| one.open(&format!("/tmp/file{n}"), o::RDWR | o::CREAT).unwrap()).collect();
    let bytes = kernel.usage().bytes;
    let file = |at: i64| files[at as usize % files.len()];
    // One is spare for cutting another in two.
    for at in 0..MOST - 1 {
        assert_eq!(set(&one, file(at), WRITE, 10 * at, 5), Ok(0), "{at}");
    }
    assert_eq!(set(&one, 3, WRITE, 0, 1), Err(Errno::ENOMEM));
    assert_eq!(set(&two, 3, WRITE, 0, 1), Ok(0));
    // Unlocking may cut locks in two, up to twice the bound.
    for at in 0..MOST - 1 {
        assert_eq!(set(&one, file(at), UNLOCK, 10 * at + 2, 1), Ok(0), "{at}");
    }
    assert_eq!(kernel.usage().bytes, bytes + (2 * (MOST as u64 - 1) + 1) * 64);
    assert_eq!(set(&one, 3, UNLOCK, 1, 1), Ok(0));
    assert_eq!(one.call(FLOCK, &[3, SH]), Err(Errno::ENOMEM));
    assert_eq!(set(&one, file(0), UNLOCK, 0, 1), Ok(0));
    one.process.release();
    two.close(3).unwrap();
    assert_eq!(kernel.usage().bytes, before);
}

#[test]
fn locks_are_paid_for_in_bytes() {
    let kernel = kernel_with(Limits { bytes: 3 * 64, ..Limits::default() });
    let [one] = guests(&kernel);
    assert_eq!(set(&one, 3, WRITE, 0, 1), Ok(0));
    assert_eq!(set(&one, 3, WRITE, 5, 1), Ok(0));
    assert_eq!(set(&one, 3, WRITE, 9, 1), Err(Errno::ENOMEM));
    assert_eq!(set(&one, 3, UNLOCK, 5, 1), Ok(0));
    assert_eq!(set(&one, 3, WRITE, 9, 1), Ok(0));
    one.process.release();
    assert_eq!(kernel.usage().bytes, 0);
}

#[test]
fn many_threads_hold_one_lock_in_turn() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/count", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, &0u64.to_le_bytes()).unwrap();
    let workers: Vec<_> = (0..4)
        .map(|who| {
            let mut child = guest.fork();
            child.slow = who % 2 == 0;
            thread::spawn(move || {
                // Half of the locks are the process's, half an open file's.
                let own = child.open("/tmp/count", o::RDWR).unwrap();
                for _ in 0..300 {
                    match who / 2 {
                        0 => drop(set_wait(&child, fd, WRITE, 0, 8).wait().unwrap()),
                        _ => drop(child.call(FLOCK, &[own, EX]).unwrap()),
                    }
                    child.call(173, &[fd, child.buffer(), 8, 0, 0]).unwrap();
                    let count =
                        u64::from_le_bytes(child.get(child.buffer(), 8).try_into().unwrap());
                    child.put(child.buffer(), &(count + 1).to_le_bytes());
                    child.call(174, &[fd, child.buffer(), 8, 0, 0]).unwrap();
                    match who / 2 {
                        0 => drop(set(&child, fd, UNLOCK, 0, 0).unwrap()),
                        _ => drop(child.call(FLOCK, &[own, UN]).unwrap()),
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    guest.call(173, &[fd, guest.buffer(), 8, 0, 0]).unwrap();
    assert_eq!(guest.get(guest.buffer(), 8), 1200u64.to_le_bytes());
    assert_eq!(kernel.system.waits.len(), 0);
}
