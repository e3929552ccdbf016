//! Tests of the events of files in kqueues: `EVFILT_VNODE`, and `EVFILT_READ` of a regular file.

use super::super::kqueue::{Kevent, note};
use super::super::testing::{Guest, NOWHERE, kernel, o};
use super::kqueue::{ADD, CLEAR, Queue, READ, VNODE, WRITE, event};
use kernel::Errno;

const ALL: u32 = 0x7f;
const NOTHING: u32 = 0;

/// Watches all events of the file open as `fd`.
fn watch(queue: &Queue<'_>, fd: u64) {
    queue.change(Kevent { fflags: ALL, ..event(fd, VNODE, ADD | CLEAR) }).unwrap();
}

/// Returns the events of each descriptor since the last time.
fn told<const N: usize>(queue: &Queue<'_>, fds: [u64; N]) -> [u32; N] {
    let count = queue.start(&[], 100, false).wait().unwrap()[0];
    let events = queue.events(count);
    fds.map(|fd| events.iter().find(|event| event.ident == fd).map_or(NOTHING, |e| e.fflags))
}

#[test]
fn a_file_tells_what_is_done_to_it() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let path = |name: &str| guest.string(name);
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let queue = Queue::new(&guest);
    watch(&queue, fd);
    let step = |number: i32, args: &[u64], wanted: u32| {
        guest.call(number, args).unwrap();
        let name = format!("call {number} of {args:?}");
        assert_eq!(told(&queue, [fd]), [wanted], "{name}");
    };
    let ten = guest.place(b"ten bytes.");
    step(4, &[fd, ten, 10], note::EXTEND | note::WRITE);
    step(174, &[fd, ten, 5, 0, 2], note::WRITE);
    step(174, &[fd, ten, 5, 0, 6], note::EXTEND | note::WRITE);
    step(4, &[fd, ten, 0], NOTHING);
    step(201, &[fd, 0, 50], note::EXTEND);
    step(201, &[fd, 0, 5], NOTHING);
    step(124, &[fd, 0o600], note::ATTRIB);
    step(123, &[fd, 7, u64::from(u32::MAX)], note::ATTRIB);
    step(123, &[fd, u64::from(u32::MAX), u64::from(u32::MAX)], NOTHING);
    step(35, &[fd, 1], note::ATTRIB);
    step(423, &[fd, 0], note::ATTRIB);
    step(9, &[path("/tmp/f"), path("/tmp/g")], note::LINK);
    step(128, &[path("/tmp/g"), path("/tmp/h")], note::RENAME);
    step(136, &[path("/tmp/d"), 0o755], NOTHING);
    // One name is removed, one is added.
    step(128, &[path("/tmp/h"), path("/tmp/d/h")], note::LINK | note::RENAME);
    // Both names are the file's own: the first is removed.
    step(128, &[path("/tmp/d/h"), path("/tmp/f")], note::LINK);
    step(128, &[path("/tmp/f"), path("/tmp/d/f")], note::DELETE | note::RENAME);
    step(10, &[path("/tmp/d/f")], note::DELETE);
    assert_eq!(queue.found(), []);
}

#[test]
fn a_directory_tells_what_comes_and_goes() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let path = |name: &str| guest.string(name);
    for name in ["/tmp/d", "/tmp/e"] {
        guest.call(136, &[path(name), 0o755]).unwrap();
    }
    let d = guest.open("/tmp/d", o::RDONLY).unwrap();
    let e = guest.open("/tmp/e", o::RDONLY).unwrap();
    let queue = Queue::new(&guest);
    watch(&queue, d);
    watch(&queue, e);
    let step = |number: i32, args: &[u64], wanted: [u32; 2]| {
        guest.call(number, args).unwrap();
        assert_eq!(told(&queue, [d, e]), wanted, "call {number} of {args:?}");
    };
    let (entry, child) = (note::WRITE, note::WRITE | note::LINK);
    step(132, &[path("/tmp/d/f"), 0o644], [entry, 0]);
    step(136, &[path("/tmp/d/s"), 0o755], [child, 0]);
    step(57, &[path("f"), path("/tmp/d/l")], [entry, 0]);
    step(9, &[path("/tmp/d/f"), path("/tmp/e/f")], [0, entry]);
    step(128, &[path("/tmp/d/l"), path("/tmp/d/m")], [entry, 0]);
    step(128, &[path("/tmp/d/s"), path("/tmp/e/s")], [child, child]);
    step(128, &[path("/tmp/d/m"), path("/tmp/d/f")], [entry, 0]);
    step(10, &[path("/tmp/d/f")], [entry, 0]);
    step(137, &[path("/tmp/e/s")], [0, child]);
    step(137, &[path("/tmp/d")], [note::DELETE, 0]);
}

#[test]
fn what_is_told_at_once_is_told_together() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let tmp = guest.open("/tmp", o::RDONLY).unwrap();
    let queue = Queue::new(&guest);
    queue.change(Kevent { fflags: note::LINK, ..event(tmp, VNODE, ADD | CLEAR) }).unwrap();
    guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    assert_eq!(told(&queue, [tmp]), [NOTHING]);
    guest.call(136, &[guest.string("/tmp/d"), 0o755]).unwrap();
    assert_eq!(told(&queue, [tmp]), [note::WRITE | note::LINK]);
}

#[test]
fn a_regular_file_can_be_read_where_it_does_not_end() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let queue = Queue::new(&guest);
    assert_eq!(queue.change(event(fd, WRITE, ADD)), Err(Errno::EINVAL));
    queue.change(event(fd, READ, ADD)).unwrap();
    let mut pending = queue.start(&[], 9, true);
    assert_eq!(pending.run(), None);
    guest.write(fd, b"abcdef").unwrap();
    assert!(pending.woken());
    // The offset is at the end now.
    assert_eq!(pending.run(), None);
    guest.write(fd, b"ghi").unwrap();
    guest.call(199, &[fd, 0, 2, 0]).unwrap();
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(queue.events(1)[0].data, 7);
    guest.call(199, &[fd, 0, 20, 0]).unwrap();
    assert_eq!(queue.found(), [(fd, READ, -11, false)]);
    guest.call(199, &[fd, 0, 9, 0]).unwrap();
    assert_eq!(queue.found(), []);
}

#[test]
fn devices_are_always_ready() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/dev/zero", o::RDWR).unwrap();
    let queue = Queue::new(&guest);
    queue.change(event(fd, READ, ADD)).unwrap();
    queue.change(event(fd, WRITE, ADD)).unwrap();
    assert_eq!(queue.change(event(fd, VNODE, ADD)), Err(Errno::EINVAL));
    assert_eq!(queue.found(), [(fd, READ, 0, false), (fd, WRITE, 0, false)]);
}

#[test]
fn what_fails_tells_nothing() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let tmp = guest.open("/tmp", o::RDONLY).unwrap();
    let queue = Queue::new(&guest);
    watch(&queue, fd);
    watch(&queue, tmp);
    let path = guest.string("/tmp/f");
    assert_eq!(guest.fails(136, &[path, 0o755]), Errno::EEXIST);
    assert_eq!(guest.fails(4, &[fd, NOWHERE, 5]), Errno::EFAULT);
    assert_eq!(guest.fails(201, &[fd, 0, u64::MAX]), Errno::EINVAL);
    assert_eq!(told(&queue, [fd, tmp]), [NOTHING; 2]);
}
