use super::super::testing::{Guest, NOWHERE, kernel, o};
use super::files::{mode, on, word};
use kernel::Errno;

const ACCESSED: u64 = 48;
const MODIFIED: u64 = 64;
const CHANGED: u64 = 80;
const BORN: u64 = 96;

/// Returns a time of a file, in nanoseconds.
fn time(guest: &Guest, path: &str, which: u64) -> i64 {
    mode(guest, path);
    word(guest, which) * 1_000_000_000 + word(guest, which + 8)
}

fn all_times(guest: &Guest, path: &str) -> [i64; 4] {
    [ACCESSED, MODIFIED, CHANGED, BORN].map(|which| time(guest, path, which))
}

/// Puts two times, as seconds and parts, into memory.
fn pair(guest: &Guest, one: (i64, i64), other: (i64, i64)) -> u64 {
    let words = [one.0, one.1, other.0, other.1];
    guest.place(&words.map(i64::to_le_bytes).concat())
}

#[test]
fn modes_and_owners_change() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    guest.call(57, &[guest.string("f"), guest.string("/tmp/l")]).unwrap();
    let s = |text: &str| guest.string(text);
    assert_eq!(guest.call(15, &[s("/tmp/l"), 0o170_600]), Ok(0));
    assert_eq!(mode(&guest, "/tmp/f"), 0o100_600);
    assert_eq!(guest.call(124, &[fd, 0o4711]), Ok(0));
    assert_eq!(mode(&guest, "/tmp/f"), 0o104_711);
    assert_eq!(guest.call(274, &[s("/tmp/l"), 0o11]), Ok(0));
    guest.call(441, &[s("/tmp/l"), guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o120_011u32.to_le_bytes());
    assert_eq!(guest.fails(15, &[s("/none"), 0]), Errno::ENOENT);
    assert_eq!(guest.fails(124, &[77, 0]), Errno::EBADF);
    assert_eq!(guest.fails(124, &[1, 0]), Errno::EINVAL);
    let owner = |path: &str| {
        guest.call(441, &[s(path), guest.buffer()]).unwrap();
        word(&guest, 28) as u64
    };
    let none = u64::from(u32::MAX);
    // A change of owner clears the set-user-ID bit.
    assert_eq!(guest.call(16, &[s("/tmp/l"), 7, none]), Ok(0));
    assert_eq!((owner("/tmp/f"), mode(&guest, "/tmp/f")), (7, 0o100_711));
    assert_eq!(guest.call(275, &[s("/tmp/l"), none, 8]), Ok(0));
    assert_eq!(owner("/tmp/l"), 8 << 32);
    assert_eq!(guest.call(123, &[fd, none, 9]), Ok(0));
    assert_eq!(owner("/tmp/f"), 9 << 32 | 7);
    assert_eq!(guest.call(124, &[fd, 0o6711]), Ok(0));
    for (call, what) in [(283, s("/tmp/f")), (284, fd), (285, s("/tmp/f"))] {
        assert_eq!(guest.call(call, &[what, 3, 4]), Ok(0));
        assert_eq!(mode(&guest, "/tmp/f"), 0o106_711);
    }
    assert_eq!(owner("/tmp/f"), 4 << 32 | 3);
}

#[test]
fn flags_are_set_and_heeded() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let s = |text: &str| guest.string(text);
    let flags = || {
        guest.call(440, &[fd, guest.buffer()]).unwrap();
        u32::from_le_bytes(guest.get(guest.buffer() + 132, 4).try_into().unwrap())
    };
    assert_eq!(guest.call(34, &[s("/tmp/f"), 0x2]), Ok(0));
    assert_eq!(flags(), 2);
    assert_eq!(guest.open("/tmp/f", o::RDWR), Err(Errno::EPERM));
    assert_eq!(guest.open("/tmp/f", o::RDONLY | o::TRUNC), Err(Errno::EPERM));
    assert!(guest.open("/tmp/f", o::RDONLY).is_ok());
    assert_eq!(guest.fails(33, &[s("/tmp/f"), 2]), Errno::EPERM);
    assert_eq!(on(&guest, 10, "/tmp/f"), Err(Errno::EPERM));
    assert_eq!(guest.fails(201, &[fd, 0, 9]), Errno::EPERM);
    // A client that had the file open goes on writing.
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(guest.call(35, &[fd, u64::MAX]), Ok(0));
    assert_eq!(flags(), 2);
    assert_eq!(guest.call(35, &[fd, 0x4]), Ok(0));
    assert_eq!(guest.open("/tmp/f", o::RDWR), Err(Errno::EPERM));
    let append = guest.open("/tmp/f", o::RDWR | o::APPEND).unwrap();
    assert_eq!(guest.write(append, b"y"), Ok(1));
    assert_eq!(guest.call(304, &[s("/tmp/f"), 0]), Ok(0));
    assert_eq!(flags(), 0);
    assert_eq!(guest.fails(35, &[1, 0]), Errno::EINVAL);
}

#[test]
fn times_are_set_as_wanted() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    guest.call(57, &[guest.string("f"), guest.string("/tmp/l")]).unwrap();
    let s = |text: &str| guest.string(text);
    let (now, omit) = ((1 << 30) - 1, (1 << 30) - 2);
    let [_, _, changed, born] = all_times(&guest, "/tmp/f");
    let future = born / 1_000_000_000 + 1000;
    // Microseconds by path; neither the change time nor the birth time moves.
    let both = pair(&guest, (5, 7), (future, 9));
    assert_eq!(guest.call(420, &[s("/tmp/l"), both]), Ok(0));
    let expected = [5_000_007_000, future * 1_000_000_000 + 9000, changed, born];
    assert_eq!(all_times(&guest, "/tmp/f"), expected);
    // Nanoseconds by descriptor; setting an earlier modification time also moves the birth time back.
    assert_eq!(guest.call(472, &[fd, pair(&guest, (0, omit), (6, 8))]), Ok(0));
    assert_eq!(all_times(&guest, "/tmp/f"), [5_000_007_000, 6_000_000_008, changed, 6_000_000_008]);
    assert_eq!(guest.call(423, &[fd, pair(&guest, (9, 1), (-1, 5))]), Ok(0));
    assert_eq!(all_times(&guest, "/tmp/f")[..2], [9_000_001_000, 6_000_000_008]);
    assert_eq!(guest.call(472, &[fd, pair(&guest, (0, now), (0, omit))]), Ok(0));
    assert!(time(&guest, "/tmp/f", ACCESSED) >= changed);
    assert_eq!(time(&guest, "/tmp/f", MODIFIED), 6_000_000_008);
    assert_eq!(guest.call(420, &[s("/tmp/f"), 0]), Ok(0));
    assert!(time(&guest, "/tmp/f", MODIFIED) >= changed);
    // The link itself.
    assert_eq!(guest.call(424, &[s("/tmp/l"), both]), Ok(0));
    let cwd = -100i64 as u64;
    let link = pair(&guest, (0, omit), (77, 1));
    assert_eq!(guest.call(467, &[cwd, s("/tmp/l"), link, 0x200]), Ok(0));
    guest.call(441, &[s("/tmp/l"), guest.buffer()]).unwrap();
    assert_eq!((word(&guest, MODIFIED), word(&guest, MODIFIED + 8)), (77, 1));
    assert!(time(&guest, "/tmp/f", MODIFIED) >= changed);
    assert_eq!(guest.call(467, &[cwd, s("/tmp/f"), pair(&guest, (i64::MAX, 0), (1, 0)), 0]), Ok(0));
    assert_eq!(time(&guest, "/tmp/f", ACCESSED), i64::MAX);
    // Times are copied in before names, descriptors are checked before times.
    assert_eq!(guest.fails(420, &[s("/none"), NOWHERE]), Errno::EFAULT);
    assert_eq!(guest.fails(467, &[77, s("/none"), NOWHERE, 0]), Errno::EFAULT);
    assert_eq!(guest.fails(423, &[77, NOWHERE]), Errno::EBADF);
    assert_eq!(guest.fails(420, &[s("/none"), both]), Errno::ENOENT);
    assert_eq!(guest.fails(472, &[1, both]), Errno::EINVAL);
}

/// Returns which of a file's times, in this order, a call moves.
fn moved(guest: &Guest, path: &str, act: &dyn Fn() -> bool) -> [bool; 3] {
    let past = pair(guest, (1, 0), (1, 0));
    guest.call(424, &[guest.string(path), past]).unwrap();
    let lstat = || {
        guest.call(441, &[guest.string(path), guest.buffer()]).unwrap();
        [ACCESSED, MODIFIED, CHANGED]
            .map(|at| word(guest, at) * 1_000_000_000 + word(guest, at + 8))
    };
    let before = lstat();
    assert!(act());
    let after = lstat();
    std::array::from_fn(|n| before[n] != after[n])
}

#[test]
fn each_call_moves_the_times_it_should() {
    let guest = Guest::new(&kernel());
    on(&guest, 136, "/tmp/d").unwrap();
    let fd = guest.open("/tmp/d/f", o::RDWR | o::CREAT).unwrap();
    let s = |text: &str| guest.string(text);
    let nothing = [false; 3];
    let file = |act: &dyn Fn() -> bool| moved(&guest, "/tmp/d/f", act);
    let dir = |act: &dyn Fn() -> bool| moved(&guest, "/tmp/d", act);
    let (read, write) = ([true, false, false], [false, true, true]);
    let changed = [false, false, true];
    assert_eq!(file(&|| guest.write(fd, b"abc").is_ok()), write);
    assert_eq!(file(&|| guest.call(4, &[fd, guest.buffer(), 0]).is_ok()), nothing);
    assert_eq!(file(&|| guest.read(fd, 5).is_ok()), read);
    assert_eq!(file(&|| guest.call(3, &[fd, guest.buffer(), 0]).is_ok()), nothing);
    assert_eq!(file(&|| guest.call(201, &[fd, 0, 3]).is_ok()), nothing);
    assert_eq!(file(&|| guest.call(201, &[fd, 0, 2]).is_ok()), write);
    assert_eq!(file(&|| guest.call(124, &[fd, 0o600]).is_ok()), changed);
    assert_eq!(file(&|| guest.call(123, &[fd, 1, 1]).is_ok()), changed);
    assert_eq!(file(&|| guest.call(35, &[fd, 1]).is_ok()), changed);
    assert_eq!(file(&|| guest.call(9, &[s("/tmp/d/f"), s("/tmp/d/g")]).is_ok()), changed);
    assert_eq!(dir(&|| guest.call(9, &[s("/tmp/d/f"), s("/tmp/d/h")]).is_ok()), write);
    assert_eq!(file(&|| guest.call(10, &[s("/tmp/d/g")]).is_ok()), changed);
    assert_eq!(dir(&|| guest.call(10, &[s("/tmp/d/h")]).is_ok()), write);
    assert_eq!(dir(&|| guest.open("/tmp/d/n", o::CREAT).is_ok()), write);
    assert_eq!(dir(&|| guest.open("/tmp/d/n", o::CREAT).is_ok()), nothing);
    assert_eq!(dir(&|| guest.call(128, &[s("/tmp/d/n"), s("/tmp/d/m")]).is_ok()), write);
    guest.call(57, &[s("f"), s("/tmp/d/l")]).unwrap();
    let link = |act: &dyn Fn() -> bool| moved(&guest, "/tmp/d/l", act);
    assert_eq!(link(&|| guest.open("/tmp/d/l", o::RDONLY).is_ok()), read);
    assert_eq!(link(&|| guest.call(58, &[s("/tmp/d/l"), guest.buffer(), 9]).is_ok()), read);
    let away_and_back = || {
        guest.call(128, &[s("/tmp/d/l"), s("/tmp/l")]).unwrap();
        guest.call(128, &[s("/tmp/l"), s("/tmp/d/l")]).is_ok()
    };
    assert_eq!(link(&away_and_back), changed);
    let open = guest.open("/tmp/d", o::RDONLY).unwrap();
    assert_eq!(dir(&|| guest.call(390, &[open, guest.buffer(), 512]).is_ok()), read);
}

#[test]
fn what_only_passes_through_a_file_moves_times_when_it_begins() {
    let guest = Guest::new(&kernel());
    let s = |text: &str| guest.string(text);
    guest.call(132, &[s("/tmp/p"), 0o600]).unwrap();
    let fifo = guest.open("/tmp/p", o::RDWR | o::NONBLOCK).unwrap();
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    let (read, written) = ([true, false, false], [false, true, false]);
    for (path, fd) in [("/tmp/p", fifo), ("/dev/null", null)] {
        let moves = |act: &dyn Fn() -> bool| moved(&guest, path, act);
        assert_eq!(moves(&|| guest.write(fd, b"x").is_ok()), written);
        assert_eq!(moves(&|| guest.read(fd, 1).is_ok()), read);
        assert_eq!(moves(&|| guest.read(fd, 0).is_ok()), read);
    }
    // The call moves the time though it fails.
    let refused = || guest.read(fifo, 1) == Err(Errno::EAGAIN);
    assert_eq!(moved(&guest, "/tmp/p", &refused), read);
    let file = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let bad = || guest.call(4, &[file, NOWHERE, 1]) == Err(Errno::EFAULT);
    assert_eq!(moved(&guest, "/tmp/f", &bad), [false, true, true]);
}

#[test]
fn a_fifo_that_may_only_grow_opens_as_any() {
    let guest = Guest::new(&kernel());
    guest.call(132, &[guest.string("/tmp/p"), 0o600]).unwrap();
    let file = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    guest.call(35, &[file, 4]).unwrap();
    guest.call(34, &[guest.string("/tmp/p"), 4]).unwrap();
    assert_eq!(guest.open("/tmp/f", o::RDWR), Err(Errno::EPERM));
    assert!(guest.open("/tmp/p", o::RDWR).is_ok());
}

#[test]
fn limits_of_names_are_told() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let (path, null) = (guest.string("/tmp"), guest.string("/dev/null"));
    for (name, value) in [
        (1, Some(32767)),
        (2, None),
        (4, Some(255)),
        (5, Some(1024)),
        (6, Some(512)),
        (7, Some(1)),
        (8, Some(1)),
        (9, None),
        (10, Some(1)),
        (11, Some(64)),
        (12, None),
        (0, None),
    ] {
        let expected = value.ok_or(Errno::EINVAL);
        assert_eq!(guest.call(191, &[path, name]), expected, "{name}");
        assert_eq!(guest.call(192, &[fd, name]), expected, "{name}");
    }
    assert_eq!(guest.call(191, &[null, 2]), Ok(255));
    assert_eq!(guest.fails(191, &[null, 4]), Errno::EINVAL);
    let (reader, _) = guest.pipe();
    assert_eq!(guest.call(192, &[reader, 6]), Ok(512));
    assert_eq!(guest.fails(192, &[reader, 1]), Errno::EINVAL);
    assert_eq!(guest.fails(192, &[1, 1]), Errno::EOPNOTSUPP);
    assert_eq!(guest.fails(192, &[77, 1]), Errno::EBADF);
    assert_eq!(guest.fails(191, &[guest.string("/none"), 1]), Errno::ENOENT);
}

#[test]
fn advice_is_taken_and_not_needed() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let (reader, _) = guest.pipe();
    let none = Errno(0);
    for (fd, from, len, advice, errno) in [
        (fd, 0, 0, 0, none),
        (fd, 5, 10, 5, none),
        (fd, 0, 0, 6, Errno::EINVAL),
        (fd, 0, -1i64 as u64, 0, Errno::EINVAL),
        (77, i64::MAX as u64, 1, 0, Errno::EINVAL),
        (77, 0, 0, 9, Errno::EBADF),
        (reader, 0, 0, 9, Errno::ESPIPE),
        (1, 0, 0, 0, Errno::EOPNOTSUPP),
    ] {
        assert_eq!(guest.call(416, &[fd, 0, from, len, advice]), Ok(errno.0.into()));
    }
}

#[test]
fn a_device_of_ours_discards_nothing() {
    let guest = Guest::new(&kernel());
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    assert_eq!(guest.fails(480, &[null, 0, 0, 10]), Errno::ENODEV);
    assert_eq!(guest.call(479, &[null, 0, 0, 10]), Ok(Errno::EOPNOTSUPP.0.into()));
}

#[test]
fn ranges_are_synced_and_neither_set_aside_nor_given_back() {
    let guest = Guest::new(&kernel());
    let fd = guest.open("/tmp/f", o::RDWR | o::CREAT).unwrap();
    let read = guest.open("/tmp/f", o::RDONLY).unwrap();
    assert_eq!(guest.call(354, &[fd, 0x10, 0, 0]), Ok(0));
    assert_eq!(guest.call(354, &[fd, 0x20, 5, 7]), Ok(0));
    assert_eq!(guest.fails(354, &[fd, 0x30, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(354, &[fd, 0, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(354, &[fd, 0x10, 5, -7i64 as u64]), Errno::EINVAL);
    assert_eq!(guest.fails(354, &[read, 0x10, 0, 0]), Errno::EBADF);
    let dir = guest.open("/tmp", o::RDONLY).unwrap();
    for (fd, from, len, errno) in [
        (fd, 0, 10, Errno::EOPNOTSUPP),
        (fd, -1i64 as u64, 10, Errno::EINVAL),
        (77, i64::MAX as u64, 1, Errno::EINVAL),
        (77, 0, 10, Errno::EBADF),
        (read, 0, 10, Errno::EBADF),
        (dir, 0, 10, Errno::EBADF),
        (1, 0, 10, Errno::EINVAL),
    ] {
        assert_eq!(guest.call(479, &[fd, 0, from, len]), Ok(errno.0.into()));
        assert_eq!(guest.fails(480, &[fd, 0, from, len]), errno);
    }
}
