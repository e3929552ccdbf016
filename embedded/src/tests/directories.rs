use super::super::Limits;
use super::super::testing::{Guest, NOWHERE, kernel, kernel_with, o};
use super::files::{mode, on, rename};
use kernel::{
    Errno,
    sys::{CHDIR, CHROOT, MKDIR, RMDIR, UNLINK},
};

/// Returns what one `getdents` reports: inode, type and name of each entry.
fn dents(guest: &Guest, fd: u64, size: u64) -> Result<Vec<(u64, u8, String)>, Errno> {
    guest.put(guest.buffer(), &[0xff; 1000]);
    let len = guest.call(390, &[fd, guest.buffer(), size])? as usize;
    let bytes = guest.get(guest.buffer(), len);
    let mut rest = &bytes[..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let number = u64::from_le_bytes(rest[..8].try_into().unwrap());
        let word = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]) as usize;
        let (len, name) = (word(8), word(10));
        assert_eq!(len, (13 + name + 1).next_multiple_of(8));
        assert!(rest[13 + name..len].iter().all(|&byte| byte == 0));
        let name = String::from_utf8(rest[13..13 + name].to_vec()).unwrap();
        entries.push((number, rest[12], name));
        rest = &rest[len..];
    }
    Ok(entries)
}

fn names(guest: &Guest, fd: u64, size: u64) -> Vec<String> {
    dents(guest, fd, size).unwrap().into_iter().map(|entry| entry.2).collect()
}

fn number(guest: &Guest, path: &str) -> u64 {
    mode(guest, path);
    u64::from_le_bytes(guest.get(guest.buffer() + 16, 8).try_into().unwrap())
}

#[test]
fn a_directory_lists_what_it_holds() {
    let guest = Guest::new(&kernel());
    on(&guest, MKDIR, "/tmp/d").unwrap();
    let file = guest.open("/tmp/d/file", o::RDWR | o::CREAT).unwrap();
    on(&guest, MKDIR, "/tmp/d/sub").unwrap();
    guest.call(57, &[guest.string("x"), guest.string("/tmp/d/link")]).unwrap();
    guest.call(132, &[guest.string("/tmp/d/fifo"), 0o644]).unwrap();
    guest.call(450, &[guest.string("/tmp/d/char"), 0o020_644, 0]).unwrap();
    guest.call(450, &[guest.string("/tmp/d/block"), 0o060_644, 0]).unwrap();
    let dir = guest.open("/tmp/d", o::RDONLY).unwrap();
    let (own, up) = (number(&guest, "/tmp/d"), number(&guest, "/tmp"));
    let entries = dents(&guest, dir, 4096).unwrap();
    let brief: Vec<_> = entries.iter().map(|entry| (entry.1, &*entry.2)).collect();
    assert_eq!(
        brief,
        [
            (4, "."),
            (4, ".."),
            (8, "file"),
            (4, "sub"),
            (10, "link"),
            (1, "fifo"),
            (2, "char"),
            (6, "block")
        ]
    );
    assert_eq!((entries[0].0, entries[1].0), (own, up));
    assert_eq!(entries[3].0, number(&guest, "/tmp/d/sub"));
    assert_eq!(dents(&guest, dir, 4096), Ok(vec![]));
    // The end is a place of its own: later entries are not seen from there.
    guest.open("/tmp/d/later", o::RDWR | o::CREAT).unwrap();
    assert_eq!(dents(&guest, dir, 4096), Ok(vec![]));
    guest.call(199, &[dir, 0, 0, 0]).unwrap();
    assert_eq!(names(&guest, dir, 4096).len(), 9);
    assert_eq!(guest.fails(390, &[file, guest.buffer(), 100]), Errno::EINVAL);
    assert_eq!(guest.fails(390, &[77, guest.buffer(), 100]), Errno::EBADF);
    let (reader, _) = guest.pipe();
    assert_eq!(guest.fails(390, &[reader, guest.buffer(), 100]), Errno::EINVAL);
    let write = guest.open("/tmp/d/file", o::WRONLY).unwrap();
    assert_eq!(guest.fails(390, &[write, guest.buffer(), 100]), Errno::EBADF);
    for place in [3_000_000, -1i64 as u64 >> 1] {
        guest.call(199, &[dir, 0, place, 0]).unwrap();
        assert_eq!(guest.fails(390, &[dir, guest.buffer(), 100]), Errno::EINVAL);
    }
}

#[test]
fn a_directory_is_read_in_pieces_while_it_changes() {
    let guest = Guest::new(&kernel());
    on(&guest, MKDIR, "/tmp/d").unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        guest.open(&format!("/tmp/d/{name}"), o::RDWR | o::CREAT).unwrap();
    }
    let dir = guest.open("/tmp/d", o::RDONLY).unwrap();
    // Every short name takes 16 bytes; a smaller buffer gets nothing and the offset stays.
    assert_eq!(names(&guest, dir, 15), [""; 0]);
    assert_eq!(names(&guest, dir, 16), ["."]);
    assert_eq!(names(&guest, dir, 40), ["..", "a"]);
    let place = guest.call(199, &[dir, 0, 0, 1]).unwrap() as u64;
    // The next entry is removed, one read already is removed, one is renamed in its place, one is added.
    on(&guest, UNLINK, "/tmp/d/b").unwrap();
    on(&guest, UNLINK, "/tmp/d/a").unwrap();
    rename(&guest, "/tmp/d/d", "/tmp/d/new").unwrap();
    guest.open("/tmp/d/z", o::RDWR | o::CREAT).unwrap();
    assert_eq!(names(&guest, dir, 16), ["c"]);
    assert_eq!(names(&guest, dir, 4096), ["new", "e", "z"]);
    // Read from an earlier offset again.
    guest.call(199, &[dir, 0, place, 0]).unwrap();
    assert_eq!(names(&guest, dir, 4096), ["c", "new", "e", "z"]);
    // An entry that is renamed over another keeps its place.
    rename(&guest, "/tmp/d/z", "/tmp/d/c").unwrap();
    guest.call(199, &[dir, 0, place, 0]).unwrap();
    assert_eq!(names(&guest, dir, 4096), ["new", "e", "c"]);
    // Removing the entries as they are read removes all of them.
    guest.call(199, &[dir, 0, 0, 0]).unwrap();
    loop {
        let some = names(&guest, dir, 32);
        if some.is_empty() {
            break;
        }
        for name in some.iter().filter(|name| !name.starts_with('.')) {
            on(&guest, UNLINK, &format!("/tmp/d/{name}")).unwrap();
        }
    }
    guest.call(199, &[dir, 0, 0, 0]).unwrap();
    assert_eq!(names(&guest, dir, 4096), [".", ".."]);
    on(&guest, RMDIR, "/tmp/d").unwrap();
    guest.call(199, &[dir, 0, 0, 0]).unwrap();
    assert_eq!(names(&guest, dir, 4096), [""; 0]);
}

#[test]
fn a_large_directory_comes_whole_whatever_the_room() {
    let mut guest = Guest::new(&kernel());
    for n in 0..2000 {
        guest.call(57, &[guest.string("x"), guest.string(&format!("/tmp/{n:0200}"))]).unwrap();
    }
    guest.room = 10_000;
    let dir = guest.open("/tmp", o::RDONLY).unwrap();
    let mut count = 0;
    loop {
        match dents(&guest, dir, 200_000).unwrap().len() {
            0 => break,
            some => count += some,
        }
    }
    assert_eq!(count, 2002);
}

fn cwd(guest: &Guest) -> String {
    let len = guest.call(296, &[guest.buffer(), 1024]).unwrap();
    String::from_utf8(guest.get(guest.buffer(), len as usize - 1)).unwrap()
}

#[test]
fn there_is_no_way_out_of_a_root() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    for path in ["/tmp/jail", "/tmp/jail/dev", "/tmp/jail/tmp"] {
        on(&guest, MKDIR, path).unwrap();
    }
    let (out, inner) = (guest.open("/tmp", o::RDONLY).unwrap(), guest.string("/tmp/jail/tmp"));
    let inner = guest.call(5, &[inner, 0, 0]).unwrap() as u64;
    guest.call(57, &[guest.string("/../../dev"), guest.string("/tmp/jail/link")]).unwrap();
    let child = guest.fork();
    assert_eq!(on(&child, CHROOT, "/none"), Err(Errno::ENOENT));
    assert_eq!(on(&child, CHROOT, "/dev/null"), Err(Errno::ENOTDIR));
    assert_eq!(child.fails(CHROOT, &[NOWHERE]), Errno::EFAULT);
    assert_eq!(on(&child, CHROOT, "/tmp/jail"), Ok(0));
    // The current directory was outside of the root, so now it is the root.
    assert_eq!((cwd(&child), cwd(&guest)), ("/".into(), "/".into()));
    assert_eq!(number(&child, "/.."), number(&guest, "/tmp/jail"));
    assert_eq!(number(&child, "/../../tmp/../.."), number(&guest, "/tmp/jail"));
    assert_eq!(number(&child, "/link"), number(&guest, "/tmp/jail/dev"));
    assert_eq!(child.open("/dev/null", o::RDONLY), Err(Errno::ENOENT));
    on(&child, CHDIR, "/tmp").unwrap();
    assert_eq!(cwd(&child), "/tmp");
    assert_eq!(on(&child, RMDIR, "/.."), Err(Errno::EINVAL));
    // A descriptor of a directory outside leads only to what is below it.
    assert_eq!(child.fails(13, &[out]), Errno::EPERM);
    assert_eq!(child.call(13, &[inner]), Ok(0));
    assert!(child.call(468, &[out, child.string("jail"), 0]).is_ok());
    assert_eq!(child.call(466, &[out, child.string(".."), child.buffer(), 0]), Ok(0));
    let seen = u64::from_le_bytes(child.get(child.buffer() + 16, 8).try_into().unwrap());
    assert_eq!(seen, number(&guest, "/tmp/jail"));
    // A child stays inside, and can go further in.
    let grandchild = child.fork();
    assert_eq!(cwd(&grandchild), "/tmp");
    assert_eq!(grandchild.call(297, &[inner]), Ok(0));
    assert_eq!(cwd(&grandchild), "/");
    assert_eq!(grandchild.fails(297, &[77]), Errno::EBADF);
    assert_eq!(cwd(&child), "/tmp");
    // The superuser gets out by a descriptor, as in NetBSD.
    assert_eq!(child.call(297, &[out]), Ok(0));
    assert_eq!(cwd(&child), "/jail/tmp");
    // A root that is moved stays a root.
    rename(&guest, "/tmp/jail/tmp", "/tmp/moved").unwrap();
    assert_eq!(number(&grandchild, "/.."), number(&guest, "/tmp/moved"));
    on(&guest, RMDIR, "/tmp/moved").unwrap();
    assert_eq!(cwd(&grandchild), "/");
    assert_eq!(grandchild.open("/x", o::CREAT), Err(Errno::ENOENT));
}

#[test]
fn the_file_system_says_how_much_there_is() {
    let limits =
        Limits { bytes: 1 << 20, bytes_per_family: 1 << 19, inodes: 100, ..Limits::default() };
    let guest = Guest::new(&kernel_with(limits));
    let word = |at: u64| u64::from_le_bytes(guest.get(guest.buffer() + at, 8).try_into().unwrap());
    let fd = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, &[1; 65536]).unwrap();
    for (call, what) in [(357, guest.string("/tmp")), (358, fd)] {
        guest.put(guest.buffer(), &[0xff; 3000]);
        assert_eq!(guest.call(call, &[what, guest.buffer(), 1]), Ok(0));
        assert_eq!([word(8), word(16), word(24)], [4096; 3]);
        assert_eq!([word(32), word(40), word(48)], [256, 240, 112]);
        assert_eq!([word(64), word(72), word(80)], [100, 92, 92]);
        assert_eq!((word(136), word(144)), (1, 255));
        assert_eq!(guest.get(guest.buffer() + 172, 6), b"tmpfs\0");
        assert_eq!(guest.get(guest.buffer() + 204, 2), b"/\0");
        assert_eq!(guest.get(guest.buffer() + 1228, 6), b"tmpfs\0");
        assert_eq!(guest.get(guest.buffer() + 2248, 16)[..8], [0; 8]);
        assert_eq!(guest.get(guest.buffer() + 2256, 8), [0xff; 8]);
    }
    assert_eq!(guest.fails(357, &[guest.string("/none"), guest.buffer(), 0]), Errno::ENOENT);
    assert_eq!(guest.fails(358, &[1, guest.buffer(), 0]), Errno::EINVAL);
    assert_eq!(guest.call(356, &[0, 0, 2]), Ok(1));
    assert_eq!(guest.call(356, &[guest.buffer(), 2255, 2]), Ok(0));
    assert_eq!(guest.call(356, &[guest.buffer(), 10_000, 2]), Ok(1));
}
