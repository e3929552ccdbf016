use super::super::limits::ResourceGroup;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::Limits;
use super::super::call::{Result as CallResult, SyscallContext};
use super::super::file::{FileOps, OpenFile, Seen};
use super::super::io::Transfer;
use super::super::kqueue::{KNOTE_BYTES, Kevent, Watched, note};
use super::super::process::Proc;
use super::super::testing::{Guest, NOWHERE, PATIENCE, Pending, kernel, kernel_with, o};
use super::super::wait::Side;
use super::super::{Embedded, abi::Stat};
use kernel::Errno;

pub(super) const READ: u32 = 0;
pub(super) const WRITE: u32 = 1;
const AIO: u32 = 2;
pub(super) const VNODE: u32 = 3;
const PROC: u32 = 4;
const SIGNAL: u32 = 5;
const TIMER: u32 = 6;

pub(super) const ADD: u32 = 0x1;
const DELETE: u32 = 0x2;
const ENABLE: u32 = 0x4;
const DISABLE: u32 = 0x8;
const ONESHOT: u32 = 0x10;
pub(super) const CLEAR: u32 = 0x20;
const RECEIPT: u32 = 0x40;
const DISPATCH: u32 = 0x80;
const ERROR: u32 = 0x4000;
const EOF: u32 = 0x8000;

const EXIT: u32 = 0x8000_0000;
const FORK: u32 = 0x4000_0000;
const EXEC: u32 = 0x2000_0000;
const TRACK: u32 = 0x1;
const CHILD: u32 = 0x4;

const FULL: i64 = 16 * 1024;

/// A kqueue of a guest.
pub(super) struct Queue<'g> {
    guest: &'g Guest,
    pub fd: u64,
}

pub(super) fn event(ident: u64, filter: u32, flags: u32) -> Kevent {
    Kevent { ident, filter, flags, udata: ident ^ 0xabcd, ..Kevent::default() }
}

fn encode(events: &[Kevent]) -> Vec<u8> {
    events.iter().flat_map(Kevent::encode).collect()
}

impl<'g> Queue<'g> {
    pub fn new(guest: &'g Guest) -> Self {
        Queue { guest, fd: guest.call(344, &[]).unwrap() as u64 }
    }

    /// Begins a kevent call with room for `room` events. If it waits, then without a timeout.
    pub fn start(&self, changes: &[Kevent], room: u64, wait: bool) -> Pending {
        let at = self.guest.place(&encode(changes));
        let now = if wait { 0 } else { self.guest.place(&[0; 16]) };
        let count = changes.len() as u64;
        self.guest.start(435, &[self.fd, at, count, self.guest.buffer(), room, now])
    }

    /// Returns the events of a call that ended with this many.
    pub fn events(&self, count: i64) -> Vec<Kevent> {
        let bytes = self.guest.get(self.guest.buffer(), count as usize * Kevent::SIZE);
        bytes.chunks(Kevent::SIZE).map(Kevent::decode).collect()
    }

    pub fn change(&self, change: Kevent) -> Result<(), Errno> {
        self.start(&[change], 0, false).wait().map(|_| ())
    }

    /// Returns the present events: ident, filter, data, and `true` if EV_EOF is set.
    pub fn found(&self) -> Vec<(u64, u32, i64, bool)> {
        let count = self.start(&[], 100, false).wait().unwrap()[0];
        let events = self.events(count);
        events.iter().map(|e| (e.ident, e.filter, e.data, e.flags & EOF != 0)).collect()
    }
}

fn proc(kernel: &Embedded, guest: &Guest) -> Arc<Proc> {
    kernel.system.processes.find(guest.process.pid()).unwrap()
}

#[test]
fn a_pipe_tells_of_bytes_and_of_room() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let queue = Queue::new(&guest);
    assert_eq!(queue.fd, 5);
    queue.change(event(reader, READ, ADD)).unwrap();
    queue.change(event(writer, WRITE, ADD)).unwrap();
    assert_eq!(queue.found(), [(writer, WRITE, FULL, false)]);
    guest.write(writer, b"seven..").unwrap();
    // Events stay while they hold, and take turns; only what was asked for is reported.
    assert_eq!(queue.found(), [(writer, WRITE, FULL - 7, false), (reader, READ, 7, false)]);
    let count = queue.start(&[], 1, false).wait().unwrap()[0];
    assert_eq!(queue.events(count), [Kevent { data: FULL - 7, ..event(writer, WRITE, ADD) }]);
    let count = queue.start(&[], 1, false).wait().unwrap()[0];
    assert_eq!(queue.events(count), [Kevent { data: 7, ..event(reader, READ, ADD) }]);
    guest.write(writer, &[0; FULL as usize - 7 - 511]).unwrap();
    assert_eq!(queue.found(), [(reader, READ, FULL - 511, false)]);
    guest.read(reader, FULL as usize).unwrap();
    assert_eq!(queue.found(), [(writer, WRITE, FULL, false)]);
    // A low-water mark has no effect on a pipe.
    queue.change(Kevent { fflags: 1, data: 50, ..event(reader, READ, ADD) }).unwrap();
    guest.write(writer, b"x").unwrap();
    assert_eq!(queue.found().len(), 2);
    // The end of the pipe, with bytes left to read.
    guest.close(writer).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 1, true)]);
}

#[test]
fn the_other_side_of_an_end_tells_of_its_end() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let queue = Queue::new(&guest);
    queue.change(event(reader, WRITE, ADD)).unwrap();
    queue.change(event(writer, READ, ADD)).unwrap();
    guest.write(writer, b"x").unwrap();
    assert_eq!(queue.found(), []);
    guest.close(writer).unwrap();
    assert_eq!(queue.found(), [(reader, WRITE, 0, true)]);
    // The knote is attached after the end.
    queue.change(event(reader, WRITE, DELETE)).unwrap();
    assert_eq!(queue.change(event(reader, WRITE, ADD)), Err(Errno::EBADF));
    queue.change(event(reader, READ, ADD)).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 1, true)]);
}

#[test]
fn a_call_sleeps_until_something_happens() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let other = guest.fork();
    let queue = Queue::new(&guest);
    let mut pending = queue.start(&[event(reader, READ, ADD)], 10, true);
    assert_eq!(pending.run(), None);
    assert!(!pending.woken());
    // When run again, the call adds nothing a second time.
    assert_eq!(pending.run(), None);
    other.write(writer, b"abc").unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(queue.events(1)[0].data, 3);
    other.read(reader, 3).unwrap();
    let mut pending = queue.start(&[], 10, true);
    assert_eq!(pending.run(), None, "what is on the list but not ready any more is no event");
    assert_eq!(pending.interrupt(), Err(Errno::EINTR));
    // A second write, whose bytes another process takes before the knote is evaluated.
    let mut pending = queue.start(&[], 10, true);
    assert_eq!(pending.run(), None);
    other.write(writer, b"x").unwrap();
    assert!(pending.woken());
    other.read(reader, 1).unwrap();
    assert_eq!(pending.run(), None);
    other.write(writer, b"y").unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    // The kqueue is closed meanwhile.
    other.read(reader, 1).unwrap();
    let mut pending = queue.start(&[], 10, true);
    assert_eq!(pending.run(), None);
    guest.close(queue.fd).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Err(Errno::EBADF)));
}

#[test]
fn timeouts() {
    let guest = Guest::new(&kernel());
    let queue = Queue::new(&guest);
    let call = |room: u64, time: (i64, i64)| {
        let time = guest.place(&[time.0.to_le_bytes(), time.1.to_le_bytes()].concat());
        guest.call(435, &[queue.fd, 0, 0, guest.buffer(), room, time])
    };
    let begin = Instant::now();
    assert_eq!(call(1, (0, 30_000_000)), Ok(0));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    for time in [(0, -1), (0, 1_000_000_000), (-1, 0)] {
        assert_eq!(call(1, time), Err(Errno::EINVAL));
        assert_eq!(call(0, time), Ok(0), "without room there is no waiting");
    }
    assert_eq!(guest.fails(435, &[queue.fd, 0, 0, 0, 0, NOWHERE]), Errno::EFAULT);
}

#[test]
fn changes_answer_for_themselves() {
    let guest = Guest::new(&kernel());
    let (reader, _writer) = guest.pipe();
    let queue = Queue::new(&guest);
    assert_eq!(guest.fails(435, &[99, NOWHERE, 1, 0, 0, NOWHERE]), Errno::EBADF);
    assert_eq!(guest.fails(435, &[reader, NOWHERE, 1, 0, 0, NOWHERE]), Errno::EBADF);
    assert_eq!(guest.fails(435, &[queue.fd, NOWHERE, 1, 0, 0, 0]), Errno::EFAULT);
    let refused = [
        (event(99, READ, ADD), Errno::EBADF),
        (event(1 << 31, READ, ADD), Errno::EBADF),
        (event(99, VNODE, DELETE), Errno::EBADF),
        (event(reader, READ, DELETE), Errno::ENOENT),
        (event(reader, READ, ENABLE), Errno::ENOENT),
        (event(reader, AIO, ADD), Errno::EINVAL),
        (event(reader, 7, ADD), Errno::EINVAL),
        (event(reader, u32::MAX, ADD), Errno::EINVAL),
        (event(reader, VNODE, ADD), Errno::EINVAL),
        (event(0, READ, ADD), Errno::EOPNOTSUPP),
        (event(0, VNODE, ADD), Errno::EOPNOTSUPP),
        (event(queue.fd, WRITE, ADD), Errno::EPERM),
        (event(queue.fd, VNODE, ADD), Errno::EPERM),
        (event(30_000, PROC, ADD), Errno::ESRCH),
        (event(5, TIMER, ADD), Errno::EINVAL),
        (event(5, TIMER, DELETE), Errno::ENOENT),
    ];
    for (change, errno) in refused {
        assert_eq!(queue.change(change), Err(errno), "{change:?}");
    }
    // With room in the eventlist errors are answered there, successes only if a receipt is wanted.
    let good = event(reader, READ, ADD);
    let receipt = Kevent { fflags: 7, data: 8, ..event(reader, READ, ADD | RECEIPT) };
    let changes: Vec<Kevent> =
        refused[..4].iter().map(|(change, _)| *change).chain([good, receipt]).collect();
    let count = queue.start(&changes, 9, true).wait().unwrap()[0];
    let mut expected: Vec<Kevent> = refused[..4]
        .iter()
        .map(|(change, errno)| Kevent { flags: ERROR, data: errno.0.into(), ..*change })
        .collect();
    expected.push(Kevent { flags: ERROR, data: 0, ..receipt });
    assert_eq!(queue.events(count), expected);
    // Without room for an answer the call ends, before the next changes.
    queue.change(event(reader, READ, DELETE)).unwrap();
    let timer = Kevent { data: 1000, ..event(9, TIMER, ADD) };
    let changes = [refused[0].0, refused[3].0, timer];
    assert_eq!(queue.start(&changes, 1, true).wait(), Err(Errno::ENOENT));
    assert_eq!(queue.change(event(9, TIMER, DELETE)), Err(Errno::ENOENT));
    assert_eq!(queue.start(&[event(reader, READ, ADD | RECEIPT)], 0, true).wait(), Ok([0, 0]));
}

#[test]
fn many_changes_are_made_once_each() {
    let mut guest = Guest::new(&kernel());
    guest.slow = true;
    let queue = Queue::new(&guest);
    // More changes than are copied in at once, every hundredth bad, so that the answers go in pieces.
    let changes: Vec<Kevent> = (0..4000)
        .map(|at| match at % 100 {
            0 => event(at, 99, ADD),
            _ => event(at, SIGNAL, ADD),
        })
        .collect();
    let count = queue.start(&changes, 5000, true).wait().unwrap()[0];
    assert_eq!(count, 40);
    for (at, answer) in queue.events(count).iter().enumerate() {
        assert_eq!((answer.ident, answer.flags, answer.data), (at as u64 * 100, ERROR, 22));
    }
    for at in 0..4000 {
        let there = queue.change(event(at, SIGNAL, DELETE));
        assert_eq!(there, if at % 100 == 0 { Err(Errno::ENOENT) } else { Ok(()) });
    }
}

#[test]
fn clear_reports_changes_and_not_what_is() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let queue = Queue::new(&guest);
    queue.change(event(reader, READ, ADD | CLEAR)).unwrap();
    guest.write(writer, &[0; 10]).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 10, false)]);
    assert_eq!(queue.found(), []);
    // A read of a part counts as a change, as on NetBSD; so does a write.
    guest.read(reader, 4).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 6, false)]);
    assert_eq!(queue.found(), []);
    guest.write(writer, b"x").unwrap();
    guest.write(writer, b"y").unwrap();
    assert_eq!(queue.found(), [(reader, READ, 8, false)]);
    guest.read(reader, 8).unwrap();
    assert_eq!(queue.found(), []);
    queue.change(event(writer, WRITE, ADD | CLEAR)).unwrap();
    assert_eq!(queue.found(), [(writer, WRITE, FULL, false)]);
    assert_eq!(queue.found(), []);
    guest.write(writer, b"z").unwrap();
    assert_eq!(queue.found(), [(reader, READ, 1, false), (writer, WRITE, FULL - 1, false)]);
}

#[test]
fn oneshot_dispatch_and_disabled_ones() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let queue = Queue::new(&guest);
    queue.change(event(reader, READ, ADD | ONESHOT)).unwrap();
    guest.write(writer, b"abc").unwrap();
    assert_eq!(queue.found(), [(reader, READ, 3, false)]);
    assert_eq!(queue.change(event(reader, READ, DELETE)), Err(Errno::ENOENT));
    // A disabled knote keeps its event until it is enabled.
    queue.change(event(reader, READ, ADD | DISABLE)).unwrap();
    assert_eq!(queue.found(), []);
    queue.change(event(reader, READ, ENABLE)).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 3, false)]);
    queue.change(event(reader, READ, DISABLE)).unwrap();
    assert_eq!(queue.found(), []);
    guest.read(reader, 3).unwrap();
    queue.change(event(reader, READ, ENABLE)).unwrap();
    assert_eq!(queue.found(), []);
    queue.change(event(reader, READ, DELETE)).unwrap();
    // A report disables an EV_DISPATCH knote; when enabled again it reports the next change.
    queue.change(event(reader, READ, ADD | DISPATCH)).unwrap();
    guest.write(writer, b"x").unwrap();
    assert_eq!(queue.found(), [(reader, READ, 1, false)]);
    guest.write(writer, b"y").unwrap();
    assert_eq!(queue.found(), []);
    queue.change(event(reader, READ, ENABLE)).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 2, false)]);
    // A second EV_ADD changes the udata.
    queue.change(Kevent { udata: 77, ..event(reader, READ, ADD | ENABLE) }).unwrap();
    let count = queue.start(&[], 1, false).wait().unwrap()[0];
    assert_eq!(queue.events(count)[0].udata, 77);
}

#[test]
fn closing_a_descriptor_removes_its_knotes() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    guest.call(92, &[0, 1]).unwrap();
    let before = kernel.usage();
    let (reader, writer) = guest.pipe();
    let with_pipe = kernel.usage();
    let queue = Queue::new(&guest);
    let twin = guest.call(41, &[reader]).unwrap() as u64;
    for fd in [reader, twin] {
        queue.change(event(fd, READ, ADD)).unwrap();
    }
    assert_eq!(kernel.usage().bytes, with_pipe.bytes + 2 * KNOTE_BYTES);
    guest.write(writer, b"x").unwrap();
    assert_eq!(queue.found().len(), 2);
    // A knote belongs to its descriptor, not to the open file.
    guest.close(twin).unwrap();
    assert_eq!(queue.found(), [(reader, READ, 1, false)]);
    assert_eq!(kernel.usage().bytes, with_pipe.bytes + KNOTE_BYTES);
    // The knote goes however the descriptor is closed.
    let again = guest.call(41, &[reader]).unwrap() as u64;
    assert_eq!(again, twin);
    assert_eq!(queue.found(), [(reader, READ, 1, false)]);
    queue.change(event(twin, READ, ADD)).unwrap();
    guest.call(90, &[writer, twin]).unwrap();
    queue.change(event(reader, READ, DELETE)).unwrap();
    assert_eq!(queue.found(), []);
    queue.change(event(twin, WRITE, ADD)).unwrap();
    guest.call(92, &[twin, 2, 1]).unwrap();
    guest.process.exec(b"new");
    assert_eq!(kernel.usage().bytes, with_pipe.bytes);
    queue.change(event(reader, READ, ADD)).unwrap();
    queue.change(event(writer, WRITE, ADD)).unwrap();
    queue.change(Kevent { data: 3_600_000, ..event(1, TIMER, ADD) }).unwrap();
    assert_eq!(kernel.system.timer_thread.len(), 1);
    // Closing the kqueue removes all of its knotes.
    guest.close(queue.fd).unwrap();
    assert_eq!(kernel.usage(), with_pipe);
    assert_eq!(kernel.system.timer_thread.len(), 0);
    guest.close(reader).unwrap();
    guest.close(writer).unwrap();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn a_process_leaves_nothing_of_its_kqueues() {
    let kernel = kernel();
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    let other = Guest::new(&kernel);
    let watched = proc(&kernel, &other);
    for _ in 0..3 {
        let (reader, writer) = guest.pipe();
        let queue = Queue::new(&guest);
        queue.change(event(reader, READ, ADD)).unwrap();
        queue.change(event(writer, WRITE, ADD | CLEAR)).unwrap();
        queue.change(event(7, SIGNAL, ADD)).unwrap();
        queue.change(Kevent { data: 5, ..event(1, TIMER, ADD) }).unwrap();
        queue
            .change(Kevent { fflags: EXIT, ..event(other.process.pid() as u64, PROC, ADD) })
            .unwrap();
        queue.change(event(queue.fd, READ, ADD)).unwrap();
    }
    assert_eq!(watched.extras().watched.len(), 3);
    guest.process.release();
    assert_eq!(watched.extras().watched.len(), 0);
    other.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn knotes_are_bounded() {
    let bytes = 64 * KNOTE_BYTES;
    let kernel = kernel_with(Limits { bytes_per_family: bytes, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    for ident in 0..64 {
        queue.change(event(ident, SIGNAL, ADD)).unwrap();
    }
    assert_eq!(queue.change(event(64, SIGNAL, ADD)), Err(Errno::ENOMEM));
    assert_eq!(queue.change(Kevent { data: 9, ..event(1, TIMER, ADD) }), Err(Errno::ENOMEM));
    assert_eq!(kernel.system.timer_thread.len(), 0);
    queue.change(event(3, SIGNAL, ADD)).unwrap();
    queue.change(event(3, SIGNAL, DELETE)).unwrap();
    queue.change(event(64, SIGNAL, ADD)).unwrap();
    let other = Guest::new(&kernel);
    Queue::new(&other).change(event(1, SIGNAL, ADD)).unwrap();
}

#[test]
fn one_kqueue_has_so_many_knotes_and_no_more() {
    let mut guest = Guest::new(&kernel());
    guest.slow = false;
    let queue = Queue::new(&guest);
    let all: Vec<Kevent> = (0..1 << 16).map(|ident| event(ident, SIGNAL, ADD)).collect();
    for part in all.chunks(4096) {
        assert_eq!(queue.start(part, 0, false).wait(), Ok([0, 0]));
    }
    assert_eq!(queue.change(event(1 << 16, SIGNAL, ADD)), Err(Errno::ENOMEM));
}

#[test]
fn kqueues_may_watch_each_other() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let (inner, outer) = (Queue::new(&guest), Queue::new(&guest));
    inner.change(event(reader, READ, ADD)).unwrap();
    outer.change(event(inner.fd, READ, ADD)).unwrap();
    inner.change(event(outer.fd, READ, ADD)).unwrap();
    inner.change(event(inner.fd, READ, ADD)).unwrap();
    let mut pending = outer.start(&[], 10, true);
    assert_eq!(pending.run(), None);
    guest.write(writer, b"x").unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(outer.events(1)[0].ident, inner.fd);
    let found = inner.found();
    assert!(found.contains(&(reader, READ, 1, false)), "{found:?}");
    // Two kqueues that are on each other's list keep each other there; once apart they fall silent.
    guest.read(reader, 1).unwrap();
    assert!(!outer.found().is_empty() && !inner.found().is_empty());
    inner.change(event(outer.fd, READ, DELETE)).unwrap();
    inner.change(event(inner.fd, READ, DELETE)).unwrap();
    assert_eq!((inner.found(), outer.found()), (vec![], vec![]));
    inner.change(event(outer.fd, READ, ADD)).unwrap();
    // Evaluate both at once from two threads.
    let look = |fd: u64| {
        let now = guest.place(&[0; 16]);
        for _ in 0..500 {
            guest.call(435, &[fd, 0, 0, guest.buffer(), 8, now]).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| look(inner.fd));
        scope.spawn(|| look(outer.fd));
        for _ in 0..500 {
            guest.call(4, &[writer, guest.buffer(), 1]).unwrap();
            guest.call(3, &[reader, guest.buffer() + 4096, 1]).unwrap();
        }
    });
}

#[test]
fn a_long_chain_of_kqueues_is_woken_to_its_end() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let mut below = reader;
    let mut last = None;
    for _ in 0..1000 {
        let queue = Queue::new(&guest);
        queue.change(event(below, READ, ADD)).unwrap();
        below = queue.fd;
        last = Some(queue);
    }
    let last = last.unwrap();
    let mut pending = last.start(&[], 1, true);
    assert_eq!(pending.run(), None);
    // A small stack is enough.
    thread::scope(|scope| {
        let wake = || guest.call(4, &[writer, guest.buffer(), 1]).unwrap();
        thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, wake).unwrap();
    });
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
}

#[test]
fn a_kqueue_is_a_file_of_its_own() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let queue = Queue::new(&guest);
    queue.change(event(reader, READ, ADD)).unwrap();
    let at = guest.place(&[queue.fd.to_le_bytes()[..4].to_vec(), vec![0x45, 0, 0, 0]].concat());
    let mut pending = guest.start(209, &[at, 1, u32::MAX.into()]);
    assert_eq!(pending.run(), None);
    guest.write(writer, b"x").unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(guest.get(at + 6, 2), [0x41, 0]);
    // stat(2) returns the length of the list.
    guest.call(440, &[queue.fd, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o010_000u32.to_le_bytes());
    assert_eq!(guest.get(guest.buffer() + 112, 1), [1]);
    assert_eq!(guest.get(guest.buffer() + 128, 1), [40]);
    assert_eq!(guest.read(queue.fd, 1), Err(Errno::ENXIO));
    assert_eq!(guest.write(queue.fd, b"x"), Err(Errno::ENXIO));
    assert_eq!(guest.fails(54, &[queue.fd, 0x4004_667f, guest.buffer()]), Errno::ENOTTY);
    // A kqueue stays with its process.
    let child = guest.fork();
    assert_eq!(child.fails(435, &[queue.fd, 0, 0, 0, 0, 0]), Errno::EBADF);
    assert_eq!(child.call(344, &[]), Ok(queue.fd as i64));
    let twin = guest.call(41, &[queue.fd]).unwrap() as u64;
    guest.close(queue.fd).unwrap();
    assert_eq!(Queue { guest: &guest, fd: twin }.found(), [(reader, READ, 1, false)]);
    // Flags.
    let fd = guest.call(455, &[o::CLOEXEC | o::NONBLOCK]).unwrap() as u64;
    assert_eq!(guest.call(92, &[fd, 1]), Ok(1));
    assert_eq!(guest.call(92, &[fd, 3]), Ok(6));
    guest.process.exec(b"new");
    assert_eq!(guest.fails(435, &[fd, 0, 0, 0, 0, 0]), Errno::EBADF);
}

#[test]
fn filters_have_names() {
    let guest = Guest::new(&kernel());
    let queue = Queue::new(&guest);
    let name = guest.string("EVFILT_TIMER");
    let mapping = |name: u64, len: u64, filter: u32| {
        let words = [name.to_le_bytes(), len.to_le_bytes(), u64::from(filter).to_le_bytes()];
        guest.place(&words.concat())
    };
    let at = mapping(name, 0, 99);
    guest.call(54, &[queue.fd, 0xc018_6b01, at]).unwrap();
    assert_eq!(guest.get(at + 16, 4), [6, 0, 0, 0]);
    let at = mapping(guest.buffer(), 32, VNODE);
    guest.call(54, &[queue.fd, 0xc018_6b00, at]).unwrap();
    assert_eq!(guest.get(guest.buffer(), 13), b"EVFILT_VNODE\0");
    for (request, at, errno) in [
        (0xc018_6b00, mapping(guest.buffer(), 32, 7), Errno::ENOENT),
        (0xc018_6b00, mapping(guest.buffer(), 12, VNODE), Errno::ENAMETOOLONG),
        (0xc018_6b01, mapping(guest.string("EVFILT_USER"), 0, 0), Errno::ENOENT),
        (0xc018_6b01, mapping(NOWHERE, 0, 0), Errno::EFAULT),
        (0xc018_6b00, NOWHERE, Errno::EFAULT),
    ] {
        assert_eq!(guest.fails(54, &[queue.fd, request, at]), errno);
    }
}

#[test]
fn timers_count_their_periods() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    queue.change(Kevent { data: 3_600_000, ..event(1, TIMER, ADD) }).unwrap();
    assert_eq!(queue.found(), [], "it is not time");
    let begin = Instant::now();
    queue.change(Kevent { data: 1, ..event(2, TIMER, ADD | ONESHOT) }).unwrap();
    assert_eq!(queue.start(&[], 1, true).wait(), Ok([1, 0]));
    assert!(begin.elapsed() >= Duration::from_millis(10), "a tick at least");
    assert_eq!(queue.events(1), [Kevent { data: 1, ..event(2, TIMER, ADD | ONESHOT | CLEAR) }]);
    assert_eq!(queue.change(event(2, TIMER, DELETE)), Err(Errno::ENOENT));
    queue.change(event(1, TIMER, DELETE)).unwrap();
    let begin = Instant::now();
    queue.change(Kevent { data: 20, ..event(1, TIMER, ADD) }).unwrap();
    let mut sum = 0;
    while sum < 6 {
        assert_eq!(queue.start(&[], 1, true).wait(), Ok([1, 0]));
        let event = queue.events(1)[0];
        assert!(event.data >= 1 && event.ident == 1);
        sum += event.data;
    }
    let periods = begin.elapsed().as_millis() as i64 / 20;
    assert!(sum <= periods, "{sum} times in {periods} periods");
    // The timer is not looked at for a while: its periods are counted, and no alarm is set.
    thread::sleep(Duration::from_millis(70));
    while kernel.system.timer_thread.len() > 0 {
        assert!(begin.elapsed() < PATIENCE, "it does not go off");
        thread::sleep(Duration::from_millis(1));
    }
    let found = queue.found();
    assert!(found.len() == 1 && found[0].2 >= 3, "{found:?}");
    // After a look, an alarm is set for the next period, unless it has passed meanwhile.
    while kernel.system.timer_thread.len() != 1 {
        assert!(begin.elapsed() < PATIENCE, "it is not waited for");
        queue.found();
    }
    queue.change(event(1, TIMER, DELETE)).unwrap();
    assert_eq!(kernel.system.timer_thread.len(), 0);
}

#[test]
fn a_timer_wakes_who_polls_its_kqueue() {
    let guest = Guest::new(&kernel());
    let (inner, outer) = (Queue::new(&guest), Queue::new(&guest));
    outer.change(event(inner.fd, READ, ADD)).unwrap();
    inner.change(Kevent { data: 30, ..event(1, TIMER, ADD | ONESHOT) }).unwrap();
    let begin = Instant::now();
    let at = guest.place(&[outer.fd.to_le_bytes()[..4].to_vec(), vec![1, 0, 0, 0]].concat());
    assert_eq!(guest.call(209, &[at, 1, u32::MAX.into()]), Ok(1));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert_eq!(outer.found(), [(inner.fd, READ, 1, false)]);
    assert_eq!(inner.found(), [(1, TIMER, 1, false)]);
}

#[test]
fn signals_are_counted() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let other = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    queue.change(event(10, SIGNAL, ADD)).unwrap();
    let mut pending = queue.start(&[], 5, true);
    assert_eq!(pending.run(), None);
    let pid = guest.process.pid() as u64;
    other.call(37, &[pid, 12]).unwrap();
    assert!(!pending.woken());
    other.call(37, &[pid, 10]).unwrap();
    other.call(37, &[pid, 10]).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(queue.events(1), [Kevent { data: 2, ..event(10, SIGNAL, ADD | CLEAR) }]);
    assert_eq!(queue.found(), []);
    // The signals are delivered all the same.
    assert_eq!(guest.signals.taken(), [12, 10, 10]);
}

#[test]
fn processes_tell_of_what_becomes_of_them() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let other = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    let pid = other.process.pid() as u64;
    queue.change(Kevent { fflags: EXIT | FORK | EXEC, ..event(pid, PROC, ADD) }).unwrap();
    let take = || {
        let count = queue.start(&[], 9, false).wait().unwrap()[0];
        let events = queue.events(count);
        events.iter().map(|e| (e.ident, e.fflags, e.data, e.flags)).collect::<Vec<_>>()
    };
    other.process.exec(b"new");
    assert_eq!(take(), [(pid, EXEC, 0, ADD | CLEAR)]);
    let prefork = other.process.prefork().unwrap();
    other.process.exec(b"newer");
    assert_eq!(take(), [(pid, FORK | EXEC, 0, ADD | CLEAR)]);
    assert_eq!(take(), []);
    prefork.release();
    let mut pending = queue.start(&[], 9, true);
    assert_eq!(pending.run(), None);
    other.process.release();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    let last = queue.events(1)[0];
    assert_eq!((last.fflags, last.flags), (EXIT, ADD | CLEAR | ONESHOT | EOF));
    assert_eq!(queue.change(event(pid, PROC, DELETE)), Err(Errno::ENOENT));
    assert_eq!(queue.change(event(pid, PROC, ADD)), Err(Errno::ESRCH));
}

#[test]
fn a_tracked_process_is_followed_to_its_children() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let other = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    let pid = other.process.pid() as u64;
    queue.change(Kevent { fflags: TRACK | EXIT, ..event(pid, PROC, ADD) }).unwrap();
    let child = other.fork();
    let count = queue.start(&[], 9, false).wait().unwrap()[0];
    let events = queue.events(count);
    // The prefork, with its end, and the child that took its place.
    assert_eq!(events.len(), 2, "{events:?}");
    let prefork = &events[0];
    assert_eq!((prefork.fflags, prefork.data), (CHILD | EXIT, pid as i64));
    assert_eq!(prefork.udata, pid ^ 0xabcd);
    assert_eq!(events[1].ident, child.process.pid() as u64);
    assert_eq!((events[1].fflags, events[1].data), (CHILD, prefork.ident as i64));
    child.process.release();
    let count = queue.start(&[], 9, false).wait().unwrap()[0];
    assert_eq!(queue.events(count)[0].fflags, EXIT);
    // If the child's knote cannot be paid for, the parent's knote reports that.
    let kernel = kernel_with(Limits { bytes_per_family: KNOTE_BYTES, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    let pid = guest.process.pid() as u64;
    queue.change(Kevent { fflags: TRACK, ..event(pid, PROC, ADD) }).unwrap();
    guest.fork();
    let count = queue.start(&[], 9, false).wait().unwrap()[0];
    assert_eq!((count, queue.events(1)[0].fflags), (1, 2));
}

/// A file with a klist, as those of the file system have.
#[derive(Default)]
struct Watchable(Arc<(Watched, std::sync::atomic::AtomicI64)>);

impl FileOps for Watchable {
    fn read(
        &self,
        _run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> CallResult<()> {
        Ok(())
    }

    fn write(
        &self,
        _run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> CallResult<()> {
        Ok(())
    }

    fn stat(&self) -> CallResult<Stat> {
        Ok(Stat::default())
    }

    fn filter(&self, _file: &OpenFile, side: Side, _low_water: Option<i64>) -> Option<Seen> {
        let data = self.0.1.load(std::sync::atomic::Ordering::SeqCst);
        (side == Side::Read).then(|| Seen { ready: data != 0, data, ..Seen::default() })
    }

    fn watched(&self) -> Option<&Watched> {
        Some(&self.0.0)
    }
}

#[test]
fn files_tell_of_what_happens_to_them() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    guest.call(92, &[0, 1]).unwrap();
    let before = kernel.usage();
    let file = Watchable::default();
    let watched = file.0.clone();
    let family = ResourceGroup::new(&kernel.system.counters);
    family.add_file();
    let file = OpenFile::counted(file, 3, &family);
    let fd = proc(&kernel, &guest).files.insert(file, 0, false).unwrap() as u64;
    let queue = Queue::new(&guest);
    // Without a knote, nothing is kept.
    watched.0.note(note::WRITE);
    assert_eq!(queue.change(event(fd, WRITE, ADD)), Err(Errno::EINVAL));
    let wanted = note::WRITE | note::EXTEND | note::DELETE | note::REVOKE;
    queue.change(Kevent { fflags: wanted, ..event(fd, VNODE, ADD | CLEAR) }).unwrap();
    queue.change(event(fd, READ, ADD | CLEAR)).unwrap();
    assert_eq!(watched.0.len(), 2);
    let mut pending = queue.start(&[], 9, true);
    assert_eq!(pending.run(), None);
    watched.0.note(note::ATTRIB);
    assert!(!pending.woken());
    watched.1.store(5, std::sync::atomic::Ordering::SeqCst);
    watched.0.note(note::WRITE | note::EXTEND);
    watched.0.note(note::ATTRIB | note::LINK | note::RENAME);
    watched.0.note(note::DELETE);
    assert!(pending.woken());
    let count = pending.run().unwrap().unwrap()[0];
    let mut events = queue.events(count);
    events.sort_by_key(|event| event.filter);
    assert_eq!(count, 2);
    assert_eq!((events[0].data, events[0].fflags), (5, 0));
    assert_eq!((events[1].data, events[1].fflags), (0, note::WRITE | note::EXTEND | note::DELETE));
    assert_eq!(queue.found(), []);
    watched.0.note(note::REVOKE);
    let count = queue.start(&[], 9, false).wait().unwrap()[0];
    let mut events = queue.events(count);
    events.sort_by_key(|event| event.filter);
    assert_eq!((events[0].fflags, events[0].flags), (0, ADD | CLEAR | ONESHOT | EOF));
    assert_eq!((events[1].fflags, events[1].flags), (note::REVOKE, ADD | CLEAR | EOF));
    assert_eq!(watched.0.len(), 1);
    guest.close(fd).unwrap();
    assert_eq!(watched.0.len(), 0);
    guest.close(queue.fd).unwrap();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn who_may_watch_whom() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let queue = Queue::new(&guest);
    // Root may watch every process; others may depending on their user.
    let other = Guest::new(&kernel);
    queue.change(Kevent { fflags: EXIT, ..event(other.process.pid() as u64, PROC, ADD) }).unwrap();
    queue.change(Kevent { fflags: EXIT, ..event(guest.process.pid() as u64, PROC, ADD) }).unwrap();
    assert_eq!(queue.change(event(1 << 40, PROC, ADD)), Err(Errno::ESRCH));
    assert_eq!(queue.change(event(u64::MAX, PROC, ADD)), Err(Errno::ESRCH));
}

#[test]
fn no_event_is_lost_between_threads() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let pipes: Vec<(u64, u64)> = (0..4).map(|_| guest.pipe()).collect();
    let queue = Queue::new(&guest);
    for (at, pipe) in pipes.iter().enumerate() {
        let flags = if at % 2 == 0 { ADD } else { ADD | CLEAR };
        queue.change(event(pipe.0, READ, flags)).unwrap();
    }
    const EACH: usize = 300;
    let writers: Vec<_> = pipes
        .iter()
        .map(|&(_, writer)| {
            let mut child = guest.fork();
            child.slow = false;
            thread::spawn(move || {
                for _ in 0..EACH {
                    child.write(writer, b"x").unwrap();
                }
            })
        })
        .collect();
    let mut got = 0;
    while got < EACH * pipes.len() {
        let count = queue.start(&[], 3, true).wait().unwrap()[0];
        for event in queue.events(count) {
            // Read all there is, so that a knote with EV_CLEAR has nothing left to report.
            got += guest.read(event.ident, event.data as usize).unwrap().len();
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(got, EACH * pipes.len());
}

#[test]
fn a_call_costs_by_what_is_active() {
    let kernel = kernel();
    let first = Guest::new(&kernel);
    let mut many = Vec::new();
    for _ in 0..2_000 {
        let mut guest = first.beside(&kernel);
        guest.slow = false;
        let pipes = [(); 4].map(|()| guest.pipe());
        let fd = guest.call(344, &[]).unwrap() as u64;
        let changes = pipes.map(|pipe| event(pipe.0, READ, ADD));
        let pending = Queue { guest: &guest, fd }.start(&changes, 8, true);
        many.push((guest, pipes, pending));
    }
    for (_, _, pending) in &mut many {
        assert_eq!(pending.run(), None);
    }
    for at in [1_234, 0, 1_999] {
        let (guest, pipes, _) = &many[at];
        guest.write(pipes[at % 4].1, b"x").unwrap();
        let woken: Vec<usize> = (0..many.len()).filter(|&at| many[at].2.woken()).collect();
        assert_eq!(woken, [at]);
        let runs = many[at].2.runs;
        assert_eq!(many[at].2.run(), Some(Ok([1, 0])));
        assert_eq!(many[at].2.runs, runs + 1);
    }
}
