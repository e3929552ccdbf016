//! Tests of the sandbox. Each runs in a process of its own: this program again, told by the environment
//! to run only that test, and to enter the sandbox.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use rustix::process::{Signal, getppid, kill_process};
use seccompiler::{SeccompAction, SeccompFilter};

use super::*;
use crate::server::{Config, bind};
use rumpsp::url::Url;

const INSIDE: &str = "RUMPRING_TEST_INSIDE_SANDBOX";

/// Returns `true` if this is the process that may be confined. Otherwise starts such a process, which
/// must succeed.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some_and(|name| name == test) {
        return true;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let name = format!("cli::sandbox::tests::{test}");
    let output = Command::new(program)
        .args(["--exact", "--nocapture", "--test-threads=1", &name])
        .env(INSIDE, test)
        .env_remove("NOTIFY_SOCKET")
        .output()
        .expect("the program runs again");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("1 passed"), "the test did not run: {said}");
    false
}

#[track_caller]
fn refused<T>(what: &str, result: std::io::Result<T>) {
    let kind = result.err().map(|error| error.kind());
    assert_eq!(kind, Some(std::io::ErrorKind::PermissionDenied), "{what}");
}

fn bound(dir: &tempfile::TempDir) -> Bound {
    bind(&Config::new(Url::Unix(dir.path().join("s")))).expect("a socket")
}

#[test]
fn landlock_alone_leaves_no_files_and_no_network() {
    if !is_inside("landlock_alone_leaves_no_files_and_no_network") {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (inside, outside) = (dir.path().join("file"), other.path().join("file"));
    fs::write(&inside, "1").unwrap();
    fs::write(&outside, "1").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = bound(&dir);
    let program = Command::new("/bin/true").spawn().and_then(|mut child| child.wait());
    assert!(program.is_ok(), "a program runs before");
    landlock::confine(bound.url.path()).expect("this system has Landlock");
    refused("reading a file", File::open(&inside));
    refused("reading the system's files", File::open("/etc/passwd"));
    refused("reading about processes", File::open("/proc/self/status"));
    refused("making a file", fs::write(dir.path().join("new"), "1"));
    refused("removing a file elsewhere", fs::remove_file(&outside));
    refused("making a directory", fs::create_dir(dir.path().join("d")));
    refused("listing a directory", fs::read_dir("/"));
    refused("running a program", Command::new("/bin/true").spawn());
    refused("binding TCP", TcpListener::bind("127.0.0.1:0"));
    refused("connecting TCP", TcpStream::connect(listener.local_addr().unwrap()));
    // Threads made from here on have no more rights.
    let made = thread::spawn(move || refused("reading in a thread", File::open(&inside)));
    made.join().unwrap();
    fs::remove_file(dir.path().join("file")).expect("the socket's directory lets go of files");
    drop(bound);
    assert!(!dir.path().join("s").exists());
}

#[test]
fn seccomp_alone_leaves_no_calls_but_those_of_a_server() {
    if !is_inside("seccomp_alone_leaves_no_calls_but_those_of_a_server") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bound = bound(&dir);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (go, wait) = std::sync::mpsc::channel();
    let before = thread::spawn(move || {
        wait.recv().unwrap();
        refused("a thread from before", File::open("/etc/passwd"));
    });
    let parent = getppid().expect("the process that waits");
    seccomp::begin().expect("this system has seccomp");
    seccomp::seal().expect("all threads take the filter");
    refused("reading a file", File::open("/etc/passwd"));
    refused("making a socket", UnixListener::bind(dir.path().join("t")));
    refused("connecting", UnixStream::connect(dir.path().join("s")));
    refused("connecting TCP", TcpStream::connect(address));
    refused("becoming another program", Err::<(), _>(Command::new("/bin/true").exec()));
    refused("another process", Command::new("/bin/true").spawn());
    let signal = kill_process(parent, Signal::CONT);
    refused("a signal", signal.map_err(Into::into));
    refused("a pipe", std::io::pipe());
    let memory = memmap2::MmapMut::map_anon(4096).expect("memory");
    refused("memory to execute", memory.make_exec());
    go.send(()).unwrap();
    before.join().unwrap();
    // The calls that a server makes still work.
    thread::spawn(|| File::open("/etc/passwd")).join().unwrap().expect_err("no file, but a thread");
    let _ = vec![1_u8; 64 << 20];
    drop(bound);
    assert!(rustix::fs::lstat(dir.path().join("s")).is_err(), "the socket file is gone");
}

#[test]
fn a_system_that_has_neither_is_an_error_that_says_what_to_do() {
    if !is_inside("a_system_that_has_neither_is_an_error_that_says_what_to_do") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bound = bound(&dir);
    let hidden = [libc::SYS_landlock_create_ruleset, libc::SYS_seccomp].map(|call| (call, vec![]));
    let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(hidden.into(), SeccompAction::Allow, enosys, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
    let error = Wish { sandbox: true }.enter(&bound).map(drop).expect_err("no sandbox");
    for word in ["seccomp", "Landlock", "without --sandbox"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(Wish { sandbox: false }.enter(&bound).unwrap().is_none());
}
