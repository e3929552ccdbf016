//! The program itself, as a process: started on a socket of its own, watched through `/proc`, and ended
//! by its pid when the test drops it.

// Each test crate has this module to itself and uses what it needs of it.
#![allow(dead_code)]

#[allow(clippy::duplicate_mod)]
mod files;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use client::raw::RawConnection;
use rumpsp::url::Url;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use files::raise_file_limit;

/// The time for anything that should take no time, on a machine with other work.
pub const SOON: Duration = Duration::from_secs(60);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rumpring");

/// Returns the program, not started yet, with no variable in its environment that would change its
/// behavior.
pub fn rumpring() -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["RUMP_SERVER", "RUST_LOG", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A running server.
pub struct Server {
    child: Child,
    url: Url,
    stderr: Receiver<String>,
    /// The lines it has printed so far, including the ready line, without counters.
    said: Vec<String>,
    dir: TempDir,
}

impl Server {
    /// Starts `rumpring serve` on a socket file of its own.
    pub fn start(args: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let url = format!("unix://{}", dir.path().join("s").display());
        Server::run(rumpring(), dir, &url, args)
    }

    /// Starts `rumpring serve` on a TCP port that the system chooses.
    pub fn start_tcp(args: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        Server::run(rumpring(), dir, "tcp://127.0.0.1:0", args)
    }

    /// Starts `command serve ARGS URL`, and waits until it prints that it listens.
    pub fn run(mut command: Command, dir: TempDir, url: &str, args: &[&str]) -> Server {
        raise_file_limit();
        command.arg("serve").args(args).arg(url).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = lines(child.stderr.take().expect("stderr is a pipe"));
        let url = "unix:///not/known/yet".parse().expect("a URL");
        let mut server = Server { child, url, stderr, said: Vec::new(), dir };
        let ready = server.line("`listening on URL`", |line| line.starts_with("listening on "));
        let url = ready.strip_prefix("listening on ").expect("the line looked for");
        server.url = url.parse().expect("the URL of the ready line");
        server
    }

    /// Starts a server that prints nothing when it is ready, and waits until it accepts a connection.
    /// The methods that ask for counters need a server that has them.
    pub fn run_quiet(mut command: Command, dir: TempDir, url: &str) -> Server {
        command.arg(url).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = lines(child.stderr.take().expect("stderr is a pipe"));
        let url = url.parse().expect("a URL");
        let mut server = Server { child, url, stderr, said: Vec::new(), dir };
        let end = Instant::now() + SOON;
        while RawConnection::connect(&server.url).is_err() {
            assert!(Instant::now() < end, "{command:?} does not listen: {:?}", server.said());
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Returns the URL it listens on.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns its directory, which is removed with the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of the socket file.
    pub fn socket(&self) -> PathBuf {
        self.url.path().expect("a server on a unix socket").to_path_buf()
    }

    /// Returns a command of the command line that goes to this server.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = rumpring();
        command.args(args).env("RUMP_SERVER", self.url.to_string());
        command
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the server is there for a signal");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the server's end.
    #[track_caller]
    pub fn ended_within(&mut self, most: Duration, why: &str) -> ExitStatus {
        let status = wait(&mut self.child, most);
        status.unwrap_or_else(|| {
            panic!("the server still runs {most:?} after {why}; it said {:?}", self.said())
        })
    }

    /// Returns `true` if the server still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the server can be waited for").is_none()
    }

    /// Returns everything the server printed on stderr until now.
    pub fn said(&mut self) -> &[String] {
        self.said.extend(self.stderr.try_iter().filter(|line| !is_counters(line)));
        &self.said
    }

    /// Returns everything the server printed on stderr, once it has ended.
    pub fn last_words(&mut self) -> &[String] {
        let _ = self.next_line_until(Instant::now() + SOON, |_| false);
        &self.said
    }

    /// Waits for the next line that `is_it` accepts.
    #[track_caller]
    fn line(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        match self.next_line_until(Instant::now() + SOON, is_it) {
            Some(line) => line,
            None => {
                let ended = wait(&mut self.child, Duration::from_millis(100));
                let ended = ended.map_or("it runs".into(), |status| format!("it ended: {status}"));
                panic!("no {what} within {SOON:?}; {ended}; the server said {:?}", self.said)
            }
        }
    }

    fn next_line_until(&mut self, end: Instant, is_it: impl Fn(&str) -> bool) -> Option<String> {
        loop {
            match self.stderr.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if !is_counters(&line) {
                        self.said.push(line.clone());
                    }
                    if is_it(&line) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Asks for the line of counters.
    #[track_caller]
    pub fn counters(&mut self) -> Counters {
        self.signal(Signal::USR1);
        let line = self.line("line of counters", is_counters);
        Counters::parse(&line)
    }

    /// Waits until the counters satisfy `ok`.
    #[track_caller]
    pub fn until(
        &mut self,
        most: Duration,
        what: &str,
        mut ok: impl FnMut(&Counters) -> bool,
    ) -> Counters {
        let end = Instant::now() + most;
        loop {
            let counters = self.counters();
            if ok(&counters) {
                return counters;
            }
            assert!(Instant::now() < end, "expected {what} within {most:?}, but: {counters:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the number of its threads.
    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Returns its resident memory in KiB.
    pub fn rss(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the number of its open file descriptors.
    pub fn fds(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("the server's descriptors").count()
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("the server's status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|rest| rest.split_whitespace().next()).expect("the line's value");
        word.parse().expect("a number")
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let url = self.url.clone();
            eprintln!("the server at {url} said {:?}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_counters(line: &str) -> bool {
    line.starts_with("connections ")
}

/// The line that a server prints at SIGUSR1.
#[derive(Debug)]
pub struct Counters {
    line: String,
    values: HashMap<String, f64>,
}

impl Counters {
    fn parse(line: &str) -> Counters {
        let words: Vec<&str> = line.split(' ').collect();
        let pairs = words.chunks(2).map(|pair| match pair {
            [name, value] => (name.to_string(), value.parse().expect("a counter's value")),
            _ => panic!("a name without a value in {line:?}"),
        });
        Counters { line: line.into(), values: pairs.collect() }
    }

    #[track_caller]
    pub fn get(&self, name: &str) -> f64 {
        match self.values.get(name) {
            Some(&value) => value,
            None => panic!("no counter {name} in {:?}", self.line),
        }
    }

    pub fn line(&self) -> &str {
        &self.line
    }

    /// Returns `true` if no client is connected or expected.
    pub fn is_deserted(&self) -> bool {
        ["connections", "in_flight", "preforks"].iter().all(|name| self.get(name) == 0.0)
    }

    /// Returns `true` if, besides, no timer runs: the time of unused preforks has passed.
    pub fn is_idle(&self) -> bool {
        self.is_deserted() && self.get("timers") == 0.0
    }
}

/// Returns the lines of a pipe, as they come.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Waits at most `most` for a child's end.
pub fn wait(child: &mut Child, most: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + most;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end, which must come in time.
#[track_caller]
pub fn output(command: &mut Command, most: Duration) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let drain = |pipe: &mut (dyn Read + Send)| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes)
    };
    let mut stdout = child.stdout.take().expect("stdout is a pipe");
    let mut stderr = child.stderr.take().expect("stderr is a pipe");
    let out = thread::spawn(move || drain(&mut stdout));
    let err = thread::spawn(move || drain(&mut stderr));
    let status = wait(&mut child, most);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |thread: thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().expect("the reader ends").expect("a pipe can be read")
    };
    let (stdout, stderr) = (text(out), text(err));
    match status {
        Some(status) => Output { status, stdout, stderr },
        None => panic!(
            "{command:?} had not ended after {most:?}; it said {:?} and {:?}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        ),
    }
}

/// Prints a line also when tests pass: captured output is only shown when they fail.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Returns the number of CPUs that this process, and those it starts, may run on.
pub fn cpus() -> u64 {
    thread::available_parallelism().expect("the number of CPUs").get() as u64
}
