//! Each limit: up to it calls succeed, past it NetBSD's error comes, and what is released makes room again.

use super::super::testing::{Guest, Signals, kernel_with, o};
use super::super::{Embedded, Limits};
use kernel::{Errno, Kernel, Process};

use std::sync::Arc;

const FORK: fn(&Guest) -> Result<Arc<dyn Process>, Errno> = |guest| guest.process.prefork();

fn spawn(kernel: &Embedded) -> Result<Arc<dyn Process>, Errno> {
    kernel.spawn(Arc::new(Signals::default()), b"")
}

#[test]
fn descriptors_of_a_process() {
    let kernel = kernel_with(Limits { files_per_process: 6, ..Limits::default() });
    let guest = Guest::new(&kernel);
    // Three descriptors are the console's.
    let fds: Vec<u64> = (0..3).map(|_| guest.open("/dev/null", o::RDWR).unwrap()).collect();
    assert_eq!(fds, [3, 4, 5]);
    assert_eq!(guest.open("/dev/null", o::RDWR), Err(Errno::EMFILE));
    assert_eq!(guest.fails(42, &[]), Errno::EMFILE);
    // The child has a table of its own, just as full.
    let child = guest.fork();
    assert_eq!(child.open("/dev/null", o::RDWR), Err(Errno::EMFILE));
    assert_eq!(child.call(6, &[4]), Ok(0));
    assert_eq!(child.open("/dev/null", o::RDWR), Ok(4));
    assert_eq!(guest.open("/dev/null", o::RDWR), Err(Errno::EMFILE));
    assert_eq!(guest.call(6, &[5]), Ok(0));
    assert_eq!(guest.open("/dev/null", o::RDWR), Ok(5));
}

#[test]
fn processes_in_all() {
    let limits = Limits { processes: 3, processes_per_family: 3, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = Guest::new(&kernel);
    let child = guest.fork();
    let other = spawn(&kernel).unwrap();
    assert_eq!(spawn(&kernel).err(), Some(Errno::EAGAIN));
    assert_eq!(FORK(&guest).err(), Some(Errno::EAGAIN));
    other.release();
    assert!(FORK(&child).is_ok());
}

#[test]
fn processes_of_a_family() {
    let kernel = kernel_with(Limits { processes_per_family: 3, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let child = guest.fork();
    let waiting = FORK(&child).unwrap();
    assert_eq!(FORK(&guest).err(), Some(Errno::EAGAIN));
    assert_eq!(FORK(&child).err(), Some(Errno::EAGAIN));
    // Other families are not affected.
    let stranger = Guest::new(&kernel);
    stranger.fork().process.release();
    // A token that was given stays valid, and a child stays in the family after its parent's end.
    let grandchild = Guest::with(waiting.adopt(guest.signals.clone()).unwrap(), Arc::default());
    waiting.release();
    guest.process.release();
    let last = FORK(&grandchild).unwrap();
    assert_eq!(FORK(&grandchild).err(), Some(Errno::EAGAIN));
    last.release();
    assert!(FORK(&child).is_ok());
}

#[test]
fn inodes_in_all() {
    let before = kernel_with(Limits::default()).usage().inodes;
    let kernel = kernel_with(Limits { inodes: before + 2, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let make = |path| guest.open(path, o::RDWR | o::CREAT);
    make("/tmp/1").unwrap();
    guest.call(136, &[guest.string("/tmp/2"), 0o755]).unwrap();
    assert_eq!(make("/tmp/3"), Err(Errno::ENOSPC));
    assert_eq!(guest.fails(136, &[guest.string("/tmp/3"), 0o755]), Errno::ENOSPC);
    guest.call(137, &[guest.string("/tmp/2")]).unwrap();
    assert!(make("/tmp/3").is_ok());
}

/// Makes a guest with a file of its own.
fn with_file(kernel: &Embedded, path: &str) -> (Guest, u64) {
    let guest = Guest::new(kernel);
    let fd = guest.open(path, o::RDWR | o::CREAT).unwrap();
    (guest, fd)
}

#[test]
fn bytes_in_all() {
    let kernel = kernel_with(Limits { bytes: 4096, bytes_per_family: 4096, ..Limits::default() });
    let (one, file) = with_file(&kernel, "/tmp/one");
    let (two, other) = with_file(&kernel, "/tmp/two");
    assert_eq!(one.write(file, &[1; 2048]), Ok(2048));
    assert_eq!(two.write(other, &[1; 2048]), Ok(2048));
    assert_eq!(two.write(other, &[1; 1]), Err(Errno::ENOSPC));
    assert_eq!(two.fails(42, &[]), Errno::ENOMEM, "a pipe takes bytes, too");
    // What an ended family has left behind is still there, and counts until it is removed.
    one.process.release();
    assert_eq!(two.write(other, &[1; 1]), Err(Errno::ENOSPC));
    two.call(10, &[two.string("/tmp/one")]).unwrap();
    assert_eq!(two.write(other, &[1; 2048]), Ok(2048));
    assert_eq!(kernel.usage().bytes, 4096);
}

#[test]
fn bytes_of_a_family() {
    let kernel = kernel_with(Limits { bytes_per_family: 4096, ..Limits::default() });
    let (one, file) = with_file(&kernel, "/tmp/one");
    let child = one.fork();
    let own = child.open("/tmp/child", o::RDWR | o::CREAT).unwrap();
    assert_eq!(one.write(file, &[1; 2048]), Ok(2048));
    assert_eq!(child.write(own, &[1; 2048]), Ok(2048));
    assert_eq!(one.write(file, &[1; 1]), Err(Errno::ENOSPC));
    assert_eq!(one.fails(42, &[]), Errno::ENOMEM);
    // A stranger pays for its own files; in a file of this family, this family pays for what a stranger
    // writes.
    let (stranger, theirs) = with_file(&kernel, "/tmp/stranger");
    assert_eq!(stranger.write(theirs, &[1; 4096]), Ok(4096));
    let shared = stranger.open("/tmp/one", o::RDWR | o::APPEND).unwrap();
    assert_eq!(stranger.write(shared, &[1; 1]), Err(Errno::ENOSPC));
    child.call(201, &[own, 0, 0]).unwrap();
    assert_eq!(stranger.write(shared, &[1; 1024]), Ok(1024));
    assert_eq!(kernel.usage().bytes, 4096 + 4096);
}

#[test]
fn a_pipe_that_cannot_grow_goes_on_with_little() {
    let kernel = kernel_with(Limits { bytes_per_family: 20_000, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let nonblock = 4;
    let full = |(reader, writer): (u64, u64)| {
        guest.call(92, &[writer, 4, nonblock]).unwrap();
        let mut held = 0;
        while let Ok(count) = guest.write(writer, &[1; 4096]) {
            held += count;
        }
        (reader, held)
    };
    let (first, held) = full(guest.pipe());
    assert_eq!(held, 16 * 1024);
    let (second, held) = full(guest.pipe());
    assert_eq!(held, 1024, "there is no more for it");
    assert_eq!(kernel.usage().bytes, 16 * 1024 + 1024);
    // An empty pipe gives back what it has grown by, so the other can grow.
    assert_eq!(guest.read(first, 16 * 1024).unwrap().len(), 16 * 1024);
    assert_eq!(guest.read(second, 16 * 1024).unwrap().len(), 1024);
    assert_eq!(kernel.usage().bytes, 2 * 1024);
    guest.process.release();
    assert_eq!(kernel.usage().bytes, 0);
}

#[test]
fn a_blocked_writer_goes_on_through_a_pipe_that_cannot_grow() {
    let kernel = kernel_with(Limits { bytes_per_family: 1024, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let bytes: Vec<u8> = (0..5000).map(|at| at as u8).collect();
    let mut writing = guest.start(4, &[writer, guest.place(&bytes), 5000]);
    let mut got = Vec::new();
    let written = loop {
        if let Some(result) = writing.run() {
            break result;
        }
        got.extend(guest.read(reader, 300).unwrap());
    };
    assert_eq!(written, Ok([5000, 0]));
    while got.len() < bytes.len() {
        got.extend(guest.read(reader, 5000).unwrap());
    }
    assert_eq!(got, bytes);
}

#[test]
fn sysctl_tells_them() {
    let limits = Limits { processes: 77, files: 88, bytes: 99 << 10, ..Limits::default() };
    let guest = Guest::new(&kernel_with(limits));
    let ask = |name: [i32; 2], len: u64| {
        let name: Vec<u8> = name.iter().flat_map(|part| part.to_le_bytes()).collect();
        let (name, len) = (guest.place(&name), guest.place(&len.to_le_bytes()));
        guest.call(202, &[name, 2, guest.buffer(), len, 0, 0]).unwrap();
        guest.get(guest.buffer(), 8)
    };
    assert_eq!(ask([1, 6], 4)[..4], 77_i32.to_le_bytes(), "kern.maxproc");
    assert_eq!(ask([1, 7], 4)[..4], 88_i32.to_le_bytes(), "kern.maxfiles");
    assert_eq!(ask([6, 13], 8), (99_u64 << 10).to_le_bytes(), "hw.physmem64");
}
