//! `serve --etfs`: a client sees files of the host as they were when the server started, and nothing
//! else of the host.

mod process;

use std::fs;
use std::os::unix::fs::symlink;

use client::numbers::{O_CREAT, O_RDONLY, O_RDWR};
use client::{CallError, Client};
use process::{SOON, Server, output, rumpring};
use tempfile::TempDir;

const ENOENT: i32 = 2;
const EROFS: i32 = 30;

fn tree() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("sub")).expect("a directory in it");
    fs::write(dir.path().join("file"), vec![b'h'; 300_000]).expect("a file");
    fs::write(dir.path().join("sub/small"), "small").expect("a file");
    symlink("/etc/passwd", dir.path().join("passwd")).expect("a link out");
    dir
}

fn connect(server: &Server) -> Client {
    Client::builder().timeout(SOON).connect(server.url()).expect("a client connects")
}

fn read(client: &Client, path: &str) -> Vec<u8> {
    let fd = client.open(path, O_RDONLY, 0).unwrap_or_else(|error| panic!("{path}: {error}"));
    let bytes = client.read(fd, 1 << 20).expect("a read");
    client.close(fd).expect("a close");
    bytes
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, CallError>, errno: i32) {
    match result {
        Err(CallError::Errno(error)) if error.0 == errno => {}
        other => panic!("expected errno {errno}, got {other:?}"),
    }
}

/// Checks a client's view of a tree that is read-only as `/data` and a copy as `/work`.
fn a_look_around(server: &Server, dir: &TempDir) {
    // The host's files change, become shorter and are removed.
    fs::write(dir.path().join("file"), "cut").expect("a change");
    fs::remove_file(dir.path().join("sub/small")).expect("a removal");
    let client = connect(server);
    assert_eq!(read(&client, "/data/file"), vec![b'h'; 300_000]);
    assert_eq!(read(&client, "/data/sub/small"), b"small");
    fails(client.open("/data/file", O_RDWR, 0), EROFS);
    fails(client.open("/data/new", O_CREAT | O_RDWR, 0o644), EROFS);
    fails(client.unlink("/data/sub/small"), EROFS);
    for out in ["/data/passwd", "/data/../etc/passwd", "/data/sub/../../../etc/passwd"] {
        fails(client.open(out, O_RDONLY, 0), ENOENT);
    }
    let fd = client.open("/work/sub/small", O_RDWR, 0).expect("a file of the copy");
    assert_eq!(client.write(fd, b"large"), Ok(5));
    assert_eq!(read(&connect(server), "/work/sub/small"), b"large");
    client.unlink("/work/file").expect("a removal in the copy");
    assert_eq!(fs::read(dir.path().join("file")).expect("the host's file"), b"cut");
}

fn mounts(dir: &TempDir) -> [String; 2] {
    let host = dir.path().display();
    [format!("--etfs=/data={host}"), format!("--etfs=/work={host},copy")]
}

#[test]
fn clients_read_the_hosts_files_as_they_were() {
    let dir = tree();
    let [data, work] = mounts(&dir);
    let server = Server::start(&[&data, &work]);
    a_look_around(&server, &dir);
}

#[test]
fn a_sandboxed_server_has_them_too() {
    let dir = tree();
    let [data, work] = mounts(&dir);
    let server = Server::start(&["--sandbox", &data, &work]);
    a_look_around(&server, &dir);
}

/// Returns the message of a server that does not start.
fn refusal(args: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("s");
    let url = format!("unix://{}", socket.display());
    let ended = output(rumpring().arg("serve").args(args).arg(url), SOON);
    assert!(!ended.status.success(), "{args:?} was taken");
    assert!(!socket.exists(), "the socket file is left");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn what_cannot_be_there_is_an_error_that_says_what_to_do() {
    let dir = tree();
    let host = dir.path().display();
    let data = format!("--etfs=/data={host}");
    for (args, words) in [
        (&["--bytes-in-all", "100k", &data][..], ["/file: ", "raise --bytes-in-all"]),
        (&["--inodes", "9", &data], ["one more than the inodes", "raise --inodes"]),
        (&[&data, &data], ["/data: is there already", "another key"]),
        (&["--etfs=/data=/nowhere/at/all"], ["/nowhere/at/all: No such file", "--etfs"]),
        (&["--etfs=/null=/dev/null"], ["/dev/null: is neither", "--etfs"]),
        (&["--etfs=data=/"], ["--etfs", "does not begin with /"]),
        (
            &["--kernel", "librump", &data],
            ["--etfs says nothing to NetBSD's own kernel", "rump_server -d"],
        ),
    ] {
        let said = refusal(args);
        for word in words {
            assert!(said.contains(word), "{args:?} says {said}");
        }
    }
}
