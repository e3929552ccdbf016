//! Servers with `--sandbox` and `--user`, as processes whose privileges `/proc` shows.

mod process;

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;

use client::Client;
use client::numbers::{O_CREAT, O_RDWR};
use kernel::sys::READ;
use nix::unistd::User;
use process::{SOON, Server, output, rumpring, say, wait};
use rumpsp::url::Url;
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

/// The number of clients at once: more than the workers of any machine that runs tests.
const MANY: usize = 200;

fn connect(url: &Url) -> Client {
    Client::builder().timeout(SOON).connect(url).expect("a client connects")
}

/// Returns the status of each thread of a server. A thread may end meanwhile.
fn threads(server: &Server) -> Vec<String> {
    let tasks = format!("/proc/{}/task", server.pid());
    let tasks = fs::read_dir(tasks).expect("the server's threads");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let all: Vec<String> = tasks.flatten().filter_map(status).collect();
    assert!(!all.is_empty(), "the server has a thread");
    all
}

/// Returns the words of one line of a status.
fn value<'s>(status: &'s str, name: &str) -> Option<Vec<&'s str>> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().collect())
}

/// Asserts that every thread has this line in its status.
#[track_caller]
fn all_threads_say(server: &Server, name: &str, words: &str) {
    let words: Vec<&str> = words.split_whitespace().collect();
    for status in threads(server) {
        assert_eq!(value(&status, name).as_ref(), Some(&words), "{name} in {status}");
    }
}

/// Has a client do a bit of everything, with a file of this name.
fn a_life(url: &Url, file: &str) {
    let client = connect(url);
    let pid = client.getpid().expect("a pid");
    let fd = client.open(file, O_CREAT | O_RDWR, 0o644).expect("a file");
    let bytes = vec![7; 300_000];
    assert_eq!(client.write(fd, &bytes), Ok(bytes.len()));
    assert_eq!(client.pread(fd, bytes.len(), 0), Ok(bytes));
    let [reader, writer] = client.pipe().expect("a pipe");

    // A call that blocks, and a child that ends it.
    let buffer = client.space().alloc(8).expect("memory");
    let pending = client.begin(READ, &[reader as u64, buffer, 8]);
    let child = client.prefork().expect("a prefork").connect().expect("a child");
    assert_ne!(child.getpid(), Ok(pid));
    assert_eq!(child.write(writer, b"wake"), Ok(4));
    assert_eq!(pending.finish(), Ok([4, 0]));
    child.exec("other").expect("an exec");
    assert!(child.getpid().is_ok());

    client.unlink(file).expect("it goes");
    assert!(client.stat(file).is_err(), "it is gone");
    client.socket(1, 1, 0).expect("a socket");
    let random = client.sysctl(&[1, 81], 32, None).expect("random bytes");
    assert_eq!(random.len(), 32);
}

/// Has many clients sleep in a call, others work beside them, and then wakes them all: as many threads
/// as a server ever makes.
fn a_crowd(url: &Url) {
    let clients: Vec<Client> = (0..MANY).map(|_| connect(url)).collect();
    let asleep: Vec<_> = clients
        .iter()
        .map(|client| {
            let [reader, writer] = client.pipe().expect("a pipe");
            let buffer = client.space().alloc(1).expect("memory");
            (client, writer, client.begin(READ, &[reader as u64, buffer, 1]))
        })
        .collect();
    thread::scope(|scope| {
        for who in 0..4 {
            scope.spawn(move || (0..5).for_each(|_| a_life(url, &format!("/tmp/{who}"))));
        }
    });
    for (client, writer, pending) in asleep {
        assert_eq!(client.write(writer, b"x"), Ok(1));
        assert_eq!(pending.finish(), Ok([1, 0]));
    }
}

/// Ends the server by SIGTERM; it must have printed only that it listens, and these words.
#[track_caller]
fn ends_well(mut server: Server, and: &[&str]) {
    server.until(SOON, "nobody", |counters| counters.is_deserted());
    assert_eq!(server.counters().get("panics"), 0.0);
    server.signal(Signal::TERM);
    let status = server.ended_within(SOON, "SIGTERM");
    let said = server.last_words();
    assert!(status.success(), "{status}: {said:?}");
    assert_eq!(said.len(), 1 + and.len(), "{said:?}");
    for word in and {
        assert!(said.iter().any(|line| line.contains(word)), "expected {word:?} in {said:?}");
    }
}

#[test]
fn a_sandboxed_server_serves_all_there_is_and_goes_away_tidily() {
    for start in [Server::start, Server::start_tcp] {
        let server = start(&["--sandbox"]);
        // A client that is answered finds the sandbox closed: no client is served before.
        a_life(server.url(), "/tmp/first");
        all_threads_say(&server, "Seccomp:", "2");
        a_crowd(server.url());
        assert!(server.threads() >= 3, "there are workers and a thread for signals");
        all_threads_say(&server, "Seccomp:", "2");
        all_threads_say(&server, "NoNewPrivs:", "1");
        let socket = server.url().path().map(|path| path.to_path_buf());
        ends_well(server, &[]);
        assert!(socket.is_none_or(|socket| !socket.exists()), "the socket file is gone");
    }
}

#[test]
fn a_sandbox_adds_two_filters_and_without_one_there_is_none() {
    // The process that runs the tests may have filters of its own.
    let own = fs::read_to_string("/proc/self/status").expect("this process's status");
    let filters = value(&own, "Seccomp_filters:").and_then(|count| count[0].parse::<u32>().ok());
    let Some(filters) = filters else { return say("SKIPPED: this Linux counts no filters") };
    for (args, more) in [(&[][..], 0), (&["--sandbox"], 2)] {
        let server = Server::start(args);
        a_life(server.url(), "/tmp/file");
        all_threads_say(&server, "Seccomp_filters:", &(filters + more).to_string());
    }
}

#[test]
fn a_client_s_halt_ends_a_sandboxed_server() {
    let mut server = Server::start(&["--sandbox"]);
    connect(server.url()).halt().expect("a halt");
    let status = server.ended_within(SOON, "a client's halt");
    assert!(status.success(), "{status}: {:?}", server.last_words());
    assert!(!server.socket().exists(), "the socket file is gone");
}

#[test]
fn whoever_waits_hears_that_a_sandboxed_server_is_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let name = dir.path().join("notify");
    let socket = UnixDatagram::bind(&name).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut command = rumpring();
    command.env("NOTIFY_SOCKET", &name);
    let own = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", own.path().join("s").display());
    let server = Server::run(command, own, &url, &["--sandbox"]);
    let mut message = [0; 64];
    let len = socket.recv(&mut message).expect("READY=1 at NOTIFY_SOCKET");
    assert!(message[..len].starts_with(b"READY=1"), "{:?}", &message[..len]);
    ends_well(server, &[]);
}

#[test]
fn librump_has_no_sandbox_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let args = ["serve", "--kernel", "librump", "--sandbox", &url];
    let said = output(rumpring().args(args), SOON);
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--sandbox says nothing to NetBSD's own kernel"), "{stderr}");
}

/// Returns the user nobody, and a directory for a socket; prints that it is skipped if this is not
/// root.
fn nobody_and_a_directory() -> Option<(User, TempDir)> {
    if !geteuid().is_root() {
        say("SKIPPED: only root can become somebody else");
        return None;
    }
    let nobody = User::from_name("nobody").expect("a list of users").expect("nobody in it");
    Some((nobody, tempfile::tempdir().expect("a directory")))
}

fn start_in(dir: TempDir, args: &[&str]) -> Server {
    let url = format!("unix://{}", dir.path().join("s").display());
    Server::run(rumpring(), dir, &url, args)
}

/// Asserts that all of its threads are this user's, without a privilege.
#[track_caller]
fn is_unprivileged(server: &Server, uid: u32, gid: u32, groups: &str) {
    all_threads_say(server, "Uid:", &format!("{uid} {uid} {uid} {uid}"));
    all_threads_say(server, "Gid:", &format!("{gid} {gid} {gid} {gid}"));
    all_threads_say(server, "Groups:", groups);
    for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
        all_threads_say(server, set, "0000000000000000");
    }
    all_threads_say(server, "NoNewPrivs:", "1");
}

#[test]
fn a_server_becomes_the_user_it_is_told_to_be() {
    let Some((nobody, dir)) = nobody_and_a_directory() else { return };
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    chown(dir.path(), Some(uid), None).expect("a directory for the user");
    let server = start_in(dir, &["--user", "nobody"]);
    a_crowd(server.url());
    is_unprivileged(&server, uid, gid, &gid.to_string());
    let socket = server.socket();
    ends_well(server, &[]);
    assert!(!socket.exists(), "the socket file is gone");
}

#[test]
fn a_group_that_is_told_is_the_only_one_and_a_sandbox_goes_with_it() {
    let Some((nobody, dir)) = nobody_and_a_directory() else { return };
    let uid = nobody.uid.as_raw();
    chown(dir.path(), Some(uid), None).expect("a directory for the user");
    let server = start_in(dir, &["--user", "nobody:4321", "--sandbox"]);
    a_crowd(server.url());
    is_unprivileged(&server, uid, 4321, "4321");
    all_threads_say(&server, "Seccomp:", "2");
    let socket = server.socket();
    ends_well(server, &[]);
    assert!(!socket.exists(), "the socket file is gone");
}

#[test]
fn a_socket_file_that_will_stay_is_told_of_and_replaced_by_the_next() {
    let Some((_, dir)) = nobody_and_a_directory() else { return };
    let kept = dir.path().join("s");
    // The test's copy of the directory lasts longer than the server's.
    let url = format!("unix://{}", kept.display());
    for more in [&[][..], &["--sandbox"]] {
        let own = tempfile::tempdir().expect("a directory");
        let args = [&["--user", "54321:4321"], more].concat();
        let server = Server::run(rumpring(), own, &url, &args);
        a_life(server.url(), "/tmp/file");
        is_unprivileged(&server, 54321, 4321, "4321");
        ends_well(server, &["it will stay when the server ends", "cannot remove"]);
        assert!(kept.exists(), "nobody could remove it");
    }
}

#[test]
fn who_cannot_be_become_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    for (user, word) in [("no-such-user", "id(1)"), ("root", "no less than now")] {
        let said = output(rumpring().args(["serve", "--user", user, &url]), SOON);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(user) && stderr.contains(word), "{stderr}");
        assert!(!dir.path().join("s").exists(), "the socket file went with the error");
    }
}

#[test]
fn who_is_not_root_cannot_become_anybody() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let mut command = rumpring();
    if let Some((nobody, _)) = nobody_and_a_directory() {
        chown(dir.path(), Some(nobody.uid.as_raw()), None).expect("a directory for the user");
        command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    }
    command.args(["serve", "--user", "nobody", &url]).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        // The program may lie where no other user may go.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return say("SKIPPED: the program may not be run by others than root");
        }
        child => child.expect("the program starts"),
    };
    let status = wait(&mut child, SOON);
    let _ = child.kill();
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("what it said");
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{stderr}");
    assert!(stderr.contains("only root can become somebody else"), "{stderr}");
}
