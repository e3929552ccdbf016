use super::super::testing::{Guest, NOWHERE, kernel, kernel_with, o};
use super::super::{Limits, Usage};
use super::files::{mode, on, rename, word};
use kernel::{
    Errno,
    sys::{LINK, MKDIR, POSIX_RENAME, READLINK, RMDIR, SYMLINK, UNLINK},
};

const AT_FDCWD: u64 = -100i64 as u64;

fn two(guest: &Guest, number: i32, one: &str, other: &str) -> Result<i64, Errno> {
    guest.call(number, &[guest.string(one), guest.string(other)])
}

fn links(guest: &Guest, path: &str) -> u8 {
    mode(guest, path);
    guest.get(guest.buffer() + 24, 4)[0]
}

fn target(guest: &Guest, path: &str) -> Result<String, Errno> {
    let len = guest.call(READLINK, &[guest.string(path), guest.buffer(), 2000])?;
    Ok(String::from_utf8(guest.get(guest.buffer(), len as usize)).unwrap())
}

/// Returns what `lstat` reports for a path: its type and mode.
fn own_mode(guest: &Guest, path: &str) -> Result<u32, Errno> {
    guest.call(441, &[guest.string(path), guest.buffer()])?;
    Ok(u32::from_le_bytes(guest.get(guest.buffer() + 8, 4).try_into().unwrap()))
}

#[test]
fn one_file_has_many_names() {
    let kernel = kernel();
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    let fd = guest.open("/tmp/a", o::RDWR | o::CREAT).unwrap();
    assert_eq!(two(&guest, LINK, "/tmp/a", "/tmp/b"), Ok(0));
    guest.write(fd, b"shared").unwrap();
    let other = guest.open("/tmp/b", o::RDONLY).unwrap();
    assert_eq!(guest.read(other, 10).unwrap(), b"shared");
    assert_eq!((links(&guest, "/tmp/a"), links(&guest, "/tmp/b")), (2, 2));
    on(&guest, MKDIR, "/tmp/d").unwrap();
    for (from, to, errno) in [
        ("/tmp/a", "/tmp/b", Errno::EEXIST),
        ("/tmp/none", "/tmp/c", Errno::ENOENT),
        ("/tmp/a", "/none/c", Errno::ENOENT),
        ("/tmp/a", "/tmp/c/", Errno::ENOENT),
        ("/tmp/a", "/tmp/a/c", Errno::ENOTDIR),
        ("/tmp/d", "/tmp/c", Errno::EPERM),
        ("/tmp/d", "/tmp/a", Errno::EEXIST),
        ("/tmp/a", "/", Errno::EEXIST),
        ("/tmp/a", "/tmp/d/..", Errno::EEXIST),
    ] {
        assert_eq!(two(&guest, LINK, from, to), Err(errno), "{from} to {to}");
    }
    assert_eq!(guest.fails(LINK, &[guest.string("/tmp/a"), NOWHERE]), Errno::EFAULT);
    on(&guest, UNLINK, "/tmp/a").unwrap();
    assert_eq!(links(&guest, "/tmp/b"), 1);
    on(&guest, UNLINK, "/tmp/b").unwrap();
    on(&guest, RMDIR, "/tmp/d").unwrap();
    guest.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn names_and_targets_are_paid_for() {
    let limits = Limits { bytes: 1024, inodes: 9, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    guest.open("/tmp/a", o::RDWR | o::CREAT).unwrap();
    two(&guest, LINK, "/tmp/a", "/tmp/b").unwrap();
    two(&guest, LINK, "/tmp/a", "/tmp/c").unwrap();
    assert_eq!(two(&guest, LINK, "/tmp/a", "/tmp/d"), Err(Errno::ENOSPC));
    assert_eq!(links(&guest, "/tmp/a"), 3);
    // The name that was paid for may be moved, and costs nothing once it is removed.
    rename(&guest, "/tmp/c", "/moved").unwrap();
    on(&guest, UNLINK, "/moved").unwrap();
    assert_eq!(kernel.usage().bytes, 512);
    assert_eq!(two(&guest, SYMLINK, &"x".repeat(513), "/tmp/l"), Err(Errno::ENOSPC));
    assert_eq!(two(&guest, SYMLINK, &"x".repeat(512), "/tmp/l"), Ok(0));
    assert_eq!(kernel.usage(), Usage { bytes: 1024, inodes: before.inodes + 2, ..kernel.usage() });
    on(&guest, UNLINK, "/tmp/l").unwrap();
    two(&guest, SYMLINK, "", "/tmp/l").unwrap();
    assert_eq!(two(&guest, SYMLINK, "", "/tmp/m"), Err(Errno::ENOSPC));
    for name in ["/tmp/a", "/tmp/b", "/tmp/l"] {
        on(&guest, UNLINK, name).unwrap();
    }
    guest.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn symbolic_links_lead_on() {
    let guest = Guest::new(&kernel());
    on(&guest, MKDIR, "/tmp/d").unwrap();
    guest.open("/tmp/d/file", o::RDWR | o::CREAT).unwrap();
    two(&guest, SYMLINK, "d", "/tmp/rel").unwrap();
    two(&guest, SYMLINK, "/tmp/d", "/tmp/abs").unwrap();
    two(&guest, SYMLINK, "/", "/tmp/root").unwrap();
    two(&guest, SYMLINK, "../rel/./file", "/tmp/d/up").unwrap();
    for path in ["/tmp/rel/file", "/tmp/abs/file", "/tmp/root/tmp/d/file", "/tmp/abs/up"] {
        assert_eq!(mode(&guest, path), 0o100_644, "{path}");
    }
    assert_eq!(own_mode(&guest, "/tmp/rel"), Ok(0o120_755));
    assert_eq!(word(&guest, 112), 1);
    for path in ["/tmp/rel/", "/tmp/rel/.", "/tmp/root", "/tmp/root//"] {
        assert_eq!(mode(&guest, path), 0o040_755, "{path}");
        let slash = path.ends_with(['/', '.']);
        assert_eq!(own_mode(&guest, path), Ok(if slash { 0o040_755 } else { 0o120_755 }));
    }
    assert_eq!(target(&guest, "/tmp/d/up").unwrap(), "../rel/./file");
    guest.put(guest.buffer(), b"......");
    assert_eq!(guest.call(READLINK, &[guest.string("/tmp/abs"), guest.buffer(), 4]), Ok(4));
    assert_eq!(guest.get(guest.buffer(), 6), b"/tmp..");
    assert_eq!(guest.call(READLINK, &[guest.string("/tmp/abs"), guest.buffer(), 0]), Ok(0));
    assert_eq!(target(&guest, "/tmp/d"), Err(Errno::EINVAL));
    assert_eq!(target(&guest, "/tmp/rel/"), Err(Errno::EINVAL));
    assert_eq!(target(&guest, "/tmp/none"), Err(Errno::ENOENT));
    assert_eq!(two(&guest, SYMLINK, "x", "/tmp/rel"), Err(Errno::EEXIST));
    assert_eq!(two(&guest, SYMLINK, "x", "/tmp/new/"), Err(Errno::ENOENT));
    assert_eq!(two(&guest, SYMLINK, &"x".repeat(1024), "/tmp/l"), Err(Errno::ENAMETOOLONG));
    // rmdir, linkat and lchown act on the link itself.
    assert_eq!(on(&guest, RMDIR, "/tmp/rel"), Err(Errno::ENOTDIR));
    let pair = [guest.string("/tmp/rel"), guest.string("/tmp/both")];
    guest.call(457, &[AT_FDCWD, pair[0], AT_FDCWD, pair[1], 0]).unwrap();
    assert_eq!(own_mode(&guest, "/tmp/both"), Ok(0o120_755));
    guest.call(10, &[guest.string("/tmp/both")]).unwrap();
    let up = [guest.string("/tmp/d/up"), guest.string("/tmp/name")];
    guest.call(457, &[AT_FDCWD, up[0], AT_FDCWD, up[1], 0x400]).unwrap();
    assert_eq!(links(&guest, "/tmp/d/file"), 2);
    assert_eq!(on(&guest, UNLINK, "/tmp/rel"), Ok(0));
    assert_eq!(mode(&guest, "/tmp/d"), 0o040_755);
}

#[test]
fn open_follows_or_does_not() {
    let guest = Guest::new(&kernel());
    const NOFOLLOW: u64 = 0x100;
    two(&guest, SYMLINK, "there", "/tmp/l").unwrap();
    assert_eq!(guest.open("/tmp/l", o::RDONLY), Err(Errno::ENOENT));
    assert_eq!(guest.open("/tmp/l", o::RDWR | o::CREAT | o::EXCL), Err(Errno::EEXIST));
    assert_eq!(guest.open("/tmp/l", o::RDONLY | NOFOLLOW), Err(Errno::EFTYPE));
    assert_eq!(guest.open("/tmp/l", o::RDWR | o::CREAT | NOFOLLOW), Err(Errno::EFTYPE));
    assert!(guest.open("/tmp/l", o::RDWR | o::CREAT).is_ok());
    assert_eq!(own_mode(&guest, "/tmp/there"), Ok(0o100_644));
    assert!(guest.open("/tmp/there", o::RDONLY | NOFOLLOW).is_ok());
    // A directory is made where a link with a slash leads, and nothing where a link without one does.
    two(&guest, SYMLINK, "made", "/tmp/m").unwrap();
    assert_eq!(on(&guest, MKDIR, "/tmp/m"), Err(Errno::EEXIST));
    assert_eq!(on(&guest, MKDIR, "/tmp/m/"), Ok(0));
    assert_eq!(own_mode(&guest, "/tmp/made"), Ok(0o040_755));
}

#[test]
fn links_end_somewhere() {
    let guest = Guest::new(&kernel());
    two(&guest, SYMLINK, "b", "/tmp/a").unwrap();
    two(&guest, SYMLINK, "a", "/tmp/b").unwrap();
    assert_eq!(guest.open("/tmp/a", o::RDONLY), Err(Errno::ELOOP));
    assert_eq!(guest.open("/tmp/a/x", o::CREAT), Err(Errno::ELOOP));
    assert_eq!(own_mode(&guest, "/tmp/a"), Ok(0o120_755));
    two(&guest, SYMLINK, "", "/tmp/empty").unwrap();
    assert_eq!(target(&guest, "/tmp/empty").unwrap(), "");
    assert_eq!(guest.open("/tmp/empty", o::RDONLY), Err(Errno::ENOENT));
    assert_eq!(guest.open("/tmp/empty/", o::RDONLY), Err(Errno::ENOENT));
    // At most thirty-two links in a row.
    two(&guest, SYMLINK, "/tmp", "/tmp/0").unwrap();
    for n in 1..33 {
        two(&guest, SYMLINK, &format!("{}", n - 1), &format!("/tmp/{n}")).unwrap();
    }
    assert_eq!(mode(&guest, "/tmp/31"), 0o041_777);
    assert_eq!(guest.open("/tmp/32", o::RDONLY), Err(Errno::ELOOP));
    // The rest of the path counts.
    two(&guest, SYMLINK, &"./".repeat(500), "/tmp/long").unwrap();
    assert_eq!(mode(&guest, &format!("/tmp/long{}", "/".repeat(22))), 0o041_777);
    let more = format!("/tmp/long{}", "/".repeat(23));
    assert_eq!(guest.open(&more, o::RDONLY), Err(Errno::ENAMETOOLONG));
}

#[test]
fn renames_of_links_and_of_one_file_over_itself() {
    let guest = Guest::new(&kernel());
    guest.open("/tmp/a", o::RDWR | o::CREAT).unwrap();
    two(&guest, LINK, "/tmp/a", "/tmp/b").unwrap();
    assert_eq!(rename(&guest, "/tmp/a", "/tmp/a"), Ok(0));
    assert_eq!(two(&guest, POSIX_RENAME, "/tmp/a", "/tmp/b"), Ok(0));
    assert_eq!(links(&guest, "/tmp/a"), 2);
    // Without POSIX's rule the old name goes.
    assert_eq!(rename(&guest, "/tmp/a", "/tmp/b"), Ok(0));
    assert_eq!(own_mode(&guest, "/tmp/a"), Err(Errno::ENOENT));
    assert_eq!(links(&guest, "/tmp/b"), 1);
    two(&guest, SYMLINK, "b", "/tmp/l").unwrap();
    assert_eq!(rename(&guest, "/tmp/l", "/tmp/b"), Ok(0));
    assert_eq!(own_mode(&guest, "/tmp/b"), Ok(0o120_755));
    on(&guest, MKDIR, "/tmp/d").unwrap();
    on(&guest, MKDIR, "/tmp/d/e").unwrap();
    for (from, to, errno) in [
        ("/tmp/b", "/tmp/d", Errno::EISDIR),
        ("/tmp/d", "/tmp/b", Errno::ENOTDIR),
        ("/tmp/d/.", "/tmp/x", Errno::EINVAL),
        ("/tmp/d/e/..", "/tmp/x", Errno::EINVAL),
        ("/tmp/d", "/tmp/d/e/..", Errno::EINVAL),
        ("/tmp/b", "/tmp/d/.", Errno::EISDIR),
        ("/tmp/d", "/", Errno::EBUSY),
        ("/", "/tmp/x", Errno::EBUSY),
        ("/tmp/b", "/tmp/x/", Errno::ENOENT),
    ] {
        assert_eq!(rename(&guest, from, to), Err(errno), "{from} to {to}");
    }
    assert_eq!(rename(&guest, "/tmp/d", "/tmp/x/"), Ok(0));
    assert_eq!(own_mode(&guest, "/tmp/x/e"), Ok(0o040_755));
}

#[test]
fn names_begin_at_a_directory_descriptor() {
    let guest = Guest::new(&kernel());
    on(&guest, MKDIR, "/tmp/d").unwrap();
    let dir = guest.open("/tmp/d", o::RDONLY | o::DIRECTORY).unwrap();
    let search = guest.open("/tmp/d", 0x80_0000).unwrap();
    let s = |text: &str| guest.string(text);
    let fd = guest.call(468, &[dir, s("f"), o::RDWR | o::CREAT, 0o640]).unwrap() as u64;
    assert_eq!(mode(&guest, "/tmp/d/f"), 0o100_640);
    assert_eq!(guest.call(461, &[search, s("sub"), 0o700]), Ok(0));
    assert_eq!(guest.call(459, &[dir, s("fifo"), 0o644]), Ok(0));
    assert_eq!(guest.call(460, &[dir, s("null"), 0o020_666, 99, 0x202]), Ok(0));
    assert_eq!(guest.call(470, &[s("f"), dir, s("l")]), Ok(0));
    assert_eq!(guest.call(469, &[dir, s("l"), guest.buffer(), 10]), Ok(1));
    assert_eq!(guest.call(457, &[dir, s("f"), AT_FDCWD, s("/tmp/g"), 0]), Ok(0));
    assert_eq!(guest.call(458, &[AT_FDCWD, s("/tmp/g"), dir, s("h")]), Ok(0));
    assert_eq!(guest.call(462, &[dir, s("f"), 6, 0x100]), Ok(0));
    assert_eq!(guest.call(463, &[dir, s("l"), 0o600, 0]), Ok(0));
    assert_eq!(guest.call(464, &[dir, s("l"), 5, 6, 0x200]), Ok(0));
    assert_eq!(guest.call(467, &[dir, s("l"), 0, 0]), Ok(0));
    assert_eq!(guest.call(466, &[dir, s("l"), guest.buffer(), 0]), Ok(0));
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o100_600u32.to_le_bytes());
    assert_eq!(guest.call(466, &[dir, s("l"), guest.buffer(), 0x200]), Ok(0));
    assert_eq!(guest.get(guest.buffer() + 28, 8), [5, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(guest.fails(471, &[dir, s("sub"), 0]), Errno::EPERM);
    assert_eq!(guest.fails(471, &[dir, s("f"), 0x800]), Errno::ENOTDIR);
    assert_eq!(guest.call(471, &[dir, s("sub"), 0x800]), Ok(0));
    assert_eq!(guest.call(471, &[dir, s("f"), 0]), Ok(0));
    // For a path from the root the directory does not matter, but the descriptor must be good.
    assert_eq!(guest.call(466, &[fd, s("/tmp"), guest.buffer(), 0]), Ok(0));
    assert_eq!(guest.fails(466, &[fd, s("f"), guest.buffer(), 0]), Errno::ENOTDIR);
    assert_eq!(guest.fails(466, &[fd, s(""), guest.buffer(), 0]), Errno::ENOENT);
    assert_eq!(guest.fails(466, &[77, s("/tmp"), guest.buffer(), 0]), Errno::EBADF);
    assert_eq!(guest.fails(466, &[-1i64 as u64, s("/"), guest.buffer(), 0]), Errno::EBADF);
    let (reader, _) = guest.pipe();
    assert_eq!(guest.fails(466, &[reader, s("/tmp"), guest.buffer(), 0]), Errno::EINVAL);
    // The descriptor is checked before the path, or after it.
    assert_eq!(guest.fails(463, &[77, NOWHERE, 0, 0]), Errno::EBADF);
    assert_eq!(guest.fails(466, &[77, NOWHERE, guest.buffer(), 0]), Errno::EFAULT);
    assert_eq!(guest.fails(468, &[77, s("f"), 3, 0]), Errno::EBADF);
    // The descriptor leads to the directory wherever it was moved.
    rename(&guest, "/tmp/d", "/tmp/e").unwrap();
    assert!(guest.call(468, &[dir, s("h"), 0]).is_ok());
}

#[test]
fn nodes_and_fifos_are_made_and_opened_as_far_as_they_go() {
    let guest = Guest::new(&kernel());
    let mknod =
        |path: &str, mode: u64, number: u64| guest.call(450, &[guest.string(path), mode, number]);
    assert_eq!(mknod("/tmp/zero", 0o020_644, 0x20c), Ok(0));
    let zero = guest.open("/tmp/zero", o::RDWR).unwrap();
    guest.put(guest.buffer(), b"xyz");
    assert_eq!(guest.read(zero, 3).unwrap(), [0; 3]);
    assert_eq!(mode(&guest, "/tmp/zero"), 0o020_644);
    assert_eq!(word(&guest, 40), 0x20c);
    assert_eq!(mknod("/tmp/none", 0o020_644, 0xfff), Ok(0));
    assert_eq!(guest.open("/tmp/none", o::RDONLY), Err(Errno::ENXIO));
    assert_eq!(mknod("/tmp/block", 0o060_644, 0x20c), Ok(0));
    assert_eq!(guest.open("/tmp/block", o::RDONLY), Err(Errno::ENXIO));
    assert_eq!(mode(&guest, "/tmp/block"), 0o060_644);
    assert_eq!(mknod("/tmp/file", 0o100_666, 0), Ok(0));
    assert_eq!(mode(&guest, "/tmp/file"), 0o100_644);
    assert_eq!(mknod("/tmp/file", 0o100_666, 0), Err(Errno::EEXIST));
    for (kind, number) in [(0o010_000, 0), (0o040_000, 0), (0o170_000, 0), (0o020_000, u64::MAX)] {
        assert_eq!(mknod("/tmp/bad", kind, number), Err(Errno::EINVAL), "{kind:o}");
    }
    assert_eq!(guest.call(132, &[guest.string("/tmp/fifo"), 0o777]), Ok(0));
    assert_eq!(mode(&guest, "/tmp/fifo"), 0o010_755);
    assert_eq!(guest.fails(132, &[guest.string("/tmp/fifo"), 0o777]), Errno::EEXIST);
    assert_eq!(guest.call(200, &[guest.string("/tmp/fifo"), 0, 5]), Ok(0));
}
