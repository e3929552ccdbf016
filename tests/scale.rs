//! Very many clients of the program: ten thousand asleep at once, storms of clients that come and go,
//! and families that fork. The server's resources are counted from outside, before and after.
//!
//! All numbers are printed (`--nocapture`). Where the file limit has no room for as many clients as a
//! test wants, it takes as many as there is room for, and says so.

mod process;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::{CallError, Client, ForkToken, Pending};
use embedded::{Embedded, Usage};
use kernel::sys::{CLOSE, GETPID, NANOSLEEP, OPEN, PIPE, READ, REBOOT, WRITE};
use process::{Counters, Server};
use rumpring::server::{Config, Running};
use rumpsp::url::Url;
use rumpsp::wire::ErrorCode;

const CREATE_TO_WRITE: u64 = 0x201;

/// The time for anything that all those clients together wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Threads of the server besides its workers, of which there is one for each CPU: the submission
/// thread, the threads that handle signals and write lines, the worker for calls that go ahead of long
/// ones, and two that a worker may ask for.
const OTHER_THREADS: u64 = 6;

fn most_threads() -> u64 {
    process::cpus() + OTHER_THREADS
}

/// Descriptors that are left to the test itself.
const OWN_FILES: u64 = 150;

/// Lets one test run at a time: the tests of this file share one process, and so one file limit.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of clients there is room for, at most `wanted`.
fn room_for(wanted: usize) -> usize {
    let limit = process::raise_file_limit();
    let room = usize::try_from(limit.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX);
    if room < wanted {
        process::say(&format!(
            "{room} clients instead of {wanted}: the open file limit is {limit}"
        ));
    }
    assert!(room >= 50, "an open file limit of {limit} leaves no room for clients; raise it");
    room.min(wanted)
}

fn connect(url: &Url) -> Client {
    Client::builder().timeout(PATIENCE).connect(url).expect("a client connects")
}

#[track_caller]
fn call(client: &Client, number: i32, args: &[u64]) -> [i64; 2] {
    match client.call(number, args) {
        Ok(values) => values,
        Err(error) => panic!("call {number} with {args:?}: {error}"),
    }
}

/// Makes a pipe; returns both ends, the one to read from first.
fn pipe(client: &Client) -> [u64; 2] {
    call(client, PIPE, &[]).map(|fd| u64::try_from(fd).expect("a descriptor"))
}

/// A client with a read asleep on an empty pipe of its own.
struct Sleeper {
    client: Client,
    read: Pending,
    into: u64,
    write_end: u64,
}

impl Sleeper {
    fn new(url: &Url) -> Sleeper {
        let client = connect(url);
        let [read_end, write_end] = pipe(&client);
        let into = client.space().alloc(1).expect("a byte of memory");
        let read = client.begin(READ, &[read_end, into, 1]);
        Sleeper { client, read, into, write_end }
    }
}

#[test]
fn ten_thousand_sleep_while_one_is_served() {
    let _alone = alone();
    let clients = room_for(10_000);
    let mut server = Server::start(&[]);
    // One client comes first, so that one-time memory is there before memory is counted.
    drop(Sleeper::new(server.url()));
    server.until(PATIENCE, "the first client gone", |c| c.get("connections") == 0.0);
    let before = server.rss();

    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let url = server.url().clone();
    let worst = thread::scope(|scope| {
        let caller = scope.spawn(|| call_until(&url, &stop, &answered));
        sleep_and_wake(&mut server, clients, before, &answered);
        stop.store(true, Relaxed);
        caller.join().expect("getpid kept answering")
    });
    println!("meanwhile {answered:?} getpid of another client, the slowest in {worst:?}");
    let end = server.until(PATIENCE, "nobody left", Counters::is_idle);
    println!("{}", end.line());
}

#[test]
fn halt_ends_two_thousand_sleepers_over_tcp() {
    let _alone = alone();
    let clients = room_for(2000);
    let mut server = Server::start_tcp(&[]);
    let before = server.rss();
    let sleepers = sleepers(&mut server, clients, before);
    let start = Instant::now();
    call(&connect(server.url()), REBOOT, &[0, 0]);
    let status = server.ended_within(PATIENCE, "halt");
    println!("a server with {clients} sleeping clients halted in {:?}", start.elapsed());
    assert!(status.success(), "a halted server has not failed: {status}");
    for (i, mut sleeper) in sleepers.into_iter().enumerate() {
        let read = sleeper.read.finish_timeout(PATIENCE);
        assert!(
            matches!(read, Some(Err(CallError::Lost(_) | CallError::Errno(_)))),
            "reader {i} ends with the server: {read:?}"
        );
    }
}

/// Calls getpid until told to stop, and counts; returns the slowest time.
fn call_until(url: &Url, stop: &AtomicBool, answered: &AtomicU64) -> Duration {
    let client = connect(url);
    let pid = call(&client, GETPID, &[])[0];
    let mut worst = Duration::ZERO;
    while !stop.load(Relaxed) {
        let start = Instant::now();
        assert_eq!(call(&client, GETPID, &[])[0], pid, "its pid is always the same");
        worst = worst.max(start.elapsed());
        answered.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
    worst
}

/// Waits until a hundred more calls were answered.
fn goes_on(answered: &AtomicU64) {
    let (before, end) = (answered.load(Relaxed), Instant::now() + PATIENCE);
    while answered.load(Relaxed) < before + 100 {
        assert!(Instant::now() < end, "another client's getpid was not answered a hundred times");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Puts `clients` clients to sleep, and checks the server's threads and memory for them.
fn sleepers(server: &mut Server, clients: usize, rss_before: u64) -> Vec<Sleeper> {
    let start = Instant::now();
    let mut sleepers: Vec<Sleeper> = (0..clients).map(|_| Sleeper::new(server.url())).collect();
    println!("{clients} clients connected, each with a read begun, in {:?}", start.elapsed());
    let counters =
        server.until(PATIENCE, "every read in flight", |c| c.get("in_flight") >= clients as f64);
    let others = counters.get("connections") - clients as f64;
    assert!((0.0..=1.0).contains(&others), "the sleepers, and the caller if there is one");

    let (threads, most) = (server.threads(), most_threads());
    println!("{threads} threads in the server, of at most {most}");
    assert!(threads <= most, "{threads} threads for {clients} sleeping reads");
    let rss = server.rss();
    let each = rss.saturating_sub(rss_before) as f64 / clients as f64;
    println!("{rss_before} KiB before, {rss} KiB with all asleep: {each:.2} KiB a client");
    // Some memory comes with the first clients and stays the same for any number: buffers, tables, and
    // the memory of a worker on each CPU.
    let most = rss_before + 8192 + 256 * process::cpus() + 8 * clients as u64;
    assert!(rss <= most, "{rss} KiB of memory for {clients} sleeping clients, of at most {most}");

    for (i, sleeper) in sleepers.iter_mut().enumerate() {
        assert_eq!(sleeper.read.try_finish(), None, "reader {i} sleeps until there is a byte");
    }
    sleepers
}

fn sleep_and_wake(server: &mut Server, clients: usize, rss_before: u64, others: &AtomicU64) {
    let mut sleepers = sleepers(server, clients, rss_before);
    goes_on(others);
    let start = Instant::now();
    for (i, sleeper) in sleepers.iter().enumerate() {
        let from = sleeper.client.space().alloc_from(&[byte(i)]).expect("a byte of memory");
        let wrote = call(&sleeper.client, WRITE, &[sleeper.write_end, from, 1]);
        assert_eq!(wrote[0], 1, "a byte for reader {i}");
    }
    for (i, sleeper) in sleepers.iter_mut().enumerate() {
        let read = sleeper.read.finish_timeout(PATIENCE);
        assert_eq!(read, Some(Ok([1, 0])), "reader {i} wakes up");
        let bytes = sleeper.client.space().read(sleeper.into, 1);
        assert_eq!(bytes, Ok(vec![byte(i)]), "and has its own byte");
    }
    println!("every reader has its byte after {:?}", start.elapsed());
    goes_on(others);
    let (threads, most) = (server.threads(), most_threads());
    assert!(threads <= most, "{threads} threads after all were woken, of at most {most}");
}

/// Returns a byte that tells readers apart.
fn byte(i: usize) -> u8 {
    (i % 251) as u8 + 1
}

/// A client of the storm, by the thing it is in the middle of when it leaves.
// The fields are only there to be dropped.
#[allow(dead_code)]
enum Guest {
    /// Nothing: it has been served.
    Idle(Client),
    /// The handshake: not all of its header has been sent, and the banner not read.
    Raw(UnixStream),
    /// A read of an empty pipe, or a sleep of an hour.
    Asleep(Client, Pending),
    /// A fork: the child has not come.
    Parent(Client, ForkToken),
    /// A call whose answer it does not wait for, with a file open.
    Hasty(Client, Pending),
}

/// One of this many clients has a prefork: orphans live on for a while, and the server bounds them.
const ONE_PARENT_IN: usize = 60;

impl Guest {
    fn new(url: &Url, i: usize) -> Guest {
        if i.is_multiple_of(5) {
            let mut socket = UnixStream::connect(url.path().expect("a path")).expect("connects");
            socket.write_all(&[32, 0, 0, 0, 0, 0, 0, 0, 7][..i % 10]).expect("part of a header");
            return Guest::Raw(socket);
        }
        let client = connect(url);
        if i % ONE_PARENT_IN == 1 {
            let token = client.prefork().expect("a prefork");
            return Guest::Parent(client, token);
        }
        match i % 5 {
            1 => {
                assert!(call(&client, GETPID, &[])[0] > 0);
                Guest::Idle(client)
            }
            2 => {
                let [read_end, _] = pipe(&client);
                let into = client.space().alloc(1).expect("memory");
                let read = client.begin(READ, &[read_end, into, 1]);
                Guest::Asleep(client, read)
            }
            3 => {
                let hour: Vec<u8> = [3600_i64, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
                let time = client.space().alloc_from(&hour).expect("memory");
                let sleep = client.begin(NANOSLEEP, &[time, 0]);
                Guest::Asleep(client, sleep)
            }
            _ => {
                let path = client.space().alloc_str("/storm").expect("memory");
                call(&client, OPEN, &[path, CREATE_TO_WRITE, 0o600]);
                let pending = client.begin(GETPID, &[]);
                Guest::Hasty(client, pending)
            }
        }
    }
}

/// The fewest rounds of the storm; and the most, if the memory still grows.
const ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 15;

/// Uses each receive buffer once: they are taken in turn, so that a server's memory grows until all
/// have been used.
fn warm_up(url: &Url) {
    let client = connect(url);
    for _ in 0..ring::Config::default().recv_buffers {
        call(&client, GETPID, &[]);
    }
}

#[test]
fn a_storm_leaves_nothing_behind() {
    let _alone = alone();
    let clients = room_for(10_000);
    // Some clients never make a handshake, and must be there when all are, however busy the machine is.
    let mut server = Server::start(&["--handshake-time", "3600"]);
    warm_up(server.url());
    server.until(PATIENCE, "the first client gone", |c| c.get("connections") == 0.0);
    let fds = server.fds();
    let mut rss = vec![server.rss()];
    // Memory that is kept for reuse, such as chunks and tasks, grows with the most work there was at
    // once, which differs from round to round. Memory that is lost grows with every round.
    let grows = |rss: &[u64]| match rss[..] {
        [.., before, last] => last > before + before / 100 + 512,
        _ => true,
    };
    for round in 1..=MOST_ROUNDS {
        if round > ROUNDS && !grows(&rss) {
            break;
        }
        let start = Instant::now();
        let guests: Vec<Guest> = (0..clients).map(|i| Guest::new(server.url(), i)).collect();
        let came = start.elapsed();
        server.until(PATIENCE, "all clients there", |c| c.get("connections") == clients as f64);
        let full = server.rss();
        let there = start.elapsed();
        drop(guests);
        let dropped = start.elapsed();
        server.until(PATIENCE, "all clients gone", |c| {
            c.get("connections") == 0.0 && c.get("in_flight") == 0.0
        });
        rss.push(server.rss());
        println!(
            "round {round}: {clients} clients came in {came:?}, were there after {there:?}, were dropped \
             after {dropped:?} and had gone after {:?}; {full} KiB with them, {} KiB without",
            start.elapsed(),
            rss[round],
        );
        assert_eq!(server.fds(), fds, "descriptors of the server, as at the start");
        // Workers start when they are first needed.
        let (threads, most) = (server.threads(), most_threads());
        assert!(threads <= most, "{threads} threads in the server, of at most {most}");
    }
    assert!(!grows(&rss), "memory grows each round: {rss:?} KiB after each");
    let end = server.until(PATIENCE, "no preforks and no timers", Counters::is_idle);
    println!("{}", end.line());
    assert_eq!(end.get("panics"), 0.0, "panics of the server");
    assert!(call(&connect(server.url()), GETPID, &[])[0] > 0, "it serves as before");
}

/// Children of each parent in the fork storm. Each has a child, too.
const CHILDREN: usize = 4;

#[test]
fn a_fork_storm_leaves_nothing_behind() {
    let _alone = alone();
    let family = 1 + 2 * CHILDREN;
    let parents = room_for(300 * family) / family;
    let mut server = Server::start(&[]);
    drop(connect(server.url()));
    server.until(PATIENCE, "the first client gone", |c| c.get("connections") == 0.0);
    let fds = server.fds();
    let start = Instant::now();
    let mut families: Vec<Family> = (0..parents).map(|_| Family::new(server.url())).collect();
    let there = (parents * family) as f64;
    server.until(PATIENCE, "all families there", |c| c.get("connections") == there);
    println!("{parents} families of {family} in {:?}", start.elapsed());
    for family in &mut families {
        family.share_a_pipe();
    }
    println!("every family shared its pipe after {:?}", start.elapsed());
    drop(families);
    let end = server.until(PATIENCE, "nobody left, unused preforks included", Counters::is_idle);
    println!("all gone after {:?}: {}", start.elapsed(), end.line());
    assert_eq!(server.fds(), fds, "descriptors of the server, as at the start");
    assert_eq!(end.get("panics"), 0.0, "panics of the server");
}

/// A parent and two generations of children, all with the parent's pipe.
struct Family {
    parent: Client,
    pipe: [u64; 2],
    descendants: Vec<Client>,
    /// A prefork that has the pipe, and one that is older than the pipe and never used.
    withheld: ForkToken,
    _unused: ForkToken,
}

impl Family {
    fn new(url: &Url) -> Family {
        let parent = connect(url);
        let unused = parent.prefork().expect("a prefork");
        let pipe = pipe(&parent);
        let mut descendants = Vec::new();
        // All tokens are made first, so that many wait at a time.
        let tokens: Vec<ForkToken> =
            (0..CHILDREN).map(|_| parent.prefork().expect("a prefork")).collect();
        for token in &tokens {
            let child = token.connect().expect("a child connects");
            let grandchild = child.prefork().expect("a prefork").connect().expect("a grandchild");
            let again = token.connect().expect_err("a token is good once");
            assert_eq!(again.refused(), Some(ErrorCode::InvalidPrefork), "{again}");
            descendants.extend([child, grandchild]);
        }
        let cancelled = parent.prefork().expect("a prefork");
        cancelled.cancel().expect("a prefork is cancelled");
        let late = cancelled.connect().expect_err("a cancelled token is worth nothing");
        assert_eq!(late.refused(), Some(ErrorCode::InvalidPrefork), "{late}");
        let withheld = parent.prefork().expect("a prefork");
        Family { parent, pipe, descendants, withheld, _unused: unused }
    }

    /// Has every descendant write a byte; then they go, and the last writer goes with the last prefork.
    fn share_a_pipe(&mut self) {
        let [read_end, write_end] = self.pipe;
        let mut pids = vec![call(&self.parent, GETPID, &[])[0]];
        for descendant in &self.descendants {
            pids.push(call(descendant, GETPID, &[])[0]);
            let byte = descendant.space().alloc_from(b"x").expect("memory");
            assert_eq!(call(descendant, WRITE, &[write_end, byte, 1])[0], 1);
        }
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 1 + self.descendants.len(), "everybody has a pid of its own");
        let into = self.parent.space().alloc(64).expect("memory");
        let read = call(&self.parent, READ, &[read_end, into, 64]);
        assert_eq!(read[0], self.descendants.len() as i64, "a byte of each");
        self.descendants.clear();
        call(&self.parent, CLOSE, &[write_end]);
        let mut end = self.parent.begin(READ, &[read_end, into, 64]);
        assert_eq!(end.try_finish(), None, "the child to come has the pipe to write to");
        self.withheld.cancel().expect("a prefork is cancelled");
        assert_eq!(end.finish_timeout(PATIENCE), Some(Ok([0, 0])), "nobody has it any more");
    }
}

/// Runs inside one process, where the kernel's usage can be asked for.
#[test]
fn a_storm_leaves_no_process_and_no_file_in_the_kernel() {
    let _alone = alone();
    // Both ends of each connection are in this process; the server's need no descriptor.
    let clients = room_for(3000);
    let dir = tempfile::tempdir().expect("a directory");
    let url = Url::Unix(dir.path().join("s"));
    let kernel = Arc::new(Embedded::default());
    let mut config = Config::new(url.clone());
    config.ring.sockets = clients as u32 + 10;
    config.limits.orphan = Duration::from_millis(200);
    let server = Running::start(config, kernel.clone()).expect("a server");
    let empty = kernel.usage();
    // No client is connected, and their things in the kernel have been released, which happens later.
    let idle = |why: &str, is_as_before: &dyn Fn(&Usage) -> bool| {
        let end = Instant::now() + PATIENCE;
        loop {
            let stats = server.control().stats().expect("the server answers");
            let (core, held) = (stats.core, kernel.usage());
            let is_deserted = (core.connections, core.calls_in_flight, core.preforks) == (0, 0, 0);
            if is_deserted && is_as_before(&held) {
                return held;
            }
            assert!(Instant::now() < end, "{why}: expected nothing left, but {core:?} {held:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    // The file that the storm opens stays, so it is made before.
    drop(Guest::new(&url, 4));
    let before = idle("before the storm", &|held| {
        (held.processes, held.files, held.ports) == (empty.processes, empty.files, empty.ports)
    });
    for _ in 0..3 {
        let guests: Vec<Guest> = (0..clients).map(|i| Guest::new(&url, i)).collect();
        let during = kernel.usage();
        assert!(during.processes > before.processes, "{during:?}");
        drop(guests);
        let after = idle("after the storm", &|held| *held == before);
        println!("{clients} clients: {before:?} before, {during:?} with them, {after:?} after");
    }
    server.stop().expect("the server stops");
}

/// One more client than `--connections` allows waits, and is served when another has left.
#[test]
fn a_full_server_serves_the_next_when_one_leaves() {
    let _alone = alone();
    let mut server = Server::start(&["--connections", "8"]);
    let mut clients: Vec<Client> = (0..8).map(|_| connect(server.url())).collect();
    let url = server.url().clone();
    let waiting = thread::spawn(move || call(&connect(&url), GETPID, &[]));
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "all places are taken: the ninth client waits");
    for client in &clients {
        assert!(call(client, GETPID, &[])[0] > 0, "those who are in are served");
    }
    clients.pop();
    let end = Instant::now() + process::SOON;
    while !waiting.is_finished() {
        assert!(Instant::now() < end, "a place was free and nobody got it; {:?}", server.said());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(waiting.join().expect("the ninth client is served")[0] > 0);
    assert_eq!(server.said().len(), 1, "that is no reason to complain: {:?}", server.said());
}
