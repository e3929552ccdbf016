//! A rump kernel for tests where there is none: built with `cc` from the C beside this file, and the
//! programs that serve it.

// Each test crate uses what it needs of it.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use client::Client;
use rumpsp::url::Url;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{self, SOON, Server, rumpring};

/// The stand-in's own calls, as in `librumpkern_sysproxy.c`, with their arguments.
pub mod sys {
    /// From, to, length.
    pub const ECHO: i32 = 520;
    /// From, to, the most bytes.
    pub const ECHOSTR: i32 = 521;
    /// Length.
    pub const ANONMMAP: i32 = 522;
    /// Milliseconds; ends early if it has to.
    pub const NAP: i32 = 523;
    /// Milliseconds, then from, to, length to echo; nothing ends it early.
    pub const HOSTSLEEP: i32 = 524;
    /// To, length, times.
    pub const FLOOD: i32 = 525;
    /// The errno it ends with.
    pub const FAIL: i32 = 526;
    pub const ARGS: i32 = 527;
    pub const COUNT: i32 = 528;
    /// To, 17 bytes.
    pub const COMMAND: i32 = 529;
    pub const HOSTPID: i32 = 530;
    /// Path: keeps its CPU until the host has this file, and says so on stderr when it begins.
    pub const HOLD: i32 = 531;
    /// Signal, milliseconds; it comes whether the process is there or not.
    pub const LATER: i32 = 532;
    /// NetBSD's nanosleep(2): its time.
    pub const NANOSLEEP: i32 = 430;
    /// The first number that is out of range.
    pub const END: i32 = 600;
}

/// The counters of the stand-in.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    Procs,
    /// lwps of clients' processes.
    Lwps,
    /// lwps of workers.
    OwnLwps,
    FdTabs,
    Pipes,
    Shared,
    Copied,
    Cleared,
    Sleepers,
    Calls,
    /// The most threads that slept inside the kernel at once.
    MostAway,
    /// The threads that sleep inside the kernel now.
    Away,
    /// Signals that came later than they were asked for.
    LateRaises,
}

/// Returns the directory in which the stand-in is installed, as rump would be: with `lib` in it. Prints
/// that it is skipped and returns `None` if there is no C compiler.
pub fn prefix() -> Option<&'static Path> {
    static PREFIX: OnceLock<Option<PathBuf>> = OnceLock::new();
    PREFIX.get_or_init(build).as_deref()
}

/// Returns the path of a source file of the stand-in.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake").join(name)
}

fn build() -> Option<PathBuf> {
    if Command::new("cc").arg("--version").stdout(Stdio::null()).status().is_err() {
        process::say("skipped: there is no C compiler `cc` to build the stand-in kernel with");
        return None;
    }
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake");
    let lib = prefix.join("lib");
    fs::create_dir_all(&lib).expect("a directory for the stand-in");
    for name in ["rumpuser", "rump", "rumpkern_sysproxy"] {
        let soname = format!("-Wl,-soname,lib{name}.so.0");
        let args = ["-fPIC", "-shared", &soname, "-pthread"];
        cc(&lib.join(format!("lib{name}.so")), &source(&format!("lib{name}.c")), args);
        let _ = symlink(format!("lib{name}.so"), lib.join(format!("lib{name}.so.0")));
    }
    Some(prefix)
}

/// Compiles one source file. The output file appears whole: other test processes may do the same.
pub fn cc<S: AsRef<OsStr>>(to: &Path, from: &Path, args: impl IntoIterator<Item = S>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let unfinished = to.with_extension(format!("{}-{number}", std::process::id()));
    let mut command = Command::new("cc");
    command.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"]);
    command.arg(&unfinished).arg(from).args(args);
    let output = process::output(&mut command, SOON);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {words}");
    fs::rename(&unfinished, to).expect("the new file takes its place");
}

/// Returns a C program that asks the kernel for a server, linked with the kernel as any other; `first`
/// comes earlier in the link scope.
pub fn host(dir: &Path, first: Option<&Path>) -> PathBuf {
    let lib = prefix().expect("the caller has looked").join("lib");
    let program = dir.join("host");
    let mut args = vec!["-Wl,--no-as-needed".to_string()];
    args.extend(first.map(|first| first.display().to_string()));
    let names = ["rumpkern_sysproxy", "rump", "rumpuser"];
    args.extend(names.map(|name| lib.join(format!("lib{name}.so")).display().to_string()));
    args.push(format!("-Wl,-rpath,{}", lib.display()));
    args.extend(first.and_then(Path::parent).map(|dir| format!("-Wl,-rpath,{}", dir.display())));
    cc(&program, &source("host.c"), args);
    program
}

/// Returns the server as a library, which is built with the tests.
pub fn librumpring() -> PathBuf {
    let dir = Path::new(process::PROGRAM).parent().expect("the program is in a directory");
    let candidates = [dir.join("deps/librumpring.so"), dir.join("librumpring.so")];
    let built = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
    let newest = candidates.iter().filter(|path| path.exists()).max_by_key(|path| built(path));
    newest.unwrap_or_else(|| panic!("none of {candidates:?} is there")).clone()
}

/// Limits the lifetime of everything that serves the stand-in.
pub fn with_lifetime(command: &mut Command) -> &mut Command {
    for name in ["RUMP_PREFIX", "RUMP_NCPU", "RUMP_VERBOSE", "RUMP_MEMLIMIT", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    command.env("FAKE_LIFETIME", "600")
}

/// `rumpring serve --kernel librump` with the stand-in as the kernel.
pub struct Kernel {
    pub server: Server,
}

impl Kernel {
    /// Starts a server with two CPUs in the kernel. Returns `None` if there is no stand-in.
    pub fn start(args: &[&str]) -> Option<Kernel> {
        Kernel::with_cpus("2", args)
    }

    pub fn with_cpus(ncpu: &str, args: &[&str]) -> Option<Kernel> {
        let prefix = prefix()?.to_str().expect("a path of words");
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let url = format!("unix://{}", dir.path().join("s").display());
        let mut command = rumpring();
        with_lifetime(&mut command).env("RUMP_NCPU", ncpu);
        let args = [&["--kernel", "librump", "--rump-prefix", prefix], args].concat();
        Some(Kernel { server: Server::run(command, dir, &url, &args) })
    }

    /// Connects a guest.
    #[track_caller]
    pub fn client(&self) -> Client {
        connect(self.server.url())
    }

    /// Ends the server by SIGTERM: it halts the kernel, which has no processes left, and ends well.
    #[track_caller]
    pub fn ends_well(mut self) {
        let socket = self.server.socket();
        self.server.signal(Signal::TERM);
        let status = self.server.ended_within(SOON, "SIGTERM");
        assert_eq!(status.code(), Some(0), "it said {:?}", self.server.last_words());
        let said = self.server.last_words();
        assert!(said.contains(&"fake: halting with 0 processes".to_string()), "{said:?}");
        assert!(!socket.exists(), "the socket file stayed");
    }
}

/// Connects a guest to a server.
#[track_caller]
pub fn connect(url: &Url) -> Client {
    try_connect(url).unwrap_or_else(|error| panic!("{error}"))
}

pub fn try_connect(url: &Url) -> Result<Client, client::ConnectError> {
    Client::builder().name("test").timeout(SOON).connect(url)
}

/// Returns one of the stand-in's counters.
#[track_caller]
pub fn count(client: &Client, what: Count) -> i64 {
    client.call(sys::COUNT, &[what as u64]).unwrap_or_else(|error| panic!("{what:?}: {error}"))[0]
}

/// Waits until a counter satisfies `is`.
#[track_caller]
pub fn until(client: &Client, what: Count, is: impl Fn(i64) -> bool) -> i64 {
    let end = Instant::now() + SOON;
    loop {
        let value = count(client, what);
        if is(value) {
            return value;
        }
        assert!(Instant::now() < end, "{what:?} is {value} after {SOON:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until nothing is left of any client but this one, which makes its calls one at a time.
#[track_caller]
pub fn alone(client: &Client) {
    until(client, Count::Procs, |procs| procs == 1);
    until(client, Count::Lwps, |lwps| lwps <= 2);
    until(client, Count::FdTabs, |tables| tables == 1);
    until(client, Count::Sleepers, |sleepers| sleepers == 0);
}

/// A program that does not print when it is ready, and that ends with its test.
pub struct Program {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Program {
    pub fn spawn(command: &mut Command) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stderr, lines) = (child.stderr.take().expect("stderr is a pipe"), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Program { child, said }
    }

    /// Connects a client once the program serves.
    #[track_caller]
    pub fn client(&mut self, url: &Url) -> Client {
        let end = Instant::now() + SOON;
        loop {
            match try_connect(url) {
                Ok(client) => return client,
                Err(error) => {
                    let ended = self.child.try_wait().expect("a child can be waited for");
                    let said = self.said();
                    assert!(ended.is_none(), "it ended with {ended:?}: {said:?}");
                    assert!(Instant::now() < end, "it does not serve: {error}; it said {said:?}");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let status = process::wait(&mut self.child, SOON);
        status.unwrap_or_else(|| panic!("it still runs after {SOON:?}; it said {:?}", self.said()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the program said {:?}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is no child of this one any more, found by the server it runs; it ends with its test.
pub struct Daemon(Pid);

impl Daemon {
    /// Returns the process that serves this client.
    #[track_caller]
    pub fn of(client: &Client) -> Daemon {
        let [pid, _] = client.call(sys::HOSTPID, &[]).expect("the server's pid");
        let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw);
        let daemon = Daemon(pid.expect("a pid"));
        assert!(daemon.is_there(), "{pid:?} is not the program under test");
        daemon
    }

    pub fn pid(&self) -> Pid {
        self.0
    }

    /// Returns `true` if a process of that pid exists, and is the program under test.
    pub fn is_there(&self) -> bool {
        let program = fs::read_link(format!("/proc/{}/exe", self.0.as_raw_nonzero()));
        program.is_ok_and(|program| program == Path::new(process::PROGRAM))
    }

    #[track_caller]
    pub fn ends(&self) {
        let end = Instant::now() + SOON;
        while self.is_there() {
            assert!(Instant::now() < end, "it still runs after {SOON:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = kill_process(self.0, Signal::KILL);
        }
    }
}
