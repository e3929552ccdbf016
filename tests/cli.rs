//! Tests of the command line from outside: its output, its exit status, and signals to a server.

mod process;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use client::{AddressSpace, CallError, Client, Completed, Lost, Memory, Pending, Refusal};
use kernel::sys::{GETPID, NANOSLEEP, OPEN, PIPE, READ};
use process::{SOON, Server, output, rumpring};
use rumpsp::url::Url;
use rustix::process::Signal;

/// Bytes of a large copy.
const BIG: u64 = 256 << 10;

/// The exit statuses of a failure, and of a command line that could not be understood.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;

fn connect(url: &Url) -> Client {
    Client::builder().timeout(SOON).connect(url).expect("a client connects")
}

/// The output of a command, with its exit status.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

#[track_caller]
fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = output(command, SOON);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Said {
    #[track_caller]
    fn succeeds(self, stdout: &str) {
        assert_eq!(self.status, Some(0), "{self:?}");
        assert_eq!(self.stdout, stdout, "{self:?}");
        assert_eq!(self.stderr, "", "it says nothing else");
    }

    /// Asserts that the command fails with this status, with all of these words on stderr and nothing
    /// on stdout.
    #[track_caller]
    fn fails(self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?} in {self:?}");
        }
        assert_eq!(self.stdout, "", "an error is no result");
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

#[test]
fn serve_call_halt() {
    let mut server = Server::start(&[]);
    let ready = format!("listening on {}", server.url());
    assert_eq!(server.said(), [ready.as_str()], "ready is one line");
    let getpid = run(&mut server.command(["call", "getpid"]));
    assert!(getpid.stdout.starts_with("getpid = "), "{getpid:?}");
    run(&mut server.command(["halt"])).succeeds("");
    assert!(server.ended_within(SOON, "halt").success(), "a halted server has not failed");
    assert!(!server.socket().exists(), "the socket file goes with the server");
    assert_eq!(server.last_words(), [ready.as_str()], "quiet by default");
}

#[test]
fn port_0_is_told_as_what_it_became() {
    let server = Server::start_tcp(&[]);
    let url = server.url().to_string();
    assert!(url.starts_with("tcp://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    let getuid = run(rumpring().args(["call", "--server", &url, "getuid"]));
    getuid.succeeds("getuid = 0\n");
}

#[test]
fn notify_socket_is_told_that_the_server_is_ready_and_that_it_ends() {
    for (is_abstract, options) in
        [(false, &[][..]), (false, &["--sandbox"]), (true, &[]), (true, &["--sandbox"])]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let (name, address) = if is_abstract {
            let name = path.to_str().expect("a name");
            (format!("@{name}"), SocketAddr::from_abstract_name(name))
        } else {
            (path.display().to_string(), SocketAddr::from_pathname(&path))
        };
        let socket = UnixDatagram::bind_addr(&address.expect("a name")).expect("a datagram socket");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let heard = || {
            let mut message = [0; 64];
            let len = socket.recv(&mut message).expect("a message at NOTIFY_SOCKET");
            String::from_utf8(message[..len].to_vec()).expect("text")
        };
        let mut command = rumpring();
        command.env("NOTIFY_SOCKET", &name);
        let url = format!("unix://{}", dir.path().join("s").display());
        let mut server = Server::run(command, dir, &url, options);
        assert_eq!(heard(), "READY=1\n", "{name}");
        match is_abstract {
            true => server.signal(Signal::TERM),
            false => run(&mut server.command(["halt"])).succeeds(""),
        }
        assert_eq!(heard(), "STOPPING=1\n", "{name}");
        server.ended_within(SOON, "its last word");
        socket.set_nonblocking(true).expect("a socket that does not wait");
        assert!(socket.recv(&mut [0; 64]).is_err(), "that was its last word");
    }
}

#[test]
fn calls_take_numbers_strings_and_buffers() {
    let server = Server::start(&[]);
    let call = |line: &str| run(&mut server.command(words(&format!("call {line}"))));
    call("mkdir /dir 0o755").succeeds("mkdir = 0\n");
    call("open /dir/42 0x202 0o644").succeeds("open = 3\n");
    call("mkdir :42 0o700").succeeds("mkdir = 0\n");
    call("rmdir :42").succeeds("rmdir = 0\n");
    call("5 /dir/42 0").succeeds("5 = 3\n");
    call("write 1 hello 5").succeeds("write = 5\n");
    // A number below zero, and a 64-bit one.
    call("close -1").fails(FAILURE, &["close: EBADF"]);
    call("write -1 hello 0xffffffffffffffff").fails(FAILURE, &["write: EBADF"]);
    // A buffer is printed afterwards, 16 bytes a line.
    let stat = call("stat / @152");
    assert!(stat.stdout.starts_with("stat = 0\n       0  "), "{stat:?}");
    assert_eq!(stat.stdout.lines().count(), 1 + 152_usize.div_ceil(16), "{stat:?}");
    let by_own_name = call("__stat50 / @152");
    assert_eq!(by_own_name.stdout.lines().next(), Some("__stat50 = 0"));
    call("pipe").succeeds("pipe = 3, 4\n");
}

#[test]
fn a_call_that_fails_says_why_and_exits_with_1() {
    let server = Server::start(&[]);
    let call = |line: &str| run(&mut server.command(words(&format!("call {line}"))));
    call("open /none 0").fails(FAILURE, &["rumpring: open: ENOENT (2): no such file"]);
    call("nosuchcall").fails(FAILURE, &["nosuchcall", "no NetBSD system call has that name"]);
    call("ptrace").fails(FAILURE, &["ptrace: ENOSYS (78)"]);
    call("getpid 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17").fails(FAILURE, &["getpid", "at most"]);
    call("read 0 @99999999 1").fails(FAILURE, &["@99999999", "at most"]);
    call("").fails(USAGE, &["<NAME>", "--help"]);
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("none");
    for word in [&["call", "getpid"][..], &["halt"]] {
        run(rumpring().args(word)).fails(USAGE, &["RUMP_SERVER", "unix:///", "--server"]);
        let url = format!("unix://{}", path.display());
        let nobody = run(rumpring().args(word).env("RUMP_SERVER", &url));
        nobody.fails(FAILURE, &[&url, "cannot connect", "No such file", "start the server"]);
        let bad = run(rumpring().args(word).env("RUMP_SERVER", "tcp://127.0.0.1"));
        bad.fails(USAGE, &["tcp://127.0.0.1", "no port", "tcp://127.0.0.1:7000"]);
        let any = run(rumpring().args(word).env("RUMP_SERVER", "tcp://*:7000"));
        any.fails(FAILURE, &["tcp://0.0.0.0:7000", "needs the address of one server"]);
    }
    drop(UnixListener::bind(&path).expect("a socket file"));
    let url = format!("unix://{}", path.display());
    let dead = run(rumpring().args(["call", "getpid"]).env("RUMP_SERVER", &url));
    dead.fails(FAILURE, &[&url, "refused", "start the server"]);
}

#[test]
fn help_is_enough_to_learn_it_from() {
    let help = |args: &[&str]| {
        let said = run(rumpring().args(args));
        assert_eq!(said.status, Some(0), "{said:?}");
        said.stdout
    };
    let top = help(&["--help"]);
    for word in ["rumpring serve unix://", "RUMP_SERVER=unix://", "call getpid", "halt"] {
        assert!(top.contains(word), "expected {word:?} in {top}");
    }
    let serve = help(&["serve", "--help"]);
    for word in ["listening on URL", "SIGTERM", "SIGUSR1", "tcp6://", "--cpus", "--drain"] {
        assert!(serve.contains(word), "expected {word:?} in {serve}");
    }
    let call = help(&["call", "--help"]);
    for word in ["Examples:", "rumpring call open /dev/zero 0", "@N", "RUMP_SERVER"] {
        assert!(call.contains(word), "expected {word:?} in {call}");
    }
    help(&["halt", "--help"]);
    assert!(help(&["--version"]).starts_with("rumpring "));
}

#[test]
fn bad_settings_are_refused_with_their_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let serve = |line: &str| run(rumpring().arg("serve").args(words(line)).arg(&url));
    serve("--cpus 4095").fails(FAILURE, &["CPU 4095", "it may on"]);
    serve("--cpus x").fails(USAGE, &["--cpus", "`x` is no CPU number"]);
    serve("--cpus 3-1").fails(USAGE, &["--cpus", "`3-1` is no range"]);
    serve("--cpus 0 --workers 1").fails(USAGE, &["--cpus", "--workers"]);
    serve("--workers 0").fails(USAGE, &["--workers"]);
    serve("--workers 5000").fails(FAILURE, &["--workers 5000", "may run on"]);
    serve("--connections 0").fails(USAGE, &["--connections", "0"]);
    serve("--connections -1").fails(USAGE, &["-1"]);
    serve("--drain soon").fails(USAGE, &["--drain", "soon"]);
    serve("--drain 18446744073709551615").fails(USAGE, &["--drain", "18446744073709551615"]);
    serve("--kernel linux").fails(USAGE, &["--kernel", "linux", "embedded"]);
    serve("--connections 4000000000").fails(FAILURE, &["--connections", "ulimit -n"]);
    run(rumpring().arg("serve")).fails(USAGE, &["<URL>"]);
    run(rumpring().args(["serve", "http://x"])).fails(USAGE, &["http://x", "write unix://PATH"]);
    run(&mut rumpring()).fails(USAGE, &["Usage:", "serve", "call"]);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "no file was left");
}

#[test]
fn workers_are_as_many_as_asked_for_and_pinned() {
    let cpus = rumpring::scheduler::allowed_cpus().expect("the CPUs there are");
    let last = cpus[cpus.len() - 1].to_string();
    let first = cpus[0].to_string();
    for (args, cpu) in [(["--cpus", &last], &last), (["--workers", "1"], &first)] {
        let mut server = Server::start(&args);
        pipelined_load(server.url(), 4, 50);
        let counters = server.counters();
        // There may be one more worker, for calls that go ahead of long ones, on the same CPU.
        let threads = counters.get("threads");
        assert!((1.0..=2.0).contains(&threads), "workers with {args:?}: {}", counters.line());
        let mut cpus = worker_cpus(&server);
        cpus.dedup();
        assert_eq!(cpus, std::slice::from_ref(cpu), "its workers' CPUs with {args:?}");
    }
}

/// Returns the CPUs of each worker, as `/proc` lists them.
fn worker_cpus(server: &Server) -> Vec<String> {
    let tasks = format!("/proc/{}/task", server.pid().as_raw_nonzero());
    let mut cpus = Vec::new();
    for task in fs::read_dir(tasks).expect("the server's threads") {
        let task = task.expect("a thread").path();
        let comm = fs::read_to_string(task.join("comm")).expect("its name");
        if comm.starts_with("worker") {
            let status = fs::read_to_string(task.join("status")).expect("its status");
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            cpus.push(list.expect("its CPUs").trim().to_string());
        }
    }
    cpus
}

/// Makes calls of getpid, 64 at a time on each of `clients` clients, all by this thread. Returns their
/// number.
fn pipelined_load(url: &Url, clients: usize, rounds: usize) -> usize {
    let clients: Vec<Client> = (0..clients).map(|_| connect(url)).collect();
    let mut done: Vec<Completed> = Vec::new();
    for _ in 0..rounds {
        let end = Instant::now() + SOON;
        for client in &clients {
            for _ in 0..64 {
                client.post(GETPID, &[]);
            }
        }
        while clients.iter().any(|client| client.outstanding() > 0) {
            for client in &clients {
                client.pump().expect("the connection lives");
                client.take_completed(&mut done);
            }
            assert!(Instant::now() < end, "a round of pipelined calls took over {SOON:?}");
        }
    }
    for client in &clients {
        client.take_completed(&mut done);
    }
    assert!(done.iter().all(|call| call.result.is_ok()), "getpid never fails");
    assert_eq!(done.len(), clients.len() * rounds * 64, "every call was answered");
    done.len()
}

#[test]
fn one_enter_serves_many_calls_under_load() {
    let mut server = Server::start(&[]);
    let before = server.counters();
    let calls = pipelined_load(server.url(), 16, 20) as f64;
    let after = server.counters();
    assert_eq!(after.get("calls") - before.get("calls"), calls, "{}", after.line());
    let enters = after.get("enters") - before.get("enters");
    println!("{calls} calls with {enters} enters: {:.4} a call; {}", enters / calls, after.line());
    assert!(enters / calls < 0.5, "{enters} enters for {calls} calls");
    let told = after.get("enters") / after.get("calls");
    assert!((after.get("enters_per_call") - told).abs() < 0.001, "{}", after.line());
}

const STOPS: [Signal; 2] = [Signal::TERM, Signal::INT];

#[test]
fn a_signal_ends_a_server_with_idle_clients_at_once() {
    for signal in STOPS {
        let mut server = Server::start(&["--drain", "600"]);
        let clients: Vec<Client> = (0..20).map(|_| connect(server.url())).collect();
        server.signal(signal);
        let status = server.ended_within(SOON, "a signal, with idle clients only");
        assert!(status.success(), "{signal:?}: {status}");
        assert!(!server.socket().exists(), "{signal:?}: the socket file goes with the server");
        for client in &clients {
            assert_eq!(client.call(GETPID, &[]), Err(CallError::Lost(Lost::Closed)));
        }
        assert_eq!(server.last_words().len(), 1, "{:?}", server.said());
    }
}

/// Begins a read that sleeps until the server ends it.
fn asleep(client: &Client) -> Pending {
    let [read_end, _] = client.call(PIPE, &[]).expect("a pipe");
    let into = client.space().alloc(1).expect("a byte of memory");
    client.begin(READ, &[read_end as u64, into, 1])
}

/// Begins a sleep of `time`.
fn nanosleep(client: &Client, time: Duration) -> Pending {
    let time = [time.as_secs(), time.subsec_nanos().into()];
    let bytes: Vec<u8> = time.iter().flat_map(|n| n.to_le_bytes()).collect();
    let time = client.space().alloc_from(&bytes).expect("memory");
    client.begin(NANOSLEEP, &[time, 0])
}

#[track_caller]
fn until_in_flight(server: &mut Server, calls: usize) {
    server.until(SOON, "calls in flight", |c| c.get("in_flight") == calls as f64);
}

#[test]
fn calls_that_sleep_have_the_drain_time() {
    for signal in STOPS {
        let mut server = Server::start(&["--drain", "1"]);
        let client = connect(server.url());
        let mut read = asleep(&client);
        until_in_flight(&mut server, 1);
        let start = Instant::now();
        server.signal(signal);
        assert!(server.ended_within(SOON, "the drain time").success());
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(950), "{signal:?}: it ended after {took:?} already");
        let ended = read.finish_timeout(SOON);
        assert!(
            matches!(ended, Some(Err(CallError::Lost(_) | CallError::Errno(_)))),
            "{signal:?}: what slept ends with the server: {ended:?}"
        );
        assert!(!server.socket().exists(), "{signal:?}: the socket file goes with the server");
    }
}

#[test]
fn calls_that_end_in_the_drain_time_are_answered() {
    for signal in STOPS {
        let mut server = Server::start(&["--drain", "600"]);
        let clients: Vec<Client> = (0..3).map(|_| connect(server.url())).collect();
        let sleeps: Vec<Pending> =
            clients.iter().map(|client| nanosleep(client, Duration::from_secs(2))).collect();
        for client in &clients {
            // Frames sent before were taken by now, and the calls are in flight unless they have ended
            // already.
            client.call(GETPID, &[]).expect("getpid");
        }
        server.signal(signal);
        for mut sleep in sleeps {
            let answer = sleep.finish_timeout(SOON);
            assert_eq!(answer, Some(Ok([0, 0])), "{signal:?}: a call in flight is answered");
        }
        assert!(server.ended_within(SOON, "its last answer").success());
        assert!(!server.socket().exists(), "{signal:?}: the socket file goes with the server");
    }
}

/// A memory whose owner never answers.
struct Silent(AddressSpace);

impl Memory for Silent {
    fn space(&self) -> &AddressSpace {
        &self.0
    }

    fn copyin(&self, _: u64, _: u64, _: &mut Vec<u8>) -> Result<(), Refusal> {
        Err(Refusal::Silence)
    }
}

#[test]
fn clients_that_answer_or_read_nothing_do_not_keep_a_server() {
    for signal in STOPS {
        let mut server = Server::start(&["--drain", "1"]);
        let memory = Arc::new(Silent(AddressSpace::new()));
        let silent = Client::builder().memory(memory).connect(server.url()).expect("connects");
        // The time of the sleep lies in memory that the server asks for, and does not get.
        let mut asks = nanosleep(&silent, Duration::ZERO);
        let deaf = connect(server.url());
        let path = deaf.space().alloc_str("/dev/zero").expect("memory");
        let [zero, _] = deaf.call(OPEN, &[path, 0, 0]).expect("/dev/zero");
        let into = deaf.space().alloc(BIG as usize).expect("memory");
        for _ in 0..64 {
            deaf.post(READ, &[zero as u64, into, BIG]);
        }
        deaf.flush();
        server.until(SOON, "a call that waits for its client", |c| c.get("asks") > 1.0);
        assert_eq!(asks.finish_timeout(Duration::from_millis(100)), None, "it is not answered");
        let start = Instant::now();
        server.signal(signal);
        assert!(server.ended_within(SOON, "the drain time").success());
        println!("{signal:?}: ended after {:?}", start.elapsed());
    }
}

#[test]
fn a_server_that_drains_takes_no_more_clients() {
    let mut server = Server::start(&["--drain", "600"]);
    let client = connect(server.url());
    let mut read = asleep(&client);
    until_in_flight(&mut server, 1);
    server.signal(Signal::TERM);
    let short = Client::builder().timeout(Duration::from_millis(500));
    let end = Instant::now() + SOON;
    while short.connect(server.url()).is_ok() {
        assert!(Instant::now() < end, "new clients are still served {SOON:?} after SIGTERM");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(server.is_running(), "it drains");
    assert_eq!(read.try_finish(), None, "the call in flight goes on");
    server.signal(Signal::TERM);
    let status = server.ended_within(SOON, "a second signal");
    assert_eq!(status.code(), Some(FAILURE), "calls were in flight");
    assert!(!server.socket().exists(), "the socket file goes with the server");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let mut server = Server::start(&["--drain", "600"]);
        let client = connect(server.url());
        let _read = asleep(&client);
        until_in_flight(&mut server, 1);
        server.signal(first);
        thread::sleep(Duration::from_millis(200));
        assert!(server.is_running(), "{first:?} lets calls end first");
        server.signal(second);
        server.ended_within(SOON, "a second signal");
    }
}

#[test]
fn the_file_of_a_dead_server_is_replaced() {
    let mut first = Server::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).expect("a socket file"));
    assert!(path.exists(), "a socket file that nobody listens at");
    let url = format!("unix://{}", path.display());
    let server = Server::run(rumpring(), dir, &url, &[]);
    assert!(run(&mut server.command(["call", "getpid"])).status == Some(0));
    // A server that was killed leaves its file to its successor.
    first.signal(Signal::KILL);
    first.ended_within(SOON, "SIGKILL");
    assert!(first.socket().exists(), "a killed server leaves its file");
    let next = tempfile::tempdir().expect("a directory");
    let successor = Server::run(rumpring(), next, &first.url().to_string(), &[]);
    run(&mut successor.command(["call", "getuid"])).succeeds("getuid = 0\n");
}

/// The system lets go of a ring's sockets some time after its process has ended.
#[test]
fn a_server_can_be_started_again_at_once() {
    for end in [Signal::TERM, Signal::KILL] {
        let args = ["--drain", "0"];
        for first in [Server::start(&args), Server::start_tcp(&args)] {
            let url = first.url().to_string();
            let mut server = first;
            let mut keep = Vec::new();
            for _ in 0..3 {
                let clients: Vec<Client> = (0..20).map(|_| connect(server.url())).collect();
                let _reads: Vec<Pending> = clients.iter().map(asleep).collect();
                server.signal(end);
                server.ended_within(SOON, "a signal");
                let dir = tempfile::tempdir().expect("a directory");
                // The directory of the first server, with the socket file, goes at the end.
                let next = Server::run(rumpring(), dir, &url, &args);
                run(&mut next.command(["call", "getuid"])).succeeds("getuid = 0\n");
                keep.push(std::mem::replace(&mut server, next));
            }
        }
    }
}

#[test]
fn a_live_server_and_other_files_are_left_alone() {
    let server = Server::start(&[]);
    let url = server.url().to_string();
    let second = run(rumpring().args(["serve", &url]));
    second.fails(FAILURE, &[&url, "already listening", "stop it or take another path"]);
    run(&mut server.command(["call", "getuid"])).succeeds("getuid = 0\n");

    let file = server.dir().join("file");
    fs::write(&file, "precious").expect("a file");
    let in_the_way = run(rumpring().args(["serve", &format!("unix://{}", file.display())]));
    in_the_way.fails(FAILURE, &["no socket", "remove it or take another path"]);
    assert_eq!(fs::read(&file).expect("the file"), b"precious");

    let port = Server::start_tcp(&[]);
    let taken = run(rumpring().args(["serve", &port.url().to_string()]));
    taken.fails(FAILURE, &[&port.url().to_string(), "in use"]);
    let nowhere = run(rumpring().args(["serve", "unix:///no/such/directory/s"]));
    nowhere.fails(FAILURE, &["unix:///no/such/directory/s", "No such file"]);
}

#[test]
fn an_ordinary_day_is_quiet() {
    let mut server = Server::start(&[]);
    let clients: Vec<Client> = (0..10).map(|_| connect(server.url())).collect();
    for client in &clients {
        client.call(GETPID, &[]).expect("getpid");
        let child = client.prefork().expect("a prefork").connect().expect("a child");
        child.exec("other").expect("exec");
        drop((asleep(&child), nanosleep(&child, Duration::from_secs(60))));
        let path = child.space().alloc_str("/none").expect("memory");
        child.call(OPEN, &[path, 0, 0]).expect_err("open fails");
    }
    drop(clients);
    server.until(SOON, "all clients gone", |c| c.get("connections") == 0.0);
    server.signal(Signal::TERM);
    assert!(server.ended_within(SOON, "SIGTERM").success());
    assert_eq!(server.last_words().len(), 1, "only the ready line: {:?}", server.said());
}

#[test]
fn a_call_the_kernel_lacks_is_named_once() {
    let mut server = Server::start(&[]);
    let client = connect(server.url());
    for _ in 0..3 {
        client.call(26, &[]).expect_err("ptrace is not there");
    }
    run(&mut server.command(["halt"])).succeeds("");
    server.ended_within(SOON, "halt");
    let named: Vec<&String> =
        server.last_words().iter().filter(|line| line.contains("ptrace")).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0].contains("ENOSYS"), "{named:?}");
    assert!(!named[0].contains('\u{1b}'), "no colours where there is no terminal: {named:?}");
}

/// io_uring is switched off as by a container's seccomp filter. Needs a C compiler, and is skipped
/// without.
#[test]
fn without_io_uring_the_error_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let without = dir.path().join("without_io_uring");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/without_io_uring.c");
    let compiled = Command::new("cc").arg("-o").arg(&without).arg(&source).output();
    match compiled {
        Ok(cc) if cc.status.success() => {}
        other => {
            return process::say(&format!("without_io_uring: skipped: cc failed: {other:?}"));
        }
    }
    let url = format!("unix://{}", dir.path().join("s").display());
    for (errno, word) in [("1", "forbids it"), ("38", "Linux 5.1")] {
        let mut command = Command::new(&without);
        command.args([errno, process::PROGRAM, "serve", &url]).env_remove("RUST_LOG");
        let said = run(&mut command);
        println!("{}", said.stderr.trim());
        said.fails(FAILURE, &["rumpring: io_uring is not available", word]);
    }
    assert!(!dir.path().join("s").exists(), "no socket file is left");
}

/// Asserts that `serve` refuses to start, with these words.
#[track_caller]
fn refused(line: &str, environment: &[(&str, &str)], says: &[&str]) {
    let mut command = rumpring();
    command.arg("serve").args(words(line)).envs(environment.iter().copied());
    run(&mut command).fails(USAGE, says);
}

#[test]
fn an_option_that_says_nothing_where_it_stands_is_an_error() {
    let tcp = "tcp://127.0.0.1:0";
    refused(&format!("--allow-user root {tcp}"), &[], &["--allow-user", "--allow-from"]);
    refused(&format!("--socket-mode 600 {tcp}"), &[], &["--socket-mode", "--allow-from"]);
    refused("--allow-from 10.0.0.0/8 unix://s", &[], &["--allow-from", "--allow-user"]);
    refused("-l rumpvfs unix://s", &[], &["--lib (-l)", "--kernel librump"]);
    refused("--calls 300000 unix://s", &[], &["--calls is over --calls-in-all"]);
    // This option means nothing to this server, whatever its value.
    refused("--max-asleep 10000 unix://s", &[], &["--max-asleep"]);
    let mut never = rumpring();
    never.args(words("serve --handshake-time 0 unix://s"));
    run(&mut never).fails(USAGE, &["--handshake-time", "a second at least"]);
}

#[test]
fn a_variable_that_says_nothing_here_is_for_others_but_for_who_may_connect() {
    let others = [("RUMPRING_MAX_ASLEEP", "7"), ("RUMPRING_KEEPALIVE", "9")];
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let mut command = rumpring();
    command.envs(others);
    drop(Server::run(command, dir, &url, &[]));

    let (user, from) = (("RUMPRING_ALLOW_USER", "root"), ("RUMPRING_ALLOW_FROM", "127.0.0.1"));
    refused("tcp://127.0.0.1:0", &[user], &["--allow-user", "--allow-from"]);
    refused("unix://s", &[from], &["--allow-from", "--allow-user"]);
    for url in ["tcp://127.0.0.1:0", "unix://s"] {
        // In each case one of the variables says who may connect to this server.
        let dir = tempfile::tempdir().expect("a directory");
        let url = url.replace("//s", &format!("//{}", dir.path().join("s").display()));
        let mut command = rumpring();
        command.envs([user, from]);
        drop(Server::run(command, dir, &url, &[]));
    }
    refused(
        "unix://s",
        &[("RUMPRING_SEND_QUEUE_PAUSE", "64m")],
        &["--send-queue-pause is over --send-queue-max"],
    );
    // The total is given where this server is started, and bounds the variable, which is for all
    // servers.
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let mut command = rumpring();
    command.env("RUMPRING_CALLS", "4096");
    drop(Server::run(command, dir, &url, &["--calls-in-all", "1000"]));
}

#[test]
fn the_command_line_goes_before_the_environment() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let mut command = rumpring();
    command.env("RUMPRING_CPUS", "99999");
    drop(Server::run(command, dir, &url, &["--workers", "1"]));
    let both = [("RUMPRING_CPUS", "0"), ("RUMPRING_WORKERS", "1")];
    refused("unix://s", &both, &["--cpus", "--workers"]);
}
