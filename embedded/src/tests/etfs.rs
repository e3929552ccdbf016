use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::super::testing::{Guest, kernel, kernel_with, o};
use super::super::{Embedded, Etfs, Limits, Why};
use kernel::Errno;

fn mount(key: &str, host: &Path, writable: bool) -> Etfs {
    Etfs { key: key.into(), hostpath: host.into(), writable }
}

/// Makes a directory with a file, a file in a directory, and an empty directory.
fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "of the host").unwrap();
    fs::create_dir_all(dir.path().join("sub/empty")).unwrap();
    fs::write(dir.path().join("sub/deep"), vec![7; 200_000]).unwrap();
    dir
}

fn read(guest: &Guest, path: &str) -> Result<Vec<u8>, Errno> {
    let fd = guest.open(path, o::RDONLY)?;
    let bytes = guest.read(fd, 1 << 18);
    guest.close(fd)?;
    bytes
}

/// Returns the fields of a `struct stat`: mode, owner, group, seconds and nanoseconds of modification,
/// size.
fn stat(guest: &Guest, path: &str) -> (u32, u32, u32, i64, i64, i64) {
    guest.call(439, &[guest.string(path), guest.buffer()]).unwrap();
    let int = |at: u64| u32::from_le_bytes(guest.get(guest.buffer() + at, 4).try_into().unwrap());
    let long = |at: u64| i64::from_le_bytes(guest.get(guest.buffer() + at, 8).try_into().unwrap());
    (int(8), int(28), int(32), long(64), long(72), long(112))
}

fn why(kernel: &Embedded, mounts: &[Etfs]) -> (Why, String) {
    let error = kernel.etfs(mounts).expect_err("no mount");
    let text = error.to_string();
    (error.why, text)
}

#[test]
fn a_directory_is_read_as_it_was_and_not_changed() {
    let dir = tree();
    let file = dir.path().join("file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let when = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::options().write(true).open(&file).unwrap().set_modified(when).unwrap();
    let kernel = kernel();
    kernel.etfs(&[mount("/srv/data", dir.path(), false)]).unwrap();
    // Later changes on the host are not seen.
    fs::write(&file, "changed").unwrap();
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("new"), "").unwrap();
    let guest = Guest::new(&kernel);
    assert_eq!(read(&guest, "/srv/data/file").unwrap(), b"of the host");
    assert_eq!(read(&guest, "/srv/data/sub/deep").unwrap(), vec![7; 200_000]);
    assert_eq!(read(&guest, "/srv/data/new"), Err(Errno::ENOENT));
    let file = (0o100_640, 0, 0, 1_000_000_000, 123_456_789, 11);
    assert_eq!(stat(&guest, "/srv/data/file"), file);
    assert_eq!(stat(&guest, "/srv").0, 0o040_755);
    for flags in [o::RDWR, o::WRONLY, o::RDONLY | o::TRUNC, o::RDWR | o::CREAT] {
        assert_eq!(guest.open("/srv/data/file", flags), Err(Errno::EROFS));
    }
    let path = |path: &str| guest.string(path);
    assert_eq!(guest.open("/srv/data/sub/empty/new", o::RDWR | o::CREAT), Err(Errno::EROFS));
    assert_eq!(guest.fails(136, &[path("/srv/data/new"), 0o755]), Errno::EROFS);
    assert_eq!(guest.fails(10, &[path("/srv/data/file")]), Errno::EROFS);
    assert_eq!(guest.fails(137, &[path("/srv/data/sub/empty")]), Errno::EROFS);
    assert_eq!(guest.fails(137, &[path("/srv/data")]), Errno::EROFS);
    assert_eq!(guest.fails(200, &[path("/srv/data/file"), 0, 1]), Errno::EROFS);
    assert_eq!(guest.fails(33, &[path("/srv/data/file"), 2]), Errno::EROFS);
    assert_eq!(guest.fails(128, &[path("/srv/data/file"), path("/tmp/file")]), Errno::EROFS);
    assert_eq!(guest.fails(15, &[path("/srv/data/file"), 0o777]), Errno::EROFS);
    assert_eq!(guest.fails(16, &[path("/srv/data/file"), 5, 5]), Errno::EROFS);
    assert_eq!(guest.fails(34, &[path("/srv/data/file"), 0]), Errno::EROFS);
    assert_eq!(guest.fails(420, &[path("/srv/data/file"), 0]), Errno::EROFS);
    assert_eq!(guest.fails(9, &[path("/srv/data/file"), path("/tmp/link")]), Errno::EROFS);
    assert_eq!(guest.fails(57, &[path("file"), path("/srv/data/link")]), Errno::EROFS);
    guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    assert_eq!(guest.fails(128, &[path("/tmp/file"), path("/srv/data/new")]), Errno::EROFS);
    assert_eq!(guest.fails(128, &[path("/srv/data"), path("/tmp/data")]), Errno::EROFS);
    // Reading leaves the times, and files outside of the mount can be changed.
    assert_eq!(stat(&guest, "/srv/data/file"), file);
    assert_eq!(guest.call(136, &[path("/srv/own"), 0o755]), Ok(0));
}

#[test]
fn a_single_file_has_a_name_of_the_kernels_choice_and_a_copy_may_be_written() {
    let dir = tree();
    let file = dir.path().join("file");
    let kernel = kernel();
    let mounts = [mount("/etc/motd", &file, false), mount("//work/", dir.path(), true)];
    kernel.etfs(&mounts).unwrap();
    let guest = Guest::new(&kernel);
    assert_eq!(read(&guest, "/etc/motd").unwrap(), b"of the host");
    assert_eq!(guest.open("/etc/motd", o::RDWR), Err(Errno::EROFS));
    assert_eq!(guest.fails(10, &[guest.string("/etc/motd")]), Errno::EROFS);
    let fd = guest.open("/work/file", o::RDWR).unwrap();
    assert_eq!(guest.write(fd, b"by"), Ok(2));
    assert_eq!(read(&guest, "/work/file").unwrap(), b"by the host");
    assert_eq!(guest.call(10, &[guest.string("/work/sub/deep")]), Ok(0));
    assert_eq!(fs::read(&file).unwrap(), b"of the host");
}

#[test]
fn there_is_no_way_out_and_what_is_special_stays_outside() {
    let (dir, secret) = (tree(), tempfile::tempdir().unwrap());
    fs::write(secret.path().join("secret"), "secret").unwrap();
    symlink(secret.path(), dir.path().join("out")).unwrap();
    symlink("/etc/passwd", dir.path().join("passwd")).unwrap();
    symlink("../file", dir.path().join("sub/up")).unwrap();
    symlink("../../../../tmp/own", dir.path().join("tmp")).unwrap();
    symlink("x".repeat(1500), dir.path().join("long")).unwrap();
    let fifo = std::ffi::CString::new(dir.path().join("fifo").to_str().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let kernel = kernel();
    kernel.etfs(&[mount("/data", dir.path(), false)]).unwrap();
    let guest = Guest::new(&kernel);
    for path in ["/data/out/secret", "/data/passwd", "/data/fifo", "/data/long"] {
        assert_eq!(read(&guest, path), Err(Errno::ENOENT), "{path}");
    }
    assert_eq!(read(&guest, "/data/../../../data/file").unwrap(), b"of the host");
    assert_eq!(stat(&guest, "/data/.."), stat(&guest, "/"));
    // A link is copied as it is, and leads to that path in the kernel.
    let target = secret.path().to_str().unwrap();
    let args = [guest.string("/data/out"), guest.buffer(), 1000];
    assert_eq!(guest.call(58, &args), Ok(target.len() as i64));
    assert_eq!(guest.get(guest.buffer(), target.len()), target.as_bytes());
    assert_eq!(read(&guest, "/data/sub/up").unwrap(), b"of the host");
    let fd = guest.open("/tmp/own", o::RDWR | o::CREAT).unwrap();
    guest.write(fd, b"of the client").unwrap();
    assert_eq!(read(&guest, "/data/tmp").unwrap(), b"of the client");
    guest.call(136, &[guest.string("/etc"), 0o755]).unwrap();
    assert_eq!(read(&guest, "/data/passwd"), Err(Errno::ENOENT));
    // The path of a mount itself may lead through a link, as the person who starts the server has chosen
    // it.
    symlink(dir.path(), secret.path().join("link")).unwrap();
    kernel.etfs(&[mount("/linked", &secret.path().join("link"), false)]).unwrap();
    assert_eq!(read(&guest, "/linked/file").unwrap(), b"of the host");
    assert!(matches!(
        why(&kernel, &[mount("/null", Path::new("/dev/null"), false)]).0,
        Why::Special
    ));
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let dir = tree();
    let kernel = kernel();
    let long = format!("/{}", "n".repeat(256));
    for bad in ["/", "//", "data", "", "/a/../b", "/.", "/a\0b", &long] {
        let (why, text) = why(&kernel, &[mount(bad, dir.path(), false)]);
        assert!(matches!(why, Why::Key), "{bad}: {text}");
    }
    let refused = |key: &str| why(&kernel, &[mount(key, dir.path(), false)]);
    assert!(matches!(refused("/tmp").0, Why::Exists));
    assert!(matches!(refused("/dev/null/x").0, Why::NotInDirectory));
    kernel.etfs(&[mount("/data", dir.path(), false)]).unwrap();
    let (why_, text) = refused("/data");
    assert!(matches!(why_, Why::Exists));
    assert_eq!(text, "/data: is there already");
    assert!(matches!(refused("/data/sub/new").0, Why::Host(_)));
    let missing = dir.path().join("missing");
    let (_, text) = why(&kernel, &[mount("/missing", &missing, false)]);
    assert!(text.contains("missing: No such file"), "{text}");
}

#[test]
fn the_limits_of_bytes_and_inodes_hold() {
    let dir = tree();
    let limited = |bytes, inodes| {
        let limits = Limits { bytes, bytes_per_family: 1 << 16, inodes, ..Limits::default() };
        kernel_with(limits)
    };
    let data = [mount("/data", dir.path(), true)];
    // Two files, three directories, and the seven inodes that are there from the start.
    let small = limited(1 << 20, 11);
    let (reason, text) = why(&small, &data);
    assert!(matches!(reason, Why::Inodes), "{text}");
    assert!(text.contains("/sub/empty: is one more than the inodes"), "{text}");
    let (reason, text) = why(&limited(200_000, 12), &data);
    assert!(matches!(reason, Why::Bytes), "{text}");
    // A family's bound does not apply to a mount, but to its growth.
    let kernel = limited(1 << 20, 12);
    kernel.etfs(&data).unwrap();
    assert_eq!(kernel.usage().bytes, 3 * 65536 + 4096 + 512);
    let guest = Guest::new(&kernel);
    let fd = guest.open("/data/file", o::RDWR | o::APPEND).unwrap();
    assert_eq!(guest.write(fd, &[1; 60_000]), Ok(60_000));
    assert_eq!(guest.write(fd, &[1; 60_000]), Err(Errno::ENOSPC));
    guest.call(10, &[guest.string("/data/sub/deep")]).unwrap();
    assert_eq!(guest.write(fd, &[1; 60_000]), Ok(60_000));
}

#[test]
fn holes_of_the_host_are_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"here", 5 << 20).unwrap();
    let kernel = kernel();
    kernel.etfs(&[mount("/sparse", &path, false)]).unwrap();
    assert_eq!(kernel.usage().bytes, 65536);
    let guest = Guest::new(&kernel);
    assert_eq!(stat(&guest, "/sparse").5, 10 << 20);
    let fd = guest.open("/sparse", o::RDONLY).unwrap();
    guest.call(173, &[fd, guest.buffer(), 8, 0, (5 << 20) - 2]).unwrap();
    assert_eq!(guest.get(guest.buffer(), 8), b"\0\0here\0\0");
}

#[test]
fn directories_may_be_deep_but_not_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_path_buf();
    for _ in 0..600 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let kernel = kernel();
    assert!(matches!(why(&kernel, &[mount("/deep", dir.path(), false)]).0, Why::Deep));
    let within = dir.path().join(["d"; 100].join("/"));
    kernel.etfs(&[mount("/shallower", &within, false)]).unwrap();
    let guest = Guest::new(&kernel);
    let path = format!("/shallower/{}", ["d"; 500].join("/"));
    assert_eq!(stat(&guest, &path).0 & 0o170_000, 0o040_000);
}
