//! NetBSD's own kernel behind the server: stock clients in every way, clients that are killed, ten
//! thousand at once, thousands asleep, and the kernel's end.
//!
//! RUMP_PREFIX names the directory of a rump kernel, as buildrump.sh installs it. Without it these
//! tests say that they are skipped. The tests ask the kernel itself for the things it holds: its tables
//! of processes and of open files. Numbers are printed (`--nocapture`).

mod process;
mod stock;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::numbers::{
    AF_INET, CTL_KERN, O_CREAT, O_NONBLOCK, O_RDWR, SOCK_DGRAM, SOCK_STREAM, sys,
};
use client::raw::RawConnection;
use client::{CallError, Client, ConnectError, Pending, sockaddr_in};
use embedded::by_name;
use kernel::sys::{
    ACCEPT, CLOCK_NANOSLEEP, CLOSE, CONNECT, IOCTL, KEVENT, LISTEN, NANOSLEEP, POLL, SELECT,
    SETITIMER, SETSOCKOPT, TIMER_CREATE, TIMER_SETTIME,
};
use process::{Counters, SOON, Server};
use rumpsp::url::Url;
use rumpsp::wire::{self, ErrorCode, Handshake};
use rustix::process::{Pid, Signal, kill_process};
use stock::{Stock, run};

const EINTR: i32 = 4;
const ENOSYS: i32 = 78;

/// The time for anything that very many clients together wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The components of the kernel here.
const COMPONENTS: [&str; 9] = [
    "-lrumpvfs",
    "-lrumpvfs_fifofs",
    "-lrumpdev",
    "-lrumpdev_rnd",
    "-lrumpnet",
    "-lrumpnet_net",
    "-lrumpnet_netinet",
    "-lrumpnet_local",
    "-lrumpfs_tmpfs",
];

/// The way in which the server is put before the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `rumpring serve --kernel librump`
    Serve,
    /// The program under the name `rump_server`.
    Named,
    /// The stock `rump_server` with `librumpring.so` preloaded.
    Preloaded,
}

const WAYS: [Way; 3] = [Way::Serve, Way::Named, Way::Preloaded];

/// Lets one test run at a time: they share CPUs and the limit of open files, and measure.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the library for `LD_PRELOAD`: cargo puts it beside the tests.
fn preload() -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    let library = test.with_file_name("librumpring.so");
    assert!(library.exists(), "there is no {}", library.display());
    library
}

fn serve(args: &[&str]) -> Server {
    let args: Vec<&str> =
        ["--kernel", "librump"].iter().chain(&COMPONENTS).chain(args).copied().collect();
    Server::start(&args)
}

fn serve_tcp() -> Server {
    let args: Vec<&str> = ["--kernel", "librump"].iter().chain(&COMPONENTS).copied().collect();
    Server::start_tcp(&args)
}

/// Returns a `rump_server`, in the foreground unless it is to detach.
fn named(stock: &Stock, way: Way, is_detached: bool) -> Command {
    let mut command = match way {
        Way::Preloaded => {
            let mut command = Command::new(stock.prefix.join("bin/rump_server"));
            command.env("LD_PRELOAD", preload());
            command
        }
        _ => {
            let link = stock.dir.path().join("rump_server");
            if !link.exists() {
                std::os::unix::fs::symlink(process::PROGRAM, &link).expect("a symbolic link");
            }
            Command::new(link)
        }
    };
    command.args((!is_detached).then_some("-s")).args(COMPONENTS).stdin(Stdio::null());
    command
}

fn start(stock: &Stock, way: Way) -> Server {
    if way == Way::Serve {
        return serve(&[]);
    }
    let dir = tempfile::tempdir().expect("a directory for the socket");
    let url = format!("unix://{}", dir.path().join("s").display());
    Server::run_quiet(named(stock, way, false), dir, &url)
}

fn connect(url: &Url) -> Client {
    Client::builder().timeout(PATIENCE).connect(url).expect("a client connects")
}

/// The data of a process of the kernel.
#[derive(Debug)]
struct Process {
    pid: i32,
    lwps: i64,
    command: String,
    files: usize,
}

/// Returns all processes of the kernel, which should be few, with their open files; except its own two
/// and the asking client's.
///
/// Source: NetBSD `sys/sys/sysctl.h`, `struct kinfo_proc2` and `struct kinfo_file`.
fn processes(client: &Client) -> Vec<Process> {
    const PROC: usize = 680;
    const FILE: usize = 120;
    const MOST: i32 = 2000;
    let own = client.getpid().expect("getpid");
    let i32_at =
        |record: &[u8], at: usize| i32::from_le_bytes(record[at..at + 4].try_into().expect("four"));
    let table = |node: i32, op: [i32; 2], len: usize| {
        let name = [CTL_KERN, node, op[0], op[1], len as i32, MOST];
        client.sysctl(&name, len * MOST as usize, None).expect("a table of the kernel's")
    };
    let files = table(77, [2, -1], FILE);
    let procs = table(47, [0, 0], PROC);
    let processes = procs.chunks_exact(PROC).map(|record| {
        let pid = i32_at(record, 116);
        let text = &record[368..392];
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        Process {
            pid,
            lwps: i64::from_le_bytes(record[616..624].try_into().expect("eight")),
            command: String::from_utf8_lossy(&text[..end]).into_owned(),
            files: files.chunks_exact(FILE).filter(|file| i32_at(file, 104) == pid).count(),
        }
    });
    processes.filter(|process| process.pid > 1 && process.pid != own).collect()
}

/// Waits until the kernel has nothing of any client any more.
#[track_caller]
fn until_empty(url: &Url, why: &str) {
    let client = connect(url);
    let end = Instant::now() + SOON;
    loop {
        let left = processes(&client);
        if left.is_empty() {
            return;
        }
        let some: Vec<_> = left.iter().take(5).collect();
        assert!(Instant::now() < end, "{why}: {} processes are left, as {some:?}", left.len());
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the server by SIGTERM, which halts the kernel, and is no failure.
#[track_caller]
fn ends_well(mut server: Server) {
    let socket = server.url().path().map(PathBuf::from);
    let start = Instant::now();
    server.signal(Signal::TERM);
    let status = server.ended_within(SOON, "SIGTERM");
    let said = server.last_words().join("\n");
    assert!(status.success(), "SIGTERM halts, and is no failure: {status}\n{said}");
    assert!(!said.contains("holds on"), "processes were left behind:\n{said}");
    assert!(socket.is_none_or(|path| !path.exists()), "the socket file goes with the server");
    println!("ended within {:?} of SIGTERM", start.elapsed());
}

/// Runs a program of `tests/stock` at a server; afterwards the kernel must be empty.
fn stock_client(name: &str, may_skip: &[&str]) {
    let Some(stock) = Stock::find(name) else {
        return;
    };
    let _alone = alone();
    let program = stock.compile(name, true);
    for way in WAYS {
        client_at(&program, start(&stock, way), way, may_skip);
    }
    client_at(&program, serve_tcp(), Way::Serve, may_skip);
}

fn client_at(program: &PathBuf, mut server: Server, way: Way, may_skip: &[&str]) {
    let url = server.url().clone();
    println!("{way:?}:");
    let skipped = run(Command::new(program).env("RUMP_SERVER", url.to_string()), &mut server);
    let unexpected = skipped.iter().find(|line| !may_skip.iter().any(|may| line.ends_with(may)));
    assert_eq!(unexpected, None, "the kernel has that");
    until_empty(&url, "a stock client has gone");
    if way != Way::Preloaded {
        let counters = server.counters();
        assert_eq!(counters.get("panics"), 0.0, "{}", counters.line());
    }
    ends_well(server);
}

#[test]
fn stock_calls() {
    stock_client("calls", &[]);
}

#[test]
fn stock_threads_with_big_copies() {
    stock_client("threads", &[]);
}

#[test]
fn stock_forks_and_tokens() {
    stock_client("forks", &[]);
}

#[test]
fn stock_execs() {
    stock_client("execs", &[]);
}

/// Tests signals: a rump kernel has no kill, so they are SIGPIPE, and SIGALRM of a timer.
#[test]
fn stock_signals_and_calls_from_their_handlers() {
    stock_client("signals", &[": no kill"]);
}

#[test]
fn stock_clients_killed_while_they_sleep() {
    stock_client("killed", &[]);
}

#[test]
fn stock_halt() {
    let Some(stock) = Stock::find("stock_halt") else {
        return;
    };
    let _alone = alone();
    let program = stock.compile("halts", true);
    for way in WAYS {
        let mut server = start(&stock, way);
        let url = server.url().to_string();
        run(Command::new(&program).env("RUMP_SERVER", url), &mut server);
        let status = server.ended_within(SOON, "halt");
        assert!(status.success(), "{way:?}: a halted kernel has not failed: {status}");
        assert!(!server.socket().exists(), "{way:?}: the socket file goes with the server");
    }
}

#[test]
fn a_hijacked_program() {
    let Some(stock) = Stock::find("a_hijacked_program") else {
        return;
    };
    let _alone = alone();
    let program = stock.compile("hijacked", false);
    for way in WAYS {
        let mut server = start(&stock, way);
        run(&mut stock.hijack(&program, &server), &mut server);
        until_empty(server.url(), "a hijacked program has gone");
        ends_well(server);
    }
}

/// Runs `rump_server` without `-s`: the process started ends once the server is ready.
#[test]
fn detached() {
    let Some(stock) = Stock::find("detached") else {
        return;
    };
    let _alone = alone();
    let program = stock.compile("halts", true);
    for way in [Way::Named, Way::Preloaded] {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let socket = dir.path().join("s");
        let url: Url = format!("unix://{}", socket.display()).parse().expect("a URL");
        let mut command = named(&stock, way, true);
        command.arg(url.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let status = process::wait(&mut child, SOON).expect("what was started ends");
        assert!(status.success(), "{way:?}: it ended well: {status}");
        let pid = server_of(&url);
        assert!(pid.is_some_and(|pid| pid != Pid::from_child(&child)), "{way:?}: another process");
        let started = Command::new(&program).env("RUMP_SERVER", url.to_string()).status();
        let halted = started.is_ok_and(|status| status.success());
        let end = Instant::now() + SOON;
        while pid.is_some_and(is_running) && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        let still_runs = pid.filter(|&pid| is_running(pid));
        if let Some(pid) = still_runs {
            let _ = kill_process(pid, Signal::KILL);
        }
        assert!(halted && still_runs.is_none(), "{way:?}: served, and halted");
        assert!(!socket.exists(), "{way:?}: the socket file goes with the server");
        // A failure is the exit status of the process that was started.
        let status = named(&stock, way, true)
            .arg("unix:///no/such/directory/s")
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| !status.success()), "{way:?}: it cannot listen there");
    }
}

/// Returns the process that listens there, if it is another than this.
fn server_of(url: &Url) -> Option<Pid> {
    let raw = RawConnection::connect(url).ok()?;
    let pid = rustix::net::sockopt::socket_peercred(raw.as_fd()).ok()?.pid;
    (pid.as_raw_nonzero().get() > 1 && pid != rustix::process::getpid()).then_some(pid)
}

fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A storm of 32 clients of 8 threads at all times, half of which are killed at some time.
struct Storm {
    program: PathBuf,
    url: Url,
    random: u64,
    finished: usize,
    killed: usize,
}

const STORM_CLIENTS: u16 = 32;
const STORM: Duration = Duration::from_secs(6);
const STORM_PORTS: u16 = 9000;

impl Storm {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Starts a client on a port of its own, and returns the time at which it is to be killed.
    fn client(&mut self, slot: u16) -> (Child, Option<Instant>) {
        let is_victim = self.random(3) > 0;
        let after = Duration::from_millis(self.random(1200));
        let mut command = Command::new(&self.program);
        command.arg(if is_victim { "30000" } else { "1500" });
        command.arg((STORM_PORTS + slot).to_string());
        command.env("RUMP_SERVER", self.url.to_string());
        let child = command.stdout(Stdio::piped()).spawn().expect("a client starts");
        (child, is_victim.then(|| Instant::now() + after))
    }

    fn rage(&mut self) {
        let end = Instant::now() + STORM;
        let mut clients: Vec<_> = (0..STORM_CLIENTS).map(|slot| Some(self.client(slot))).collect();
        while clients.iter().any(Option::is_some) {
            for (slot, place) in (0..).zip(&mut clients) {
                let Some((child, kill_at)) = place else {
                    continue;
                };
                let now = Instant::now();
                let is_over = if kill_at.is_some_and(|at| at <= now) {
                    child.kill().expect("the client is there to be killed");
                    child.wait().expect("a killed client ends");
                    self.killed += 1;
                    true
                } else {
                    child.try_wait().expect("a client can be waited for").is_some()
                };
                if is_over {
                    if kill_at.is_none() {
                        self.ended_well(place.take().expect("it is there").0);
                        self.finished += 1;
                    }
                    let is_enough = self.killed > 20 && self.finished > 10;
                    *place = (now < end || !is_enough).then(|| self.client(slot));
                }
                assert!(now < end + PATIENCE, "the clients that were not killed end");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ended_well(&self, child: Child) {
        let done = child.wait_with_output().expect("what a client said");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "a client that was not killed: {}\n{said}", done.status);
    }
}

#[test]
fn clients_of_eight_threads_are_killed_at_random() {
    let Some(stock) = Stock::find("clients_of_eight_threads_are_killed_at_random") else {
        return;
    };
    let _alone = alone();
    let program = stock.compile("stress", true);
    for way in [Way::Serve, Way::Preloaded] {
        let mut server = start(&stock, way);
        let url = server.url().clone();
        let mut storm = Storm {
            program: program.clone(),
            url: url.clone(),
            random: 88,
            finished: 0,
            killed: 0,
        };
        storm.rage();
        println!(
            "{way:?}: {} clients ended, {} were killed; the server has {} threads, {} KiB",
            storm.finished,
            storm.killed,
            server.threads(),
            server.rss(),
        );
        assert!(storm.killed > 20 && storm.finished > 10, "there was a storm");
        until_empty(&url, "the storm is over");
        ports_are_free(&connect(&url));
        if way != Way::Preloaded {
            let counters = server.until(SOON, "nothing in flight, nobody asleep", |counters| {
                counters.is_deserted() && counters.get("asleep") == 0.0
            });
            assert_eq!(counters.get("panics"), 0.0);
            println!("{}", counters.line());
        }
        ends_well(server);
    }
}

fn ports_are_free(client: &Client) {
    for slot in 0..STORM_CLIENTS {
        let socket = client.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
        let address = format!("127.0.0.1:{}", STORM_PORTS + slot).parse().expect("an address");
        client.bind(socket, &sockaddr_in(address)).expect("a port that nobody has any more");
        client.close(socket).expect("closed");
    }
}

/// A client with a call that sleeps.
struct Sleeper {
    call: Pending,
    /// The client, which keeps its process alive, and the descriptor to write to so that the call
    /// wakes.
    client: Client,
    write_end: Option<i32>,
}

fn int(fd: i32) -> u64 {
    u64::from(fd.unsigned_abs())
}

impl Sleeper {
    fn in_read(client: Client) -> Sleeper {
        let [read_end, write_end] = client.pipe().expect("a pipe");
        let byte = client.space().alloc(1).expect("a byte");
        let call = client.begin(sys::READ, &[int(read_end), byte, 1]);
        Sleeper { call, client, write_end: Some(write_end) }
    }

    fn in_poll(client: Client) -> Sleeper {
        let [read_end, write_end] = client.pipe().expect("a pipe");
        let mut pollfd = [0; 8];
        pollfd[..4].copy_from_slice(&read_end.to_le_bytes());
        pollfd[4] = 1;
        let pollfd = client.space().alloc_from(&pollfd).expect("a pollfd");
        // The poll's requests to its client are served while the client waits for another call.
        let call = client.begin(POLL, &[pollfd, 1, u64::from(u32::MAX)]);
        client.getpid().expect("getpid");
        Sleeper { call, client, write_end: Some(write_end) }
    }

    fn in_accept(client: Client) -> Sleeper {
        let socket = client.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        let any = "127.0.0.1:0".parse().expect("an address");
        client.bind(socket, &sockaddr_in(any)).expect("bind");
        client.call(LISTEN, &[int(socket), 1]).expect("listen");
        let call = client.begin(ACCEPT, &[int(socket), 0, 0]);
        Sleeper { call, client, write_end: None }
    }
}

/// Calls getpid until told to stop, and more than 50 times; returns how often, and the slowest time.
fn call_until(url: &Url, stop: &AtomicBool) -> (u64, Duration) {
    let client = connect(url);
    let pid = client.getpid().expect("getpid");
    let (mut answered, mut worst) = (0, Duration::ZERO);
    while !stop.load(Relaxed) || answered <= 50 {
        let start = Instant::now();
        assert_eq!(client.getpid().expect("getpid"), pid, "its pid is always the same");
        worst = worst.max(start.elapsed());
        answered += 1;
        thread::sleep(Duration::from_millis(2));
    }
    (answered, worst)
}

/// Runs `what` while another client is served, and prints that client's latencies.
fn while_another_calls<R>(url: &Url, what: impl FnOnce() -> R) -> R {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| call_until(url, &stop));
        let guard = Stop(&stop);
        let result = what();
        drop(guard);
        let (answered, worst) = caller.join().expect("getpid kept answering");
        println!("meanwhile {answered} getpid of another client, the slowest in {worst:?}");
        assert!(worst < SOON, "another client was served");
        result
    })
}

#[test]
fn ten_thousand_clients_some_asleep() {
    const CLIENTS: usize = 10_000;
    const ASLEEP: usize = 200;
    if Stock::find("ten_thousand_clients_some_asleep").is_none() {
        return;
    }
    let _alone = alone();
    let limit = process::raise_file_limit();
    if limit <= CLIENTS as u64 + 300 {
        return process::say(&format!("skipped: an open file limit of {limit} has no room"));
    }
    let mut server = serve(&[]);
    let url = server.url().clone();
    drop(connect(&url));
    let (rss, threads) = (server.rss(), server.threads());
    let (clients, sleepers) = while_another_calls(&url, || {
        let begin = Instant::now();
        let clients: Vec<Client> = (0..CLIENTS - 3 * ASLEEP).map(|_| connect(&url)).collect();
        let idle_rss = server.rss();
        println!(
            "{} clients with a process each in {:?}: {} KiB more, {:.1} KiB a client; {} threads",
            clients.len(),
            begin.elapsed(),
            idle_rss.saturating_sub(rss),
            idle_rss.saturating_sub(rss) as f64 / clients.len() as f64,
            server.threads(),
        );
        let begin = Instant::now();
        let kinds = [Sleeper::in_read, Sleeper::in_poll, Sleeper::in_accept];
        let sleepers: Vec<Sleeper> = (0..3 * ASLEEP).map(|i| kinds[i % 3](connect(&url))).collect();
        let counters = server.until(PATIENCE, "all asleep", |counters| {
            counters.get("asleep") >= sleepers.len() as f64
        });
        let more = server.rss().saturating_sub(idle_rss);
        println!(
            "{} more asleep in read, poll and accept in {:?}: {more} KiB more, {:.1} KiB each; {} \
             threads, {threads} before",
            sleepers.len(),
            begin.elapsed(),
            more as f64 / sleepers.len() as f64,
            server.threads(),
        );
        println!("{}", counters.line());
        (clients, sleepers)
    });
    let mut pids: Vec<i32> =
        clients.iter().map(|client| client.getpid().expect("each client is served")).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), clients.len(), "each has a process of its own");
    for mut sleeper in sleepers.into_iter().step_by(2) {
        assert_eq!(sleeper.call.try_finish(), None, "it sleeps");
        if let Some(end) = sleeper.write_end {
            sleeper.client.write(end, b"w").expect("a byte");
            assert_eq!(sleeper.call.finish_timeout(PATIENCE), Some(Ok([1, 0])), "it wakes up");
        }
    }
    let begin = Instant::now();
    drop(clients);
    let counters = server.until(PATIENCE, "nobody left", Counters::is_deserted);
    println!("all gone within {:?}; {} KiB, {}", begin.elapsed(), server.rss(), counters.line());
    assert_eq!(counters.get("panics"), 0.0);
    until_empty(&url, "ten thousand have gone");
    ends_well(server);
}

#[test]
fn thousands_of_reads_sleep_while_others_are_served() {
    const OF_ONE: usize = 1000;
    const OF_MANY: usize = 1000;
    if Stock::find("thousands_of_reads_sleep_while_others_are_served").is_none() {
        return;
    }
    let _alone = alone();
    process::raise_file_limit();
    let mut server = serve(&[]);
    let url = server.url().clone();
    let rss = server.rss();
    let one = connect(&url);
    let (reads, many) = while_another_calls(&url, || {
        let begin = Instant::now();
        let [read_end, _] = one.pipe().expect("a pipe");
        let byte = one.space().alloc(1).expect("a byte");
        let args = [int(read_end), byte, 1];
        let reads: Vec<Pending> = (0..OF_ONE).map(|_| one.begin(sys::READ, &args)).collect();
        let many: Vec<Sleeper> = (0..OF_MANY).map(|_| Sleeper::in_read(connect(&url))).collect();
        let all = (OF_ONE + OF_MANY) as f64;
        server.until(PATIENCE, "all asleep", |counters| counters.get("asleep") >= all);
        let (threads, more) = (server.threads(), server.rss().saturating_sub(rss));
        println!(
            "{OF_ONE} reads of one client and one each of {OF_MANY} asleep after {:?}: {threads} \
             threads, {more} KiB more, {:.1} KiB a read",
            begin.elapsed(),
            more as f64 / all,
        );
        thread::sleep(Duration::from_millis(500));
        (reads, many)
    });
    assert!(one.getpid().expect("getpid") > 1, "the client with {OF_ONE} asleep is served");
    for mut sleeper in many {
        sleeper.client.write(sleeper.write_end.expect("it reads"), b"w").expect("a byte");
        assert_eq!(sleeper.call.finish_timeout(PATIENCE), Some(Ok([1, 0])), "it wakes up");
    }
    // An exec ends all calls of its process.
    let begin = Instant::now();
    let pid = one.getpid().expect("getpid");
    one.exec("another").expect("an exec, once its calls have ended");
    println!("an exec with {OF_ONE} calls asleep took {:?}", begin.elapsed());
    assert_eq!(one.getpid(), Ok(pid), "the pid stays");
    drop(reads);
    drop(one);
    server.until(SOON, "nobody left", |counters| {
        counters.is_deserted() && counters.get("asleep") == 0.0
    });
    println!("{} threads, {} KiB after that", server.threads(), server.rss());
    until_empty(&url, "all readers have gone");
    ends_well(server);
}

/// The bound on sleepers delays only calls that would sleep.
#[test]
fn at_the_bound_of_sleepers_others_are_served() {
    const MOST: usize = 50;
    if Stock::find("at_the_bound_of_sleepers_others_are_served").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&["--max-asleep", &MOST.to_string()]);
    let url = server.url().clone();
    let sleepers: Vec<Sleeper> = while_another_calls(&url, || {
        let sleepers = (0..4 * MOST).map(|_| Sleeper::in_read(connect(&url))).collect();
        thread::sleep(Duration::from_millis(500));
        sleepers
    });
    let counters = server.counters();
    println!("{} begun with a bound of {MOST}: {}", sleepers.len(), counters.line());
    for sleeper in &sleepers {
        sleeper.client.write(sleeper.write_end.expect("it reads"), b"w").expect("a byte");
    }
    for mut sleeper in sleepers {
        assert_eq!(sleeper.call.finish_timeout(PATIENCE), Some(Ok([1, 0])), "it has its turn");
    }
    until_empty(&url, "all have gone");
    ends_well(server);
}

/// Makes more calls that would sleep than the system has threads for: the server bounds them by itself.
#[test]
fn more_sleepers_than_the_system_has_threads_for() {
    const CLIENTS: usize = 7;
    const EACH: usize = 2900;
    if Stock::find("more_sleepers_than_the_system_has_threads_for").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&["--max-asleep", "20000"]);
    let url = server.url().clone();
    let rss = server.rss();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| connect(&url)).collect();
    while_another_calls(&url, || {
        let begin = Instant::now();
        for client in &clients {
            let [read_end, _] = client.pipe().expect("a pipe");
            let byte = client.space().alloc(1).expect("a byte");
            for _ in 0..EACH {
                client.post(sys::READ, &[int(read_end), byte, 1]);
            }
            client.flush();
        }
        let all = (CLIENTS * EACH) as f64;
        server.until(PATIENCE, "all taken", |counters| counters.get("in_flight") >= all);
        let mut asleep = -1.0;
        server.until(PATIENCE, "as many asleep as there may be", |counters| {
            thread::sleep(Duration::from_millis(500));
            let before = std::mem::replace(&mut asleep, counters.get("asleep"));
            before == asleep
        });
        println!(
            "of {all} reads {asleep} are asleep after {:?}: {} threads, {} KiB more",
            begin.elapsed(),
            server.threads(),
            server.rss().saturating_sub(rss),
        );
    });
    assert!(connect(&url).getpid().expect("a new client is served") > 1);
    let begin = Instant::now();
    drop(clients);
    server.until(PATIENCE, "nobody left", Counters::is_deserted);
    println!("all gone within {:?}; {} KiB", begin.elapsed(), server.rss());
    until_empty(&url, "all readers have gone");
    ends_well(server);
}

/// Has clients go while their calls are on their way into the kernel, again and again: each call must
/// end.
#[test]
fn clients_that_go_while_their_calls_begin() {
    if Stock::find("clients_that_go_while_their_calls_begin").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&[]);
    let url = server.url().clone();
    let begin = Instant::now();
    for i in 0..400_u64 {
        let client = connect(&url);
        let [read_end, _] = client.pipe().expect("a pipe");
        let byte = client.space().alloc(1).expect("a byte");
        let args = [int(read_end), byte, 1];
        let calls: Vec<Pending> = (0..10).map(|_| client.begin(sys::READ, &args)).collect();
        if i % 4 == 0 {
            thread::sleep(Duration::from_micros(i));
        }
        if i % 5 == 0 {
            client.exec("again").expect("an exec");
        }
        drop(calls);
    }
    println!("400 clients with 10 reads each came and went in {:?}", begin.elapsed());
    server.until(SOON, "nobody left", |counters| {
        counters.is_deserted() && counters.get("asleep") == 0.0
    });
    until_empty(&url, "all have gone");
    ends_well(server);
}

#[test]
fn forks_share_files_and_execs_keep_them() {
    if Stock::find("forks_share_files_and_execs_keep_them").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&[]);
    let url = server.url().clone();
    let parent = connect(&url);
    let pid = parent.getpid().expect("getpid");
    let file = parent.open("/shared", O_RDWR | O_CREAT, 0o600).expect("a file");
    let [read_end, write_end] = parent.pipe().expect("a pipe");
    let token = parent.prefork().expect("a prefork");
    let child = token.connect().expect("a child");
    assert_ne!(child.getpid().expect("getpid"), pid, "the child has a pid of its own");
    child.write(file, b"child").expect("the parent's file is the child's");
    assert_eq!(parent.pread(file, 10, 0).expect("a read"), b"child");
    assert_eq!(parent.lseek(file, 0, 1), Ok(5), "the offset is shared");
    let byte = parent.space().alloc(8).expect("room");
    let mut read = parent.begin(sys::READ, &[int(read_end), byte, 8]);
    assert_eq!(read.finish_timeout(Duration::from_millis(100)), None, "nothing to read so far");
    child.write(write_end, b"pipe").expect("a write");
    assert_eq!(read.finish_timeout(SOON), Some(Ok([4, 0])), "through the pipe");
    // A `Pending` that has waited for an answer keeps its client.
    drop(read);
    let again = token.connect().map(drop).expect_err("a token is good once");
    assert!(
        matches!(again, ConnectError::Handshake { source: CallError::Refused(code), .. }
            if code == ErrorCode::InvalidPrefork),
        "{again}"
    );
    parent.close(write_end).expect("closed");
    let mut read = parent.begin(sys::READ, &[int(read_end), byte, 8]);
    assert_eq!(read.finish_timeout(Duration::from_millis(100)), None, "the child can still write");
    drop(child);
    assert_eq!(read.finish_timeout(SOON), Some(Ok([0, 0])), "the child has gone: end of file");

    let [read_end, write_end] = parent.pipe().expect("a pipe");
    let asleep: Vec<Pending> =
        (0..20).map(|_| parent.begin(sys::READ, &[int(read_end), byte, 8])).collect();
    parent.exec("afterwards").expect("an exec");
    assert_eq!(parent.getpid(), Ok(pid), "the pid stays");
    for mut call in asleep {
        let end = call.finish_timeout(SOON).expect("an exec ends the process's other calls");
        assert!(matches!(end, Err(CallError::Errno(errno)) if errno.0 == EINTR), "{end:?}");
    }
    parent.write(write_end, b"x").expect("its files are there");
    assert_eq!(parent.read(read_end, 8).expect("a read"), b"x");
    let other = connect(&url);
    let name = processes(&other).into_iter().find(|process| process.pid == pid);
    assert!(name.as_ref().is_some_and(|p| p.command == "afterwards" && p.files > 5), "{name:?}");
    assert!(name.is_some_and(|process| process.lwps >= 1));
    let kill = parent.kill(pid, 31).expect_err("a rump kernel has no kill");
    assert!(matches!(kill, CallError::Errno(errno) if errno.0 == ENOSYS), "{kill}");
    drop((read, parent));
    server.until(SOON, "one left", |counters| counters.get("connections") == 1.0);
    drop(other);
    until_empty(&url, "all have gone");
    ends_well(server);
}

fn number_of(name: &str) -> i32 {
    by_name(name).expect("a call").number
}

/// Mounts a tmpfs, since the kernel's first root has fifos only by name.
///
/// Source: NetBSD `sys/fs/tmpfs/tmpfs_args.h`.
fn mount_tmpfs(client: &Client, path: &str) {
    let space = client.space();
    let [kind, path] = ["tmpfs", path].map(|text| space.buffer_str(text).expect("room"));
    // The arguments: version; no limits; owner root, mode 0755.
    let args = [1, 0, 0, 0, 0o755u64].map(u64::to_le_bytes).concat();
    let args = space.buffer_from(&args).expect("room");
    let args = [kind.addr(), path.addr(), 0, args.addr(), args.len() as u64];
    client.call(number_of("mount"), &args).expect("a tmpfs");
}

/// Fifos work however the kernel and its library of fifos came together, and whichever was named first.
#[test]
fn fifos_work() {
    let Some(stock) = Stock::find("fifos_work") else { return };
    let _alone = alone();
    let first = ["--kernel", "librump", "-lrumpvfs_fifofs"].into_iter().chain(COMPONENTS);
    let first: Vec<&str> = first.collect();
    let servers = WAYS.map(|way| start(&stock, way)).into_iter().chain([Server::start(&first)]);
    for server in servers {
        let client = connect(server.url());
        mount_tmpfs(&client, "/");
        let path = client.space().buffer_str("/fifo").expect("room");
        client.call(number_of("mkfifo"), &[path.addr(), 0o600]).expect("a fifo");
        let fifo = client.open("/fifo", O_RDWR | O_NONBLOCK, 0).expect("opened");
        client.write(fifo, b"through").expect("a write");
        assert_eq!(client.read(fifo, 10).expect("a read"), b"through");
    }
}

/// Sends SIGTERM while calls sleep and a prefork waits for its child.
#[test]
fn a_signal_ends_a_server_whose_clients_sleep() {
    let Some(stock) = Stock::find("a_signal_ends_a_server_whose_clients_sleep") else {
        return;
    };
    let _alone = alone();
    for way in WAYS {
        let server = start(&stock, way);
        let url = server.url().clone();
        let sleepers: Vec<Sleeper> = (0..20).map(|_| Sleeper::in_read(connect(&url))).collect();
        let _token = sleepers[0].client.prefork().expect("a prefork");
        ends_well(server);
        for mut sleeper in sleepers {
            let end = sleeper.call.finish_timeout(SOON).expect("it ends with the server");
            assert!(end.is_err(), "{end:?}");
        }
    }
}

const DAY: i64 = 86_400;

/// Places bytes in a client's memory for good.
fn put(client: &Client, bytes: &[u8]) -> u64 {
    client.space().alloc_from(bytes).expect("room")
}

fn put_i64s(client: &Client, numbers: &[i64]) -> u64 {
    put(client, &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
}

/// Arms one of each kind of timer, all of which send SIGALRM once.
fn arm(client: &Client, milliseconds: i64) {
    let (sec, rest) = (milliseconds / 1000, milliseconds % 1000);
    let real = put_i64s(client, &[0, 0, sec, rest * 1000]);
    client.call(SETITIMER, &[0, real, 0]).expect("setitimer");
    for clock in [0, 3] {
        let timer = client.space().buffer(4).expect("room");
        client.call(TIMER_CREATE, &[clock, 0, timer.addr()]).expect("timer_create");
        let id = u32::from_le_bytes(timer.bytes(4).try_into().expect("four"));
        let time = put_i64s(client, &[0, 0, sec, rest * 1_000_000]);
        client.call(TIMER_SETTIME, &[id.into(), 0, time, 0]).expect("timer_settime");
    }
}

/// Timers of clients that have left are over: neither the kernel nor the next client gets their
/// signals.
#[test]
fn timers_end_with_their_client() {
    let Some(stock) = Stock::find("timers_end_with_their_client") else {
        return;
    };
    let _alone = alone();
    for way in WAYS {
        let server = start(&stock, way);
        let url = server.url().clone();
        for round in 0..30 {
            let client = connect(&url);
            arm(&client, 300);
            if round % 3 == 0 {
                // One client's process was a prefork, and one has become another program.
                let child = client.prefork().expect("a prefork");
                arm(&child.connect().expect("a child"), 300);
                client.exec("another").expect("an exec");
            }
        }
        let heard = Arc::new(AtomicUsize::new(0));
        let hearing = heard.clone();
        let next = Client::builder().timeout(PATIENCE).on_signal(move |_| {
            hearing.fetch_add(1, Relaxed);
        });
        let next = next.connect(&url).expect("a client connects");
        // This timer expires after all of those.
        let time = put_i64s(&next, &[0, 0, 1, 0]);
        next.call(SETITIMER, &[0, time, 0]).expect("setitimer");
        let end = Instant::now() + SOON;
        while heard.load(Relaxed) == 0 {
            assert!(Instant::now() < end, "{way:?}: its own timer expires");
            next.getpid().expect("getpid");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(heard.load(Relaxed), 1, "{way:?}: its own signal, and nobody else's");
        drop(next);
        until_empty(&url, "all have gone");
        ends_well(server);
    }
}

/// Begins a call that sleeps for a day.
fn begin_day(client: &Client, kind: &str) -> Pending {
    let day = put_i64s(client, &[DAY, 0]);
    let rest = client.space().alloc(16).expect("room");
    match kind {
        "nanosleep" => client.begin(NANOSLEEP, &[day, 0]),
        "nanosleep, with the rest" => client.begin(NANOSLEEP, &[day, rest]),
        "clock_nanosleep" => client.begin(CLOCK_NANOSLEEP, &[3, 0, day, rest]),
        "select" => client.begin(SELECT, &[0, 0, 0, 0, day]),
        "poll" => client.begin(POLL, &[0, 0, u64::from(u32::MAX)]),
        "kevent" => {
            let [queue, _] = client.call(number_of("kqueue"), &[]).expect("a kqueue");
            let event = client.space().alloc(64).expect("room");
            client.begin(KEVENT, &[queue as u64, 0, 0, event, 1, day])
        }
        "bpf" => {
            const BIOCSETIF: u64 = 0x8090_426c;
            const BIOCGBLEN: u64 = 0x4004_4266;
            let bpf = client.open("/dev/bpf", O_RDWR, 0).expect("a bpf device");
            let mut name = [0; 144];
            name[..3].copy_from_slice(b"lo0");
            let name = put(client, &name);
            client.call(IOCTL, &[int(bpf), BIOCSETIF, name]).expect("its interface");
            let len = client.space().buffer(4).expect("room");
            client.call(IOCTL, &[int(bpf), BIOCGBLEN, len.addr()]).expect("its length");
            let len = u32::from_le_bytes(len.bytes(4).try_into().expect("four"));
            let to = client.space().alloc(len as usize).expect("room");
            client.begin(sys::READ, &[int(bpf), to, len.into()])
        }
        _ => unreachable!("{kind}"),
    }
}

/// Calls that would sleep for a day end with their client, and with its exec. Calls that the kernel
/// itself wakes are included to show that they still end.
#[test]
fn sleepers_end_with_their_client() {
    if Stock::find("sleepers_end_with_their_client").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&["-lrumpdev_bpf"]);
    let url = server.url().clone();
    let kinds = [
        "nanosleep",
        "nanosleep, with the rest",
        "clock_nanosleep",
        "select",
        "poll",
        "kevent",
        "bpf",
    ];
    for kind in kinds {
        for by_exec in [true, false] {
            let client = connect(&url);
            let mut call = begin_day(&client, kind);
            client.getpid().expect("getpid");
            server.until(SOON, kind, |counters| counters.get("asleep") >= 1.0);
            assert_eq!(call.try_finish(), None, "{kind}: it sleeps");
            if by_exec {
                client.exec("another").unwrap_or_else(|error| panic!("{kind}: an exec: {error}"));
                let end = call.finish_timeout(SOON).expect("it ends with an exec");
                let is_interrupted =
                    matches!(&end, Err(CallError::Errno(errno)) if errno.0 == EINTR);
                // clock_nanosleep returns the error as its value.
                let is_returned = kind == "clock_nanosleep" && end == Ok([i64::from(EINTR), 0]);
                assert!(is_interrupted || is_returned, "{kind}: {end:?}");
            }
            drop((call, client));
            until_empty(&url, kind);
        }
    }
    server.until(SOON, "nobody asleep", |counters| counters.get("asleep") == 0.0);
    ends_well(server);
}

/// At a small bound on sleepers, those of a client that has left do not count.
#[test]
fn sleepers_of_one_that_left_do_not_count() {
    const MOST: usize = 4;
    const EACH: usize = 200;
    if Stock::find("sleepers_of_one_that_left_do_not_count").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&["--max-asleep", &MOST.to_string()]);
    let url = server.url().clone();
    let stranger = connect(&url);
    for _ in 0..3 {
        let client = connect(&url);
        let calls: Vec<_> = (0..EACH).map(|_| begin_day(&client, "nanosleep")).collect();
        client.getpid().expect("getpid");
        server.until(SOON, "as many asleep as may be", |counters| {
            counters.get("asleep") >= (MOST - 1) as f64
        });
        drop((calls, client));
        let time = put_i64s(&stranger, &[0, 1_000_000]);
        let slept = stranger.call(NANOSLEEP, &[time, 0]);
        assert_eq!(slept, Ok([0, 0]), "a stranger sleeps for a millisecond");
    }
    drop(stranger);
    until_empty(&url, "all have gone");
    ends_well(server);
}

/// A client that leaves in the middle of a call that waits inside the kernel does not keep the kernel
/// from going on: here each close takes an interface apart.
#[test]
fn clients_that_leave_while_a_tap_is_closed() {
    if Stock::find("clients_that_leave_while_a_tap_is_closed").is_none() {
        return;
    }
    let _alone = alone();
    let server = serve(&["-lrumpnet_tap"]);
    let url = server.url().clone();
    for round in 0..150_u64 {
        let client = connect(&url);
        let tap = client.open("/dev/tap", O_RDWR, 0).expect("a tap");
        client.post(CLOSE, &[int(tap)]);
        client.flush();
        thread::sleep(Duration::from_micros(round % 30 * 20));
    }
    until_empty(&url, "all have gone");
    ends_well(server);
}

/// A socket that lingers does not keep the process of a client that has left, nor its exec.
#[test]
fn lingering_sockets_do_not_keep_processes() {
    const SOL_SOCKET: u64 = 0xffff;
    const SO_LINGER: u64 = 0x80;
    const F_SETFD: u64 = 2;
    if Stock::find("lingering_sockets_do_not_keep_processes").is_none() {
        return;
    }
    let _alone = alone();
    let server = serve(&[]);
    let url = server.url().clone();
    for by_exec in [false, true] {
        let client = connect(&url);
        let any = sockaddr_in("127.0.0.1:7070".parse().expect("an address"));
        let listener = client.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        client.bind(listener, &any).expect("bind");
        client.call(LISTEN, &[int(listener), 1]).expect("listen");
        let socket = client.socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
        let at = put(&client, &any);
        client.call(CONNECT, &[int(socket), at, any.len() as u64]).expect("connect");
        let [_peer, _] = client.call(ACCEPT, &[int(listener), 0, 0]).expect("accept");
        client.call(number_of("fcntl"), &[int(socket), 4, O_NONBLOCK as u64]).expect("fcntl");
        while client.write(socket, &[0; 16_384]).is_ok() {}
        client.call(number_of("fcntl"), &[int(socket), 4, 0]).expect("fcntl");
        let linger = put(&client, &[1u32.to_le_bytes(), 65_535u32.to_le_bytes()].concat());
        client.call(SETSOCKOPT, &[int(socket), SOL_SOCKET, SO_LINGER, linger, 8]).expect("linger");
        if by_exec {
            client.call(number_of("fcntl"), &[int(socket), F_SETFD, 1]).expect("close-on-exec");
            client.exec("another").expect("an exec");
            assert!(client.write(socket, b"x").is_err(), "the socket is closed");
        }
        drop(client);
        until_empty(&url, "a client that lingers has gone");
    }
    ends_well(server);
}

/// Returns a connection whose handshake is done, and the reading end of a pipe of its process.
fn with_pipe(url: &Url) -> (RawConnection, u64) {
    let mut raw = RawConnection::connect(url).expect("a connection");
    raw.hello("leaves", PATIENCE).expect("a handshake");
    let mut frame = Vec::new();
    wire::syscall_request(&mut frame, 1, sys::PIPE, &[]);
    raw.write(&frame).expect("a pipe is asked for");
    let answer = raw.read_frame(PATIENCE).expect("a pipe");
    (raw, wire::read_u64(&answer.body, 8))
}

/// Over TCP the end of a client's stream wakes its calls, here while its exec does so already.
#[test]
fn clients_that_leave_in_their_exec() {
    if Stock::find("clients_that_leave_in_their_exec").is_none() {
        return;
    }
    let _alone = alone();
    let server = serve_tcp();
    let url = server.url().clone();
    for _ in 0..300 {
        let (mut raw, reader) = with_pipe(&url);
        let mut frames = Vec::new();
        wire::syscall_request(&mut frames, 2, sys::READ, &[reader, 0x5000, 10]);
        wire::handshake_request(&mut frames, 3, Handshake::Exec, "next");
        raw.write(&frames).expect("a read, then an exec");
    }
    until_empty(&url, "all have gone");
    ends_well(server);
}

/// NetBSD's own server stops at this: its select(2) gives up a CPU with a lock that others spin for.
#[test]
fn clients_that_leave_as_their_polls_fall_asleep() {
    const POLLS: u64 = 200;
    if Stock::find("clients_that_leave_as_their_polls_fall_asleep").is_none() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}", dir.path().join("s").display());
    let mut command = process::rumpring();
    // With few CPUs the fault comes soon.
    command.env("RUMP_NCPU", "2");
    let args: Vec<&str> = ["--kernel", "librump"].iter().chain(&COMPONENTS).copied().collect();
    let server = Server::run(command, dir, &url, &args);
    let url = server.url().clone();
    for _ in 0..60 {
        let (mut raw, reader) = with_pipe(&url);
        let mut frames = Vec::new();
        (0..POLLS).for_each(|reqno| {
            wire::syscall_request(&mut frames, reqno, POLL, &[0x4000, 1, u64::MAX]);
        });
        raw.write(&frames).expect("polls");
        // A struct pollfd: the descriptor, and POLLIN.
        let pollfd = (reader | 1 << 32).to_le_bytes();
        for _ in 0..POLLS {
            let asked = raw.read_frame(PATIENCE).expect("the kernel goes on").header.reqno;
            let mut answer = Vec::new();
            let Ok(()) = wire::copyin_response(&mut answer, asked, |out| {
                out.extend_from_slice(&pollfd);
                Ok::<_, std::convert::Infallible>(())
            });
            raw.write(&answer).expect("an answer");
        }
    }
    until_empty(&url, "all have gone");
    ends_well(server);
}

/// The kernel asks for a call to be made again whose file was closed while it slept. A client never
/// sees that.
#[test]
fn a_read_of_what_is_closed_meanwhile_fails() {
    const EBADF: i32 = 9;
    if Stock::find("a_read_of_what_is_closed_meanwhile_fails").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&[]);
    let client = connect(server.url());
    let [reader, _] = client.pipe().expect("a pipe");
    let buffer = client.space().buffer(8).expect("room");
    let read = client.begin(sys::READ, &[int(reader), buffer.addr(), 8]);
    server.until(SOON, "the read sleeps", |counters| counters.get("asleep") > 0.0);
    client.close(reader).expect("close");
    match read.finish() {
        Err(CallError::Errno(errno)) => assert_eq!(errno.0, EBADF),
        other => panic!("{other:?}"),
    }
    drop(buffer);
    drop(client);
    ends_well(server);
}

/// Has a client begin a call that keeps a file locked inside the kernel for as long as the client
/// wants: `begin` makes the call on a file that the client has opened. Another client waits for that
/// file, but not for longer than `--answer-time`.
fn keeps_a_file(url: &Url, begin: impl FnOnce(&mut RawConnection, u64)) {
    let owner = connect(url);
    let file = owner.open("/kept", O_CREAT | O_RDWR, 0o600).expect("a file");
    let piece = owner.space().buffer(1 << 20).expect("room");
    for _ in 0..8 {
        owner.call(sys::WRITE, &[int(file), piece.addr(), 1 << 20]).expect("a write");
    }
    let mut keeper = RawConnection::connect(url).expect("a connection");
    keeper.hello("keeper", PATIENCE).expect("a handshake");
    let mut frame = Vec::new();
    wire::syscall_request(&mut frame, 1, sys::OPEN, &[0x1000, O_RDWR as u64, 0]);
    keeper.write(&frame).expect("an open");
    let ask = keeper.read_frame(PATIENCE).expect("the name is asked for");
    let name = b"/kept\0";
    let header = wire::Header { len: 24 + name.len() as u64, class: 1, ..ask.header };
    keeper.write(&[&header.encode()[..], name].concat()).expect("the name");
    let opened = keeper.read_frame(PATIENCE).expect("an open file");
    begin(&mut keeper, wire::read_u64(&opened.body, 8));
    // The call is in the middle of its work once it asks for nothing more, or a moment later.
    thread::sleep(Duration::from_millis(300));
    let stranger = connect(url);
    stranger.open("/kept", O_RDWR, 0).expect("the file can be looked up");
    stranger.open("/new", O_CREAT | O_RDWR, 0o600).expect("another can be made");
    assert!(keeper.closes_within(PATIENCE).expect("its end"), "the keeper is hung up on");
}

#[test]
fn a_client_that_is_waited_for_inside_the_kernel_has_only_so_long() {
    let name = "a_client_that_is_waited_for_inside_the_kernel_has_only_so_long";
    if Stock::find(name).is_none() {
        return;
    }
    let _alone = alone();
    let server = serve(&["--answer-time", "1", "--linger", "1"]);
    let url = server.url().clone();
    // The write is longer than the server asks for ahead: some bytes the kernel asks for with the file
    // locked.
    keeps_a_file(&url, |keeper, file| {
        let mut frame = Vec::new();
        wire::syscall_request(&mut frame, 2, sys::WRITE, &[file, 0x10000, 8 << 20]);
        keeper.write(&frame).expect("a write");
        keeper.read_frame(PATIENCE).expect("its bytes are asked for");
    });
    keeps_a_file(&url, |keeper, file| {
        let mut frame = Vec::new();
        wire::syscall_request(&mut frame, 3, sys::READ, &[file, 0x10000, 8 << 20]);
        keeper.write(&frame).expect("a read, of which nothing is taken");
    });
    until_empty(&url, "keepers have gone");
    ends_well(server);
}

/// fcntl(2) with F_CLOSEM loops while another thread closes the last descriptor.
#[test]
fn closing_what_is_being_closed_keeps_nobody_waiting() {
    use kernel::sys::{FCNTL, FLOCK};
    const LOCK_EX: u64 = 2;
    const F_CLOSEM: u64 = 10;
    if Stock::find("closing_what_is_being_closed_keeps_nobody_waiting").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&[]);
    let url = server.url().clone();
    let client = connect(&url);
    let [first, last] =
        [0; 2].map(|_| client.open("/locked", O_CREAT | O_RDWR, 0o600).expect("a file"));
    client.call(FLOCK, &[int(first), LOCK_EX]).expect("a lock");
    let mut calls = vec![client.begin(FLOCK, &[int(last), LOCK_EX])];
    server.until(SOON, "the second waits", |counters| counters.get("asleep") > 0.0);
    calls.push(client.begin(sys::CLOSE, &[int(last)]));
    server.until(SOON, "its close waits", |counters| counters.get("asleep") > 1.0);
    // These are more calls than there are threads.
    calls.extend((0..64).map(|_| client.begin(FCNTL, &[int(last), F_CLOSEM])));
    let stranger = connect(&url);
    for _ in 0..10 {
        stranger.pipe().expect("a pipe");
    }
    drop(stranger);
    drop(calls);
    drop(client);
    until_empty(&url, "it has gone with its calls");
    ends_well(server);
}

/// The end of a process closes its pipes, and waits there until others have left them.
#[test]
fn a_reader_that_leaves_ends_a_write_of_another() {
    const EPIPE: i32 = 32;
    if Stock::find("a_reader_that_leaves_ends_a_write_of_another").is_none() {
        return;
    }
    let _alone = alone();
    let mut server = serve(&[]);
    let url = server.url().clone();
    for _ in 0..20 {
        let parent = connect(&url);
        let [reader, writer] = parent.pipe().expect("a pipe");
        let child = Client::fork(&parent.prefork().expect("a prefork")).expect("a child");
        child.close(reader).expect("close");
        let data = child.space().buffer(1 << 20).expect("room");
        let write = child.begin(sys::WRITE, &[int(writer), data.addr(), 1 << 20]);
        server.until(SOON, "the write sleeps", |counters| counters.get("asleep") > 0.0);
        drop(parent);
        match write.finish() {
            // The result depends on the bytes read meanwhile, which are few or none.
            Ok([written, _]) => assert!((1..1 << 20).contains(&written), "{written}"),
            Err(CallError::Errno(errno)) => assert_eq!(errno.0, EPIPE),
            Err(error) => panic!("{error}"),
        }
        drop(data);
    }
    until_empty(&url, "all have gone");
    ends_well(server);
}
