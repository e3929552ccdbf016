//! Faults that are known to bring NetBSD's own kernel down: the server refuses them, and goes on
//! serving. With `--netbsd-faults allow` they do bring it down, or there would be nothing to refuse.
//!
//! RUMP_PREFIX names the directory of a rump kernel. Without it these tests say that they are skipped.

mod process;

use std::time::{Duration, Instant};

use client::numbers::{O_CREAT, O_RDWR, sys};
use client::{CallError, Client};
use kernel::sys::{FCNTL, KEVENT, KQUEUE, SETITIMER, SOCKETPAIR, WRITE};
use process::{SOON, Server};
use rumpring::librump::load;

const EBADF: i32 = 9;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 45;

/// Starts a server of the real kernel; returns `None` if the test is skipped.
fn serve(name: &str, args: &[&str]) -> Option<Server> {
    if load::prefix_from_env().is_none() {
        process::say(&format!("{name}: skipped: RUMP_PREFIX says where no rump kernel is"));
        return None;
    }
    let libraries = ["-lrumpvfs", "-lrumpnet", "-lrumpnet_local"];
    Some(Server::start(&[&["--kernel", "librump"], &libraries[..], args].concat()))
}

fn client(server: &Server) -> Client {
    Client::builder().timeout(SOON).connect(server.url()).expect("a client connects")
}

fn errno<T: std::fmt::Debug>(result: Result<T, CallError>) -> i32 {
    match result {
        Err(CallError::Errno(errno)) => errno.0,
        other => panic!("expected an errno, got {other:?}"),
    }
}

/// Returns a `struct kevent` that watches a process for its exit, or a descriptor for bytes.
fn event(ident: u64, filter: u32, fflags: u32) -> Vec<u8> {
    const EV_ADD: u32 = 1;
    let mut bytes = ident.to_le_bytes().to_vec();
    for word in [filter, EV_ADD, fflags, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(40, 0);
    bytes
}

/// Watches a child for its end, and ends it.
fn watch_a_child(client: &Client) -> Result<(), CallError> {
    const EVFILT_PROC: u32 = 4;
    const NOTE_EXIT: u32 = 0x8000_0000;
    let child = Client::fork(&client.prefork()?).expect("a child");
    let [kqueue, _] = client.call(KQUEUE, &[])?;
    let pid = child.getpid().expect("a pid");
    let change = client.space().buffer_from(&event(pid as u64, EVFILT_PROC, NOTE_EXIT)).unwrap();
    client.call(KEVENT, &[kqueue as u64, change.addr(), 1, 0, 0, 0])?;
    drop(child);
    Ok(())
}

/// Arms a timer of kind `which`.
fn arm_a_timer(client: &Client, which: u64) -> Result<[i64; 2], CallError> {
    let times: Vec<u8> = [0i64, 1000, 0, 1000].iter().flat_map(|each| each.to_le_bytes()).collect();
    let times = client.space().buffer_from(&times).unwrap();
    client.call(SETITIMER, &[which, times.addr(), 0])
}

/// Waits until the server has ended, and not with success.
fn goes_down(mut server: Server) {
    let status = server.ended_within(SOON, "a fault of the kernel");
    assert!(!status.success(), "{status}");
}

fn still_serves(mut server: Server) {
    let stranger = client(&server);
    stranger.getpid().expect("it serves");
    assert!(server.is_running());
}

#[test]
fn a_watch_on_a_process_is_refused() {
    let Some(server) = serve("a_watch_on_a_process_is_refused", &[]) else { return };
    let watcher = client(&server);
    assert_eq!(errno(watch_a_child(&watcher)), EINVAL);
    // Other changes in the same call are taken: the errno comes with the change that is refused.
    let [kqueue, _] = watcher.call(KQUEUE, &[]).unwrap();
    let [reader, writer] = watcher.pipe().unwrap();
    let changes = [event(1, 4, 0), event(reader as u64, 0, 0)].concat();
    let changes = watcher.space().buffer_from(&changes).unwrap();
    let events = watcher.space().buffer(80).unwrap();
    let kevent = |changes: u64, number: u64| {
        watcher.call(KEVENT, &[kqueue as u64, changes, number, events.addr(), 2, 0])
    };
    assert_eq!(kevent(changes.addr(), 2).unwrap()[0], 1);
    assert_eq!(events.bytes(32)[24..32], (EINVAL as i64).to_le_bytes());
    watcher.write(writer, b"x").unwrap();
    assert_eq!(kevent(0, 0).unwrap()[0], 1, "the pipe is watched");
    drop((changes, events));
    drop(watcher);
    still_serves(server);
}

#[test]
fn a_watch_on_a_process_brings_the_kernel_down() {
    let name = "a_watch_on_a_process_brings_the_kernel_down";
    let Some(server) = serve(name, &["--netbsd-faults", "allow"]) else { return };
    let watcher = client(&server);
    watch_a_child(&watcher).expect("it is let through");
    // The child's process goes soon after its client, then its watcher's.
    std::thread::sleep(Duration::from_millis(200));
    drop(watcher);
    goes_down(server);
}

/// Has kqueues watch each other in a circle, or one itself, and makes something happen.
fn watch_in_a_circle(client: &Client, length: usize) -> Result<(), CallError> {
    const EVFILT_READ: u32 = 0;
    let watch = |kqueue: i64, fd: i64| {
        let change = client.space().buffer_from(&event(fd as u64, EVFILT_READ, 0)).unwrap();
        client.call(KEVENT, &[kqueue as u64, change.addr(), 1, 0, 0, 0]).map(drop)
    };
    let kqueues: Vec<i64> =
        (0..length).map(|_| client.call(KQUEUE, &[]).expect("a kqueue")[0]).collect();
    for (at, &kqueue) in kqueues.iter().enumerate() {
        watch(kqueue, kqueues[(at + 1) % length])?;
    }
    let [reader, writer] = client.pipe()?;
    watch(kqueues[0], reader.into())?;
    client.write(writer, b"x").map(drop)
}

#[test]
fn a_kqueue_that_watches_a_kqueue_is_refused() {
    let Some(server) = serve("a_kqueue_that_watches_a_kqueue_is_refused", &[]) else { return };
    let watcher = client(&server);
    for length in [1, 2] {
        assert_eq!(errno(watch_in_a_circle(&watcher, length)), EBADF);
    }
    // One thread of the client watches a descriptor under which another thread opens a kqueue now and
    // then.
    let [kqueue, _] = watcher.call(KQUEUE, &[]).unwrap();
    let shared = watcher.call(KQUEUE, &[]).unwrap()[0];
    let change = watcher.space().buffer_from(&event(shared as u64, 0, 0)).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..1000 {
                watcher.call(sys::CLOSE, &[shared as u64]).expect("close");
                assert_eq!(watcher.call(KQUEUE, &[]).expect("a kqueue")[0], shared);
            }
        });
        for _ in 0..2000 {
            let watched = watcher.call(KEVENT, &[kqueue as u64, change.addr(), 1, 0, 0, 0]);
            assert_eq!(errno(watched), EBADF);
        }
    });
    drop(change);
    drop(watcher);
    still_serves(server);
}

#[test]
fn a_kqueue_that_watches_itself_brings_the_kernel_down() {
    let name = "a_kqueue_that_watches_itself_brings_the_kernel_down";
    let Some(server) = serve(name, &["--netbsd-faults", "allow"]) else { return };
    let watcher = client(&server);
    let _ = watch_in_a_circle(&watcher, 1);
    goes_down(server);
}

#[test]
fn a_monotonic_interval_timer_is_refused() {
    let Some(server) = serve("a_monotonic_interval_timer_is_refused", &[]) else { return };
    let timed = client(&server);
    assert_eq!(errno(arm_a_timer(&timed, 3)), EOPNOTSUPP);
    arm_a_timer(&timed, 1).expect("another kind");
    drop(timed);
    still_serves(server);
}

#[test]
fn a_monotonic_interval_timer_brings_the_kernel_down() {
    let name = "a_monotonic_interval_timer_brings_the_kernel_down";
    let Some(server) = serve(name, &["--netbsd-faults", "allow"]) else { return };
    let timed = client(&server);
    let _ = arm_a_timer(&timed, 3);
    let end = Instant::now() + SOON;
    while timed.getpid().is_ok() && Instant::now() < end {}
    goes_down(server);
}

/// Locks the vnode of a file for ever.
fn lock_a_file(client: &Client) -> Result<[i64; 2], CallError> {
    use kernel::sys::EXTATTRCTL;
    let file = client.open("/file", O_CREAT | O_RDWR, 0o600).expect("a file");
    client.call(sys::CLOSE, &[file as u64]).expect("close");
    let root = client.space().buffer_str("/").unwrap();
    let path = client.space().buffer_str("/file").unwrap();
    client.call(EXTATTRCTL, &[root.addr(), 0, path.addr(), 1, 0])
}

#[test]
fn a_file_for_extattrctl_is_refused() {
    let Some(server) = serve("a_file_for_extattrctl_is_refused", &[]) else { return };
    let locker = client(&server);
    assert_eq!(errno(lock_a_file(&locker)), EOPNOTSUPP);
    for each in [&locker, &client(&server)] {
        each.open("/file", O_RDWR, 0).expect("it can be looked up");
    }
    drop(locker);
    still_serves(server);
}

#[test]
fn a_file_for_extattrctl_is_locked_for_ever() {
    let name = "a_file_for_extattrctl_is_locked_for_ever";
    let Some(mut server) = serve(name, &["--netbsd-faults", "allow"]) else { return };
    let locker = client(&server);
    assert_eq!(errno(lock_a_file(&locker)), EOPNOTSUPP, "the kernel's own answer");
    let stranger = Client::builder().timeout(Duration::from_secs(2)).connect(server.url()).unwrap();
    let opened = stranger.open("/file", O_RDWR, 0);
    assert!(opened.is_err() || !server.is_running(), "no lookup comes back");
}

/// Sends SIGIO to init, from a socket whose owner init was made. Raised in the server it would end the
/// server.
#[test]
fn a_signal_for_init_reaches_nobody() {
    const F_SETFL: u64 = 4;
    const F_SETOWN: u64 = 6;
    const O_ASYNC: u64 = 0x40;
    let Some(server) = serve("a_signal_for_init_reaches_nobody", &[]) else { return };
    let sender = client(&server);
    let pair = sender.space().buffer(8).unwrap();
    sender.call(SOCKETPAIR, &[1, 1, 0, pair.addr()]).expect("a pair of sockets");
    let fds = pair.bytes(8);
    let [one, other] = [&fds[..4], &fds[4..]]
        .map(|fd| u64::from(u32::from_le_bytes(fd.try_into().expect("four bytes"))));
    sender.call(FCNTL, &[one, F_SETOWN, 1]).expect("init owns it");
    sender.call(FCNTL, &[one, F_SETFL, O_ASYNC]).expect("its owner is told");
    let byte = sender.space().buffer_from(b"x").unwrap();
    sender.call(WRITE, &[other, byte.addr(), 1]).expect("a byte");
    sender.getpid().expect("it serves on");
    drop((byte, pair));
    drop(sender);
    still_serves(server);
}

/// Writes a multiple of 4 GiB to the console, which takes it for nothing, again and again: a call that
/// never ends, and keeps its CPU. There are more CPUs than such calls here, so that the test can fail:
/// other clients are answered.
#[test]
fn a_long_write_to_the_console_ends() {
    const STDOUT: u64 = 1;
    use kernel::sys::WRITEV;
    let Some(server) = serve("a_long_write_to_the_console_ends", &[]) else { return };
    let writer = client(&server);
    let nowhere = 16;
    assert_eq!(errno(writer.call(WRITE, &[STDOUT, nowhere, 1 << 32])), EFAULT);
    let iovecs: Vec<u8> =
        [nowhere, 0, nowhere, 1 << 32].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    let iovecs = writer.space().buffer_from(&iovecs).unwrap();
    assert_eq!(errno(writer.call(WRITEV, &[STDOUT, iovecs.addr(), 2])), EFAULT);
    drop(iovecs);
    drop(writer);
    still_serves(server);
}
