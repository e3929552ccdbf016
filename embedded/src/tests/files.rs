use super::super::testing::{Guest, NOWHERE, SIZE, kernel, kernel_with, o};
use super::super::{Embedded, Limits};
use kernel::{
    Errno, Outcome,
    sys::{CHDIR, MKDIR, RMDIR, UNLINK},
};

pub fn mode(guest: &Guest, path: &str) -> u32 {
    guest.call(439, &[guest.string(path), guest.buffer()]).unwrap();
    u32::from_le_bytes(guest.get(guest.buffer() + 8, 4).try_into().unwrap())
}

pub fn word(guest: &Guest, at: u64) -> i64 {
    i64::from_le_bytes(guest.get(guest.buffer() + at, 8).try_into().unwrap())
}

pub fn on(guest: &Guest, number: i32, path: &str) -> Result<i64, Errno> {
    guest.call(number, &[guest.string(path), 0o777])
}

pub fn rename(guest: &Guest, from: &str, to: &str) -> Result<i64, Errno> {
    guest.call(128, &[guest.string(from), guest.string(to)])
}

#[test]
fn what_was_written_is_read() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    assert_eq!(guest.write(fd, b"hello, world"), Ok(12));
    assert_eq!(guest.read(fd, 10).unwrap(), b"");
    assert_eq!(guest.call(199, &[fd, 0, 7, 0]), Ok(7));
    assert_eq!(guest.read(fd, 100).unwrap(), b"world");
    assert_eq!(guest.call(199, &[fd, 0, -5i64 as u64, 2]), Ok(7));
    assert_eq!(guest.call(199, &[fd, 0, 2, 1]), Ok(9));
    assert_eq!(guest.fails(199, &[fd, 0, -10i64 as u64, 1]), Errno::EINVAL);
    assert_eq!(guest.fails(199, &[fd, 0, i64::MAX as u64, 1]), Errno::EINVAL);
    assert_eq!(guest.fails(199, &[fd, 0, 0, 3]), Errno::EINVAL);
    // Read at a given offset: there is a slot of padding before it.
    assert_eq!(guest.call(173, &[fd, guest.buffer(), 5, 99, 0]), Ok(5));
    assert_eq!(guest.get(guest.buffer(), 5), b"hello");
    guest.put(guest.buffer(), b"HELL");
    assert_eq!(guest.call(174, &[fd, guest.buffer(), 4, 99, 20]), Ok(4));
    assert_eq!(guest.read(fd, 100).unwrap(), b"rld\0\0\0\0\0\0\0\0HELL");
    assert_eq!(guest.fails(173, &[fd, guest.buffer(), 4, 0, -1i64 as u64]), Errno::EINVAL);
    let (reader, _) = guest.pipe();
    assert_eq!(guest.fails(173, &[reader, guest.buffer(), 4, 0, 0]), Errno::ESPIPE);
}

#[test]
fn several_buffers_are_one_transfer() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let vector = |parts: &[(u64, u64)]| {
        let bytes: Vec<u8> =
            parts.iter().flat_map(|&(a, l)| [a, l]).flat_map(u64::to_le_bytes).collect();
        guest.place(&bytes)
    };
    let (a, b) = (guest.place(b"hello "), guest.place(b"world!"));
    let iov = vector(&[(a, 6), (0, 0), (b, 5), (NOWHERE, 0)]);
    assert_eq!(guest.call(121, &[fd, iov, 4]), Ok(11));
    let at = guest.buffer();
    let iov = vector(&[(at, 3), (at + 100, 3), (at + 200, 100)]);
    assert_eq!(guest.call(289, &[fd, iov, 3, 0, 1]), Ok(10));
    assert_eq!((guest.get(at, 3), guest.get(at + 100, 3)), (b"ell".to_vec(), b"o w".to_vec()));
    assert_eq!(guest.get(at + 200, 5), b"orld\0");
    assert_eq!(guest.call(290, &[fd, vector(&[(b, 6)]), 1, 0, 100]), Ok(6));
    assert_eq!(guest.call(199, &[fd, 0, 0, 0]), Ok(0));
    assert_eq!(guest.call(120, &[fd, iov, 3]), Ok(106));
    // Errors of a vector, in the order they are found.
    assert_eq!(guest.fails(120, &[77, iov, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(120, &[77, iov, 3]), Errno::EBADF);
    assert_eq!(guest.fails(120, &[fd, iov, 1025]), Errno::EINVAL);
    assert_eq!(guest.fails(120, &[fd, iov, u64::MAX]), Errno::EINVAL);
    assert_eq!(guest.fails(120, &[fd, NOWHERE, 3]), Errno::EFAULT);
    let huge = vector(&[(at, 1 << 62), (at, 1 << 62)]);
    assert_eq!(guest.fails(120, &[fd, huge, 2]), Errno::EINVAL);
    assert_eq!(guest.fails(121, &[fd, vector(&[(NOWHERE, 5)]), 1]), Errno::EFAULT);
}

#[test]
fn counts_that_cannot_be_are_refused_and_large_ones_come_in_pieces() {
    let kernel = kernel();
    let mut guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    assert_eq!(guest.fails(3, &[fd, guest.buffer(), 1 << 63]), Errno::EINVAL);
    assert_eq!(guest.fails(4, &[fd, guest.buffer(), 1 << 63]), Errno::EINVAL);
    assert_eq!(guest.fails(4, &[fd, guest.buffer(), 1 << 40]), Errno::ENOSPC);
    assert_eq!(guest.call(3, &[fd, guest.buffer(), 1 << 40]), Ok(0));
    assert_eq!(kernel.usage().bytes, 0);
    let data: Vec<u8> = (0..400_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(guest.write(fd, &data), Ok(400_000));
    assert_eq!(guest.call(199, &[fd, 0, 0, 0]), Ok(0));
    // With less room than that in a run, offsets move once, and every byte comes once.
    guest.room = 70_001;
    let mut pending = guest.start(3, &[fd, guest.buffer(), 1 << 40]);
    assert_eq!(pending.run(), Some(Ok([400_000, 0])));
    assert!(pending.runs > 5);
    assert_eq!(guest.get(guest.buffer(), 400_000), data);
    assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(400_000));
    // The range of a long read belongs to one reader.
    guest.call(199, &[fd, 0, 0, 0]).unwrap();
    let mut pending = guest.start(3, &[fd, guest.buffer(), 300_000]);
    assert_eq!(pending.once(), Outcome::Flush);
    assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(300_000));
    assert_eq!(pending.interrupt(), Ok([70_001, 0]));
}

#[test]
fn devices_take_and_give() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    assert_eq!(guest.read(null, 10).unwrap(), b"");
    assert_eq!(guest.call(4, &[null, NOWHERE, 1 << 40]), Ok(1 << 40));
    let zero = guest.open("/dev/zero", o::RDWR).unwrap();
    guest.put(guest.buffer(), &[9; 20]);
    assert_eq!(guest.call(3, &[zero, guest.buffer(), 10]), Ok(10));
    assert_eq!(guest.get(guest.buffer(), 11), b"\0\0\0\0\0\0\0\0\0\0\x09");
    let mut pending = guest.start(3, &[zero, guest.buffer(), 100 << 20]);
    assert_eq!(pending.run(), Some(Ok([100 << 20, 0])));
    assert_eq!(pending.runs, 400);
    for name in ["/dev/random", "/dev/urandom"] {
        let random = guest.open(name, o::RDONLY).unwrap();
        let bytes = guest.read(random, 100_000).unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert_ne!(bytes[..32], bytes[32..64]);
    }
    guest.call(440, &[null, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o020_666u32.to_le_bytes());
    assert_eq!(word(&guest, 40), 0x202);
    assert_eq!(guest.open("/dev/null", o::RDWR | o::TRUNC | o::CREAT), Ok(zero + 3));
}

#[test]
fn a_device_is_anywhere_and_asked_little() {
    let guest = Guest::new(&kernel());
    let at = |fd| guest.call(199, &[fd, 0, 0, 1]).unwrap();
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    let zero = guest.open("/dev/zero", o::RDWR).unwrap();
    guest.write(null, b"gone").unwrap();
    guest.read(null, 100).unwrap();
    guest.read(zero, 70_000).unwrap();
    assert_eq!((at(null), at(zero)), (4, 70_000));
    guest.call(173, &[zero, guest.buffer(), 9, 0, -5i64 as u64]).unwrap();
    assert_eq!(guest.call(199, &[zero, 0, -10i64 as u64, 0]), Ok(-10));
    guest.read(zero, 3).unwrap();
    assert_eq!(at(zero), -7);
    let asks = |fd, request, arg: i32| {
        guest.call(54, &[fd, request, guest.place(&arg.to_le_bytes())]).map_err(|errno| errno.0)
    };
    let (fionbio, fioasync, fionread) = (0x8004_667e, 0x8004_667d, 0x4004_667f);
    let (tiocgeta, refused, no_tty) = (0x402c_7413, Errno::EOPNOTSUPP.0, Errno::ENOTTY.0);
    assert_eq!([asks(null, fionbio, 1), asks(null, fioasync, 0)], [Ok(0), Ok(0)]);
    assert_eq!([asks(zero, fioasync, 1), asks(zero, fionread, 0)], [Err(refused), Err(refused)]);
    assert_eq!(asks(null, tiocgeta, 0), Err(no_tty));
    let random = guest.open("/dev/urandom", o::RDONLY).unwrap();
    assert_eq!([asks(random, fioasync, 1), asks(random, fionread, 0)], [Ok(0), Err(no_tty)]);
}

#[test]
fn a_write_that_meets_a_bad_address_leaves_what_came_before_it_only_over_what_was_there() {
    for flags in [0, o::APPEND] {
        let guest = Guest::new(&kernel());
        let fd = guest.open("/tmp/file", o::RDWR | o::CREAT | flags).unwrap();
        guest.write(fd, b"0123456789").unwrap();
        let bytes = guest.place(b"abcde");
        let iov = guest.place(&[bytes, 5, NOWHERE, 7].map(u64::to_le_bytes).concat());
        let text = || {
            guest
                .call(173, &[fd, guest.buffer(), 100, 0, 0])
                .map(|len| String::from_utf8(guest.get(guest.buffer(), len as usize)).unwrap())
        };
        // The offset moves past what was copied, as in NetBSD.
        assert_eq!(guest.fails(121, &[fd, iov, 2]), Errno::EFAULT);
        assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(15));
        assert_eq!(text().unwrap(), "0123456789");
        guest.call(199, &[fd, 0, 2, 0]).unwrap();
        assert_eq!(guest.fails(121, &[fd, iov, 2]), Errno::EFAULT);
        let (offset, left) = if flags == 0 { (7, "01abcde789") } else { (15, "0123456789") };
        assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(offset));
        assert_eq!(text().unwrap(), left);
    }
}

#[test]
fn nobody_is_told_that_a_file_can_be_written() {
    let guest = Guest::new(&kernel());
    let kqueue = guest.call(344, &[]).unwrap() as u64;
    let file = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    let add = |fd: u64, filter: u64| {
        let words = [fd, filter | 1 << 32, 0, 0, 0];
        let event = guest.place(&words.map(u64::to_le_bytes).concat());
        guest.call(435, &[kqueue, event, 1, 0, 0, 0])
    };
    assert_eq!((add(file, 0), add(file, 1)), (Ok(0), Err(Errno::EINVAL)));
    assert_eq!((add(null, 0), add(null, 1)), (Ok(0), Ok(0)));
}

#[test]
fn nobody_has_anything_at_address_zero() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, b"data").unwrap();
    guest.call(199, &[fd, 0, 0, 0]).unwrap();
    assert_eq!(guest.fails(3, &[fd, 0, 4]), Errno::EFAULT);
    assert_eq!(guest.call(3, &[fd, 0, 0]), Ok(0));
    assert_eq!(guest.fails(440, &[fd, 0]), Errno::EFAULT);
    assert_eq!(guest.read(fd, 4).unwrap(), b"data");
}

#[test]
fn open_takes_its_flags_to_heart() {
    let guest = Guest::new(&kernel());
    assert_eq!(guest.open("/tmp/file", o::RDWR), Err(Errno::ENOENT));
    let fd = guest.open("/tmp/file", o::WRONLY | o::CREAT | o::EXCL).unwrap();
    assert_eq!(mode(&guest, "/tmp/file"), 0o100_644);
    assert_eq!(guest.open("/tmp/file", o::RDWR | o::CREAT | o::EXCL), Err(Errno::EEXIST));
    assert_eq!(guest.read(fd, 1), Err(Errno::EBADF));
    guest.write(fd, b"12345").unwrap();
    let append = guest.open("/tmp/file", o::RDWR | o::APPEND).unwrap();
    guest.write(append, b"678").unwrap();
    assert_eq!(guest.call(199, &[append, 0, 0, 1]), Ok(8));
    guest.write(fd, b"x").unwrap();
    guest.call(199, &[append, 0, 0, 0]).unwrap();
    assert_eq!(guest.read(append, 100).unwrap(), b"12345x78");
    let read = guest.open("/tmp/file", o::RDONLY | o::TRUNC).unwrap();
    assert_eq!(guest.write(read, b"x"), Err(Errno::EBADF));
    assert_eq!(guest.read(append, 100).unwrap(), b"");
    assert_eq!(guest.open("/tmp", 3), Err(Errno::EINVAL));
    assert_eq!(guest.open("/tmp", o::RDWR), Err(Errno::EISDIR));
    assert_eq!(guest.open("/tmp", o::RDONLY | o::TRUNC), Err(Errno::EISDIR));
    assert_eq!(guest.open("/tmp/new", o::CREAT | o::DIRECTORY), Err(Errno::EINVAL));
    assert_eq!(guest.open("/tmp/file", o::DIRECTORY), Err(Errno::ENOTDIR));
    let dir = guest.open("/tmp", o::RDONLY | o::DIRECTORY).unwrap();
    assert_eq!(guest.read(dir, 10), Err(Errno::EISDIR));
    assert_eq!(guest.call(5, &[NOWHERE, 0, 0]), Err(Errno::EFAULT));
    // Files do not get the sticky bit, and each process has its umask.
    guest.call(60, &[0o27]).unwrap();
    guest.call(5, &[guest.string("/tmp/mode"), o::CREAT, 0o7777]).unwrap();
    assert_eq!(mode(&guest, "/tmp/mode"), 0o106_750);
}

#[test]
fn paths_lead_where_they_should() {
    let guest = Guest::new(&kernel());
    on(&guest, MKDIR, "/tmp/a").unwrap();
    on(&guest, MKDIR, "/tmp/a/b/").unwrap();
    guest.open("/tmp/a/file", o::RDWR | o::CREAT).unwrap();
    for path in ["/tmp/a/file", "//tmp//a/b/../file", "/../../tmp/./a/./file"] {
        assert_eq!(mode(&guest, path), 0o100_644, "{path}");
    }
    for path in ["/", "/..", "/tmp/..", ".", "tmp/a/b/../../.."] {
        assert_eq!(mode(&guest, path), 0o040_755, "{path}");
    }
    let long = format!("/tmp/{}", "x".repeat(255));
    let deep = "/".repeat(1023);
    for (path, errno) in [
        ("", Errno::ENOENT),
        ("/tmp/none/file", Errno::ENOENT),
        ("/tmp/a/file/", Errno::ENOTDIR),
        ("/tmp/a/file/x", Errno::ENOTDIR),
        ("/tmp/a/file/..", Errno::ENOTDIR),
        (&long, Errno::ENOENT),
        (&format!("{long}x"), Errno::ENAMETOOLONG),
        (&format!("{deep}/"), Errno::ENAMETOOLONG),
    ] {
        assert_eq!(guest.open(path, o::RDONLY), Err(errno), "{path}");
    }
    assert_eq!(mode(&guest, &deep), 0o040_755);
    assert_eq!(guest.open("/tmp/new/", o::RDWR | o::CREAT), Err(Errno::ENOENT));
    assert!(guest.open(&long, o::RDWR | o::CREAT).is_ok());
}

#[test]
fn the_working_directory_is_the_process_s_own() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let cwd = |guest: &Guest| {
        let len = guest.call(296, &[guest.buffer(), 1024]).unwrap();
        String::from_utf8(guest.get(guest.buffer(), len as usize)).unwrap()
    };
    assert_eq!(cwd(&guest), "/\0");
    on(&guest, MKDIR, "tmp/dir").unwrap();
    on(&guest, CHDIR, "tmp/dir").unwrap();
    assert_eq!(cwd(&guest), "/tmp/dir\0");
    assert_eq!(guest.fails(296, &[guest.buffer(), 8]), Errno::ERANGE);
    assert_eq!(guest.fails(296, &[guest.buffer(), 0]), Errno::ERANGE);
    assert_eq!(guest.fails(296, &[guest.buffer(), 1 << 32]), Errno::ERANGE);
    let child = guest.fork();
    on(&guest, CHDIR, "..").unwrap();
    assert_eq!((cwd(&guest), cwd(&child)), ("/tmp\0".into(), "/tmp/dir\0".into()));
    let dir = guest.open("/dev", o::RDONLY).unwrap();
    assert_eq!(guest.call(13, &[dir]), Ok(0));
    assert_eq!(cwd(&guest), "/dev\0");
    assert_eq!(on(&guest, CHDIR, "null"), Err(Errno::ENOTDIR));
    assert_eq!(guest.fails(13, &[1]), Errno::EINVAL);
    // Exactly half as many names as bytes are looked at.
    on(&guest, MKDIR, "/tmp/x").unwrap();
    on(&guest, CHDIR, "/tmp/x").unwrap();
    assert_eq!(guest.call(296, &[guest.buffer(), 3]), Ok(3));
    assert_eq!(guest.get(guest.buffer(), 3), b"/x\0");
    assert_eq!(guest.fails(296, &[guest.buffer(), 4]), Errno::ERANGE);
    on(&guest, CHDIR, "/dev").unwrap();
    // A directory that was removed under a process has no path.
    on(&guest, RMDIR, "/tmp/dir").unwrap();
    assert_eq!(child.fails(296, &[child.buffer(), 1024]), Errno::ENOENT);
    assert_eq!(child.open("file", o::RDWR | o::CREAT), Err(Errno::ENOENT));
    assert_eq!(child.open("..", o::RDONLY), Err(Errno::ENOENT));
    assert_eq!(on(&child, MKDIR, "x"), Err(Errno::ENOENT));
    assert_eq!(child.open(".", o::RDONLY), Err(Errno::ENOENT));
    assert_eq!(on(&child, CHDIR, "/"), Ok(0));
}

#[test]
fn directories_come_and_go() {
    let guest = Guest::new(&kernel());
    assert_eq!(on(&guest, MKDIR, "/tmp/a"), Ok(0));
    assert_eq!(mode(&guest, "/tmp/a"), 0o040_755);
    for path in ["/tmp/a", "/tmp/a/", "/", "/tmp/a/.", "/tmp/.."] {
        assert_eq!(on(&guest, MKDIR, path), Err(Errno::EEXIST), "{path}");
    }
    assert_eq!(on(&guest, MKDIR, "/none/a"), Err(Errno::ENOENT));
    guest.open("/tmp/a/file", o::RDWR | o::CREAT).unwrap();
    assert_eq!(on(&guest, MKDIR, "/tmp/a/file/b"), Err(Errno::ENOTDIR));
    for (call, path, errno) in [
        (RMDIR, "/tmp/a", Errno::ENOTEMPTY),
        (RMDIR, "/tmp/a/file", Errno::ENOTDIR),
        (RMDIR, "/tmp/a/.", Errno::EINVAL),
        (RMDIR, "/tmp/a/..", Errno::ENOTEMPTY),
        (RMDIR, "/tmp/..", Errno::EBUSY),
        (RMDIR, "/", Errno::EBUSY),
        (RMDIR, "/tmp/none", Errno::ENOENT),
        (UNLINK, "/tmp/a", Errno::EPERM),
        (UNLINK, "/tmp/none", Errno::ENOENT),
        (UNLINK, "/tmp/a/file/", Errno::ENOTDIR),
    ] {
        assert_eq!(on(&guest, call, path), Err(errno), "{path}");
    }
    assert_eq!(on(&guest, UNLINK, "/tmp/a/file"), Ok(0));
    assert_eq!(on(&guest, RMDIR, "/tmp/a/"), Ok(0));
    assert_eq!(on(&guest, RMDIR, "/tmp/a"), Err(Errno::ENOENT));
}

#[test]
fn links_are_counted() {
    let guest = Guest::new(&kernel());
    let links = |path: &str| {
        mode(&guest, path);
        guest.get(guest.buffer() + 24, 4)[0]
    };
    assert_eq!((links("/"), links("/tmp")), (4, 2));
    on(&guest, MKDIR, "/tmp/a").unwrap();
    on(&guest, MKDIR, "/tmp/b").unwrap();
    on(&guest, MKDIR, "/tmp/a/x").unwrap();
    assert_eq!((links("/tmp"), links("/tmp/a")), (4, 3));
    rename(&guest, "/tmp/a/x", "/tmp/b/y").unwrap();
    assert_eq!((links("/tmp/a"), links("/tmp/b")), (2, 3));
    rename(&guest, "/tmp/b/y", "/tmp/a").unwrap();
    assert_eq!((links("/tmp"), links("/tmp/b")), (4, 2));
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    assert_eq!(links("/tmp/file"), 1);
    on(&guest, UNLINK, "/tmp/file").unwrap();
    guest.call(440, &[fd, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 24, 4)[0], 0);
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let kernel = kernel();
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, &[1; 5000]).unwrap();
    on(&guest, UNLINK, "/tmp/file").unwrap();
    assert_eq!(guest.open("/tmp/file", o::RDWR), Err(Errno::ENOENT));
    assert_eq!(kernel.usage().bytes, 8192);
    guest.call(199, &[fd, 0, 0, 0]).unwrap();
    assert_eq!(guest.read(fd, 10_000).unwrap(), [1; 5000]);
    guest.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn rename_moves_and_replaces() {
    let guest = Guest::new(&kernel());
    for path in ["/tmp/a", "/tmp/a/b", "/tmp/full", "/tmp/full/x", "/tmp/empty"] {
        on(&guest, MKDIR, path).unwrap();
    }
    for (path, text) in [("/tmp/one", "1"), ("/tmp/two", "2")] {
        let fd = guest.open(path, o::RDWR | o::CREAT).unwrap();
        guest.write(fd, text.as_bytes()).unwrap();
    }
    for (from, to, errno) in [
        ("/tmp/none", "/tmp/x", Errno::ENOENT),
        ("/tmp/one", "/none/x", Errno::ENOENT),
        ("/tmp/one", "/tmp/a", Errno::EISDIR),
        ("/tmp/a", "/tmp/one", Errno::ENOTDIR),
        ("/tmp/a", "/tmp/full", Errno::ENOTEMPTY),
        ("/tmp/a/b", "/tmp/a", Errno::ENOTEMPTY),
        ("/tmp/one", "/tmp/a/..", Errno::EINVAL),
        ("/tmp/a", "/tmp/a/b/c", Errno::EINVAL),
        ("/tmp/a", "/tmp/a/c", Errno::EINVAL),
        ("/tmp/a/.", "/tmp/x", Errno::EINVAL),
        ("/tmp/one", "/tmp/x/", Errno::ENOENT),
    ] {
        assert_eq!(rename(&guest, from, to), Err(errno), "{from} to {to}");
    }
    assert_eq!(rename(&guest, "/tmp/one", "/tmp/two"), Ok(0));
    assert_eq!(rename(&guest, "/tmp/two", "/tmp/two"), Ok(0));
    let fd = guest.open("/tmp/two", o::RDWR).unwrap();
    assert_eq!(guest.read(fd, 5).unwrap(), b"1");
    assert_eq!(guest.open("/tmp/one", o::RDWR), Err(Errno::ENOENT));
    assert_eq!(rename(&guest, "/tmp/a", "/tmp/empty"), Ok(0));
    assert_eq!(rename(&guest, "/tmp/empty/b", "/tmp/full/x"), Ok(0));
    on(&guest, CHDIR, "/tmp/full/x").unwrap();
    assert_eq!(rename(&guest, "/tmp/full", "/tmp/moved"), Ok(0));
    let len = guest.call(296, &[guest.buffer(), 1024]).unwrap();
    assert_eq!(guest.get(guest.buffer(), len as usize), b"/tmp/moved/x\0");
}

#[test]
fn stat_says_it_all_in_its_places() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let before = now();
    guest.write(fd, &[7; 1000]).unwrap();
    guest.put(guest.buffer(), &[0xff; 200]);
    assert_eq!(guest.call(440, &[fd, guest.buffer()]), Ok(0));
    assert_eq!(guest.get(guest.buffer() + 152, 8), [0xff; 8]);
    assert_eq!((word(&guest, 112), word(&guest, 120)), (1000, 8));
    assert!(word(&guest, 16) > 2);
    assert!((before..=now()).contains(&word(&guest, 64)));
    assert!(word(&guest, 96) <= word(&guest, 64));
    let by_fd = guest.get(guest.buffer(), 152);
    for call in [439, 441] {
        guest.call(call, &[guest.string("/tmp/file"), guest.buffer()]).unwrap();
        assert_eq!(guest.get(guest.buffer(), 152), by_fd);
    }
    assert_eq!(guest.fails(439, &[guest.string("/none"), guest.buffer()]), Errno::ENOENT);
}

fn now() -> i64 {
    super::super::time::now() / 1_000_000_000
}

#[test]
fn truncation_cuts_and_stretches() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, b"0123456789").unwrap();
    assert_eq!(guest.call(201, &[fd, 0, 4]), Ok(0));
    assert_eq!(guest.call(200, &[guest.string("/tmp/file"), 0, 6]), Ok(0));
    guest.call(199, &[fd, 0, 0, 0]).unwrap();
    assert_eq!(guest.read(fd, 20).unwrap(), b"0123\0\0");
    assert_eq!(guest.call(201, &[fd, 0, 1 << 50]), Ok(0));
    assert_eq!(guest.fails(201, &[fd, 0, u64::MAX]), Errno::EINVAL);
    assert_eq!(guest.fails(200, &[guest.string("/tmp"), 0, 0]), Errno::EISDIR);
    assert_eq!(guest.fails(200, &[guest.string("/none"), 0, 0]), Errno::ENOENT);
    let read = guest.open("/tmp/file", o::RDONLY).unwrap();
    assert_eq!(guest.fails(201, &[read, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(241, &[read]), Errno::EBADF);
    assert_eq!(guest.call(95, &[read]), Ok(0));
    assert_eq!(guest.call(241, &[fd]), Ok(0));
    assert_eq!(guest.fails(95, &[1]), Errno::EINVAL);
}

#[test]
fn access_is_asked_for_the_real_user() {
    let guest = Guest::new(&kernel());
    guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let path = guest.string("/tmp/file");
    assert_eq!(guest.call(33, &[path, 0]), Ok(0));
    assert_eq!(guest.call(33, &[path, 6]), Ok(0));
    assert_eq!(guest.fails(33, &[path, 1]), Errno::EACCES);
    assert_eq!(guest.fails(33, &[path, 8]), Errno::EINVAL);
    assert_eq!(guest.call(33, &[guest.string("/tmp"), 7]), Ok(0));
    assert_eq!(guest.fails(33, &[guest.string("/none"), 0]), Errno::ENOENT);
}

#[test]
fn what_cannot_be_opened_is_not_made() {
    let limits = Limits { files: 3, files_per_process: 5, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = Guest::new(&kernel);
    // The console is one open file.
    for n in 0..2 {
        guest.open(&format!("/tmp/{n}"), o::RDWR | o::CREAT).unwrap();
    }
    assert_eq!(guest.open("/tmp/more", o::RDWR | o::CREAT), Err(Errno::EMFILE));
    guest.close(0).unwrap();
    assert_eq!(guest.open("/tmp/more", o::RDWR | o::CREAT), Err(Errno::ENFILE));
    assert_eq!(guest.fails(439, &[guest.string("/tmp/more"), guest.buffer()]), Errno::ENOENT);
    guest.close(4).unwrap();
    // A failed open gives back its place among the open files.
    assert_eq!(guest.open("/tmp/none", o::RDWR), Err(Errno::ENOENT));
    assert_eq!(kernel.usage().files, 2);
    assert!(guest.open("/tmp/more", o::RDWR | o::CREAT).is_ok());
}

#[test]
fn files_and_bytes_are_bounded() {
    let kernel: Embedded = kernel_with(Limits { inodes: 9, bytes: 10_000, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let start = kernel.usage().inodes;
    assert_eq!(start, 7);
    let one = guest.open("/tmp/one", o::RDWR | o::CREAT).unwrap();
    on(&guest, MKDIR, "/tmp/two").unwrap();
    assert_eq!(guest.open("/tmp/three", o::RDWR | o::CREAT), Err(Errno::ENOSPC));
    assert_eq!(on(&guest, MKDIR, "/tmp/three"), Err(Errno::ENOSPC));
    assert_eq!(guest.write(one, &[1; 8000]), Ok(8000));
    assert_eq!(guest.write(one, &[1; 8000]), Err(Errno::ENOSPC));
    assert_eq!(guest.write(one, &[1; 100]), Ok(100));
    guest.call(201, &[one, 0, 0]).unwrap();
    assert_eq!(kernel.usage().bytes, 0);
    guest.close(one).unwrap();
    on(&guest, UNLINK, "/tmp/one").unwrap();
    on(&guest, RMDIR, "/tmp/two").unwrap();
    assert_eq!(kernel.usage().inodes, start);
}

#[test]
fn a_tree_deeper_than_any_stack_is_taken_down() {
    let kernel = kernel();
    let mut guest = Guest::new(&kernel);
    guest.slow = false;
    for _ in 0..50_000 {
        on(&guest, MKDIR, "d").unwrap();
        on(&guest, CHDIR, "d").unwrap();
    }
    assert_eq!(guest.fails(296, &[guest.buffer(), 1024]), Errno::ERANGE);
    guest.process.release();
    drop(guest);
    drop(kernel);
}

#[test]
fn a_long_write_is_in_one_piece_whoever_else_writes() {
    for flags in [0, o::APPEND] {
        let guest = Guest::new(&kernel());
        let fd = guest.open("/tmp/file", o::RDWR | o::CREAT | flags).unwrap();
        let dup = guest.call(41, &[fd]).unwrap() as u64;
        let (one, two) = (guest.buffer(), guest.buffer() + 200_000);
        guest.put(one, &[1; 200_000]);
        guest.put(two, &[2; 100_000]);
        let mut first = guest.start(4, &[fd, one, 200_000]);
        let mut second = guest.start(4, &[dup, two, 100_000]);
        // Run the two in turn until both are done.
        let mut left = vec![&mut first, &mut second];
        while !left.is_empty() {
            left.retain_mut(|pending| !matches!(pending.step(), Outcome::Done(Ok(_))));
        }
        assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(300_000));
        guest.call(199, &[fd, 0, 0, 0]).unwrap();
        let bytes = guest.read(fd, 400_000).unwrap();
        let runs: Vec<_> = bytes.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        assert_eq!(runs, [(1, 200_000), (2, 100_000)], "flags {flags}");
    }
}

#[test]
fn a_long_write_that_fails_takes_back_what_it_added() {
    for flags in [0, o::APPEND] {
        let kernel = kernel();
        let guest = Guest::new(&kernel);
        let fd = guest.open("/tmp/file", o::RDWR | o::CREAT | flags).unwrap();
        guest.write(fd, b"before").unwrap();
        // The last piece is at a bad address.
        let last = guest.buffer() + SIZE as u64 / 2 - 100_000;
        assert_eq!(guest.fails(4, &[fd, last, 150_000]), Errno::EFAULT);
        guest.call(440, &[fd, guest.buffer()]).unwrap();
        assert_eq!(word(&guest, 112), 6, "flags {flags}");
        assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(6 + 65536));
        assert_eq!(kernel.usage().bytes, 512);
        // Bytes that another has written behind it meanwhile stay where they are.
        let mut failing = guest.start(4, &[fd, last, 150_000]);
        while guest.call(199, &[fd, 0, 0, 1]) == Ok(6 + 65536) {
            failing.step();
        }
        guest.write(fd, b"after").unwrap();
        assert_eq!(failing.run(), Some(Err(Errno::EFAULT)));
        let begin = if flags == 0 { 6 + 65536 } else { 6 };
        guest.call(199, &[fd, 0, begin + 150_000, 0]).unwrap();
        assert_eq!(guest.read(fd, 100).unwrap(), b"after");
    }
}

#[test]
fn a_write_that_cannot_be_held_changes_nothing() {
    for flags in [0, o::APPEND] {
        let kernel = kernel_with(Limits { bytes: 150_000, ..Limits::default() });
        let guest = Guest::new(&kernel);
        let fd = guest.open("/tmp/file", o::RDWR | o::CREAT | flags).unwrap();
        let dup = guest.call(41, &[fd]).unwrap() as u64;
        guest.write(fd, b"before").unwrap();
        let is_as_before = |bytes| {
            assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(6));
            assert_eq!(guest.call(199, &[fd, 0, 0, 2]), Ok(6));
            assert_eq!(kernel.usage().bytes, bytes, "flags {flags}");
            guest.call(199, &[fd, 0, 6, 0]).unwrap();
        };
        // There is room for the first piece, but not for all of them.
        assert_eq!(guest.write(fd, &[1; 149_000]), Err(Errno::ENOSPC));
        is_as_before(512);
        // Another write takes the room that there was when this one began.
        let mut failing = guest.start(4, &[fd, guest.buffer(), 100_000]);
        while guest.call(199, &[fd, 0, 0, 1]) == Ok(6) {
            failing.step();
        }
        let other = guest.open("/tmp/other", o::RDWR | o::CREAT).unwrap();
        guest.write(other, &[2; 65_536]).unwrap();
        assert_eq!(failing.run(), Some(Err(Errno::ENOSPC)));
        // The offset is behind the piece that was written, as before a bad address.
        assert_eq!(guest.call(199, &[dup, 0, 0, 1]), Ok(6 + 65_536));
        guest.call(199, &[fd, 0, 6, 0]).unwrap();
        is_as_before(65_536 + 512);
    }
}

#[test]
fn a_write_elsewhere_that_fails_leaves_the_offset_alone() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, b"0123456789").unwrap();
    let iov = [guest.place(b"abcde"), 5, NOWHERE, 5].map(u64::to_le_bytes).concat();
    // The write would have ended at the offset of the open file.
    assert_eq!(guest.fails(290, &[fd, guest.place(&iov), 2, 0, 0]), Errno::EFAULT);
    assert_eq!(guest.call(199, &[fd, 0, 0, 1]), Ok(10));
}

#[test]
fn no_file_is_longer_than_an_offset_can_say() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let last = i64::MAX as u64;
    assert_eq!(guest.fails(174, &[fd, guest.buffer(), 1, 0, last]), Errno::EFBIG);
    assert_eq!(guest.signals.taken(), [25]);
    assert_eq!(guest.call(174, &[fd, guest.buffer(), 1, 0, last - 1]), Ok(1));
    let append = guest.open("/tmp/file", o::RDWR | o::APPEND).unwrap();
    assert_eq!(guest.write(append, b"x"), Err(Errno::EFBIG));
    assert_eq!(guest.signals.taken(), [25]);
    assert_eq!(guest.write(append, b""), Ok(0));
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(guest.signals.taken(), []);
}
