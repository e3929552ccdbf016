//! NetBSD's own kernel while calls keep all of its CPUs, and the users of a process's lwps meanwhile.
//!
//! RUMP_PREFIX names the directory of a rump kernel. Without it these tests say that they are skipped.

mod process;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use client::Client;
use client::numbers::{O_CREAT, O_RDWR, sys};
use client::raw::RawConnection;
use kernel::sys::{FTRUNCATE, GETUID, SETUID};
use process::{SOON, Server, rumpring};
use rumpring::librump::load;

/// Starts a server of the real kernel with `ncpu` CPUs; returns `None` if the test is skipped.
fn serve(name: &str, ncpu: &str) -> Option<Server> {
    if load::prefix_from_env().is_none() {
        process::say(&format!("{name}: skipped: RUMP_PREFIX says where no rump kernel is"));
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory for the socket");
    let url = format!("unix://{}", dir.path().join("s").display());
    let mut command = rumpring();
    command.env("RUMP_NCPU", ncpu);
    Some(Server::run(command, dir, &url, &["--kernel", "librump", "-lrumpvfs"]))
}

fn client(server: &Server) -> Client {
    Client::builder().timeout(SOON).connect(server.url()).expect("a client connects")
}

/// Has calls that would be run at once find no CPU, thousands of times, while newcomers are served. The
/// CPUs work as before afterwards.
#[test]
fn who_finds_no_cpu_leaves_no_trace() {
    for ncpu in ["1", "2"] {
        let Some(server) = serve("who_finds_no_cpu_leaves_no_trace", ncpu) else { return };
        let (asker, is_over) = (client(&server), AtomicBool::new(false));
        thread::scope(|scope| {
            for number in 0..2 {
                let (holder, is_over) = (client(&server), &is_over);
                scope.spawn(move || {
                    let file = holder.open(&format!("/{number}"), O_CREAT | O_RDWR, 0o600).unwrap();
                    while !is_over.load(Relaxed) {
                        for len in [32 << 20, 0] {
                            holder.call(FTRUNCATE, &[file as u64, 0, len]).expect("ftruncate");
                        }
                    }
                });
            }
            let pid = i64::from(asker.getpid().unwrap());
            for _ in 0..40 {
                let asked: Vec<_> = (0..50).map(|_| asker.begin(sys::GETPID, &[])).collect();
                let mut raw = RawConnection::connect(server.url()).expect("a connection");
                raw.read_banner(SOON).expect("a banner");
                for call in asked {
                    assert_eq!(call.finish().expect("a pid")[0], pid);
                }
            }
            is_over.store(true, Relaxed);
        });
        for _ in 0..100 {
            client(&server).getpid().expect("a pid");
        }
    }
}

/// A process gives up its user while another of its calls sleeps. A call that later runs on that call's
/// lwp has the new user, too.
#[test]
fn no_lwp_keeps_the_user_that_its_process_has_given_up() {
    let name = "no_lwp_keeps_the_user_that_its_process_has_given_up";
    let Some(mut server) = serve(name, "2") else { return };
    let parent = client(&server);
    parent.open("/secret", O_CREAT | O_RDWR, 0o600).unwrap();
    let [first, to_first] = parent.pipe().unwrap();
    let [second, to_second] = parent.pipe().unwrap();
    let child = Client::fork(&parent.prefork().unwrap()).expect("a child");
    let to = parent.space().buffer(2).unwrap();
    let begin = |fd: i32| parent.begin(sys::READ, &[fd as u64, to.addr(), 1]);
    // Each read sleeps on the lwp that is kept, and the next call runs on another, which is kept again.
    let early = begin(first);
    server.until(SOON, "a read asleep", |counters| counters.get("asleep") >= 1.0);
    parent.call(SETUID, &[100]).unwrap();
    assert_eq!(parent.call(GETUID, &[]).unwrap(), [100, 100]);
    let late = begin(second);
    server.until(SOON, "both reads asleep", |counters| counters.get("asleep") >= 2.0);
    // Now no lwp is kept, until the first read ends.
    child.write(to_first, b"x").unwrap();
    assert_eq!(early.finish(), Ok([1, 0]));
    // A call that may run on the submission thread would be given the new user there. This call is a
    // worker's.
    for _ in 0..20 {
        assert!(parent.open("/secret", O_RDWR, 0).is_err(), "it is the superuser's file");
        assert_eq!(parent.call(GETUID, &[]).unwrap(), [100, 100]);
    }
    child.write(to_second, b"x").unwrap();
    assert_eq!(late.finish(), Ok([1, 0]));
    assert_eq!(parent.call(GETUID, &[]).unwrap(), [100, 100]);
    drop(to);
}
