//! The embedded kernel's limits as options: each limit as a client sees it.

mod process;

use std::thread;
use std::time::{Duration, Instant};

use client::numbers::{O_CREAT, O_RDWR};
use client::{CallError, Client, ConnectError};
use process::{SOON, Server, output, rumpring};
use rumpsp::wire::ErrorCode;

const ENOMEM: i32 = 12;
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOSPC: i32 = 28;

/// `kern.maxproc` and `kern.maxfiles`.
const MAXPROC: [i32; 2] = [1, 6];
const MAXFILES: [i32; 2] = [1, 7];

fn start(line: &str) -> Server {
    let args: Vec<&str> = line.split_whitespace().collect();
    Server::start(&args)
}

fn try_connect(server: &Server) -> Result<Client, ConnectError> {
    Client::builder().timeout(SOON).connect(server.url())
}

fn connect(server: &Server) -> Client {
    try_connect(server).expect("a client connects")
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, CallError>, errno: i32) {
    match result {
        Err(CallError::Errno(error)) if error.0 == errno => {}
        other => panic!("expected errno {errno}, got {other:?}"),
    }
}

#[test]
fn open_files() {
    let server = start("--files 5 --files-in-all 3 --files-of-family 3");
    let (one, other) = (connect(&server), connect(&server));
    assert_eq!(one.sysctl_int(&MAXFILES), Ok(3));
    // Each client has the console as a file.
    assert_eq!(one.dup(0), Ok(3));
    assert_eq!(one.dup(0), Ok(4));
    fails(one.dup(0), EMFILE);
    one.close(4).expect("a close");
    assert_eq!(one.open("/dev/null", O_RDWR, 0), Ok(4));
    // Both consoles and one file are all that is allowed.
    fails(other.open("/dev/null", O_RDWR, 0), ENFILE);
    one.close(4).expect("a close");
    assert_eq!(other.open("/dev/null", O_RDWR, 0), Ok(3));
}

#[test]
fn one_family_leaves_open_files_to_others() {
    let server = start("--files-in-all 400");
    let mut family = vec![connect(&server)];
    let mut opened = 1;
    for _ in 0..4 {
        let parent = family.last().expect("one");
        let child = parent.prefork().map(|token| token.connect()).expect("a child");
        family.push(child.expect("a child"));
        let child = family.last().expect("a child");
        opened += (0..60).take_while(|_| child.open("/dev/null", O_RDWR, 0).is_ok()).count();
    }
    assert_eq!(opened, 100, "a quarter of all");
    let stranger = connect(&server);
    assert_eq!(stranger.open("/dev/null", O_RDWR, 0), Ok(3));
}

#[test]
fn processes() {
    let mut server = start("--processes 2 --processes-in-all 3");
    let client = connect(&server);
    assert_eq!(client.sysctl_int(&MAXPROC), Ok(3));
    let token = client.prefork().expect("the second process");
    let refused = client.prefork().map(drop);
    assert_eq!(refused, Err(CallError::Refused(ErrorCode::RforkFailed)), "the family is full");
    let child = token.connect().expect("a token that was given is good");
    let stranger = connect(&server);
    assert_eq!(stranger.prefork().map(drop), Err(CallError::Refused(ErrorCode::RforkFailed)));
    let error = try_connect(&server).map(drop).expect_err("the kernel is full");
    assert!(error.to_string().contains("RforkFailed"), "{error}");
    drop(child);
    server.until(SOON, "two clients", |counters| counters.get("connections") == 2.0);
    // The process is released after its connection has closed.
    let end = Instant::now() + SOON;
    while let Err(error) = client.prefork() {
        assert!(Instant::now() < end, "there is no room again: {error}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn bytes_and_inodes() {
    let server = start("--bytes 64k --bytes-in-all 128k --inodes 30 --inodes-of-family 30");
    let client = connect(&server);
    let fd = client.open("/tmp/file", O_CREAT | O_RDWR, 0o644).expect("a file");
    assert_eq!(client.write(fd, &[1; 64 << 10]), Ok(64 << 10));
    fails(client.write(fd, &[1]), ENOSPC);
    fails(client.pipe(), ENOMEM);
    let other = connect(&server);
    let own = other.open("/tmp/other", O_CREAT | O_RDWR, 0o644).expect("a file");
    assert_eq!(other.write(own, &[1; 32 << 10]), Ok(32 << 10));
    // The last quarter is for clients that have little.
    fails(other.write(own, &[1; 1024]), ENOSPC);
    let third = connect(&server);
    fails(third.pipe(), ENOMEM);
    client.ftruncate(fd, 0).expect("it is cut off");
    third.pipe().expect("a pipe");
    let made = (0..30).take_while(|n| client.mkdir(&format!("/tmp/{n}"), 0o755).is_ok()).count();
    assert!((1..30).contains(&made), "{made} directories");
    fails(client.mkdir("/tmp/more", 0o755), ENOSPC);
    client.unlink("/tmp/other").expect("a file less");
    // The file is gone once it is closed.
    fails(client.mkdir("/tmp/more", 0o755), ENOSPC);
    other.close(own).expect("a close");
    client.mkdir("/tmp/more", 0o755).expect("there is room again");
}

#[test]
fn librump_has_limits_of_its_own() {
    let args = ["serve", "--kernel", "librump", "--files", "9", "unix:///nowhere/at/all"];
    let said = output(rumpring().args(args), SOON);
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--files says nothing to NetBSD's own kernel"), "{stderr}");
}
