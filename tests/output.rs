//! Output that nobody reads does not end or change a server, and a command says in a sentence that its
//! result is not complete.

mod fake;
mod process;

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client::{CallError, Client};
use embedded::{self, Status};
use kernel::Errno;
use process::{SOON, output, rumpring, say, wait};
use rumpring::librump::load;
use rumpsp::url::Url;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A place for output to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// A pipe without a reader.
    Gone,
    /// A file on a disk that is full.
    FullDisk,
    /// A pipe that is full, and whose reader does not read.
    Stuck,
    /// A full pipe whose writer gets an error instead of having to wait.
    StuckAndNonBlocking,
}

const SINKS: [Sink; 4] = [Sink::Gone, Sink::FullDisk, Sink::Stuck, Sink::StuckAndNonBlocking];

impl Sink {
    /// Returns the file to write to, and the reader that has to be kept meanwhile.
    fn open(self) -> (Stdio, Option<PipeReader>) {
        if self == Sink::FullDisk {
            let full = File::options().write(true).open("/dev/full").expect("a full disk");
            return (full.into(), None);
        }
        let (reader, writer) = pipe().expect("a pipe");
        if self == Sink::Gone {
            return (writer.into(), None);
        }
        let flags = fcntl_getfl(&writer).expect("its flags");
        set_flags(&writer, flags | OFlags::NONBLOCK);
        // After this less than a page is free.
        for piece in [4096, 1] {
            while (&writer).write(&vec![b'\n'; piece]).is_ok() {}
        }
        if self == Sink::Stuck {
            set_flags(&writer, flags);
        }
        (writer.into(), Some(reader))
    }
}

fn set_flags(file: impl AsFd, flags: OFlags) {
    fcntl_setfl(file, flags).expect("flags that can be set");
}

/// A server whose output nobody reads.
struct Mute {
    child: Child,
    url: Url,
    reader: Option<PipeReader>,
    _dir: TempDir,
}

impl Mute {
    fn start(sink: Sink, args: &[&str]) -> Mute {
        let mut command = rumpring();
        command.arg("serve").args(args);
        Mute::run(command, sink)
    }

    /// Starts `command` with a URL, and waits until it serves.
    fn run(mut command: Command, sink: Sink) -> Mute {
        let (stderr, reader) = sink.open();
        command.stdout(Stdio::null()).stderr(stderr);
        Mute::spawn(command, reader)
    }

    fn spawn(mut command: Command, reader: Option<PipeReader>) -> Mute {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let url = Url::Unix(dir.path().join("s"));
        command.arg(url.to_string()).stdin(Stdio::null());
        let child = command.spawn().expect("the program starts");
        // The command has the writer's end of the pipe, too.
        drop(command);
        let mut server = Mute { child, url, reader, _dir: dir };
        server.until_it_serves();
        server
    }

    #[track_caller]
    fn until_it_serves(&mut self) {
        let end = Instant::now() + SOON;
        while let Err(error) = Client::builder().timeout(SOON).connect(&self.url) {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "it ended: {ended:?}");
            assert!(Instant::now() < end, "it does not serve: {error}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn client(&self) -> Client {
        Client::builder().timeout(SOON).connect(&self.url).expect("a client connects")
    }

    fn path(&self) -> &Path {
        self.url.path().expect("a unix socket")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there for a signal");
    }

    /// Has a client send nonsense, and be hung up on.
    fn nonsense(&self) {
        let mut stream = UnixStream::connect(self.path()).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.write_all(&[1; 64]).expect("sent");
        // The banner comes, and then the end.
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    }

    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        wait(&mut self.child, SOON).unwrap_or_else(|| panic!("it still runs after {SOON:?}"))
    }

    /// Ends the server by SIGTERM: it ends well, and its socket file is gone.
    #[track_caller]
    fn ends_well(&mut self, what: &str) {
        self.signal(Signal::TERM);
        let status = self.ends();
        assert!(status.success(), "{what}: {status}");
        assert!(!self.path().exists(), "{what}: the socket file stayed");
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test on a server for each kind of output that nobody reads.
fn on_each_sink(args: &[&str], test: impl Fn(&mut Mute, &str) + Sync) {
    thread::scope(|scope| {
        for sink in SINKS {
            let test = &test;
            scope.spawn(move || test(&mut Mute::start(sink, args), &format!("{sink:?} {args:?}")));
        }
    });
}

#[test]
fn a_server_whose_counters_nobody_takes_heeds_signals_and_ends_well() {
    for args in [&[][..], &["--sandbox"]] {
        on_each_sink(args, |server, what| {
            let client = server.client();
            for _ in 0..3 {
                server.signal(Signal::USR1);
                // Signals that come together count as one.
                thread::sleep(Duration::from_millis(50));
            }
            client.getpid().unwrap_or_else(|error| panic!("{what}: {error}"));
            server.ends_well(what);
        });
    }
}

#[test]
fn log_lines_that_nobody_takes_take_nothing_from_other_clients() {
    for args in [&["-vvv"][..], &["-vvv", "--sandbox"]] {
        on_each_sink(args, |server, what| {
            let client = server.client();
            // These are more lines than the rate of a second allows; then comes the line that says how
            // many were dropped.
            (0..12).for_each(|_| server.nonsense());
            thread::sleep(Duration::from_millis(1100));
            (0..2).for_each(|_| server.nonsense());
            for _ in 0..10 {
                client.getpid().unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            server.client().getpid().unwrap_or_else(|error| panic!("{what}: {error}"));
            server.ends_well(what);
        });
    }
}

#[test]
fn calls_that_are_missing_are_missing_whoever_reads_of_them() {
    let absent = embedded::table().filter(|entry| matches!(entry.status, Status::Absent));
    let absent: Vec<i32> = absent.map(|entry| entry.number).take(15).collect();
    on_each_sink(&[], |server, what| {
        let client = server.client();
        let missing = |number: &i32| {
            let error = client.call(*number, &[]);
            assert_eq!(error, Err(CallError::Errno(Errno::ENOSYS)), "{what}: call {number}");
        };
        // These are more lines than the rate of a second allows; then comes the line that says how many
        // were dropped.
        absent[..12].iter().for_each(missing);
        thread::sleep(Duration::from_millis(1100));
        absent[12..].iter().for_each(missing);
        server.ends_well(what);
    });
}

/// NetBSD's kernel prints clients' writes to its console while it has one of its CPUs taken.
#[test]
fn a_console_that_nobody_reads_keeps_nobody_waiting() {
    if load::prefix_from_env().is_none() {
        say(
            "a_console_that_nobody_reads_keeps_nobody_waiting: skipped: RUMP_PREFIX says where no rump kernel is",
        );
        return;
    }
    const STDOUT: i32 = 1;
    for sink in SINKS {
        let (stdout, reader) = sink.open();
        let mut command = rumpring();
        command.args(["serve", "--kernel", "librump"]).stdout(stdout).stderr(Stdio::null());
        let mut server = Mute::spawn(command, reader);
        let what = format!("{sink:?}");
        let writers: Vec<Client> = (0..32).map(|_| server.client()).collect();
        for writer in &writers {
            let written = writer.write(STDOUT, &[b'x'; 16 << 10]);
            written.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        server.client().getpid().unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(writers);
        server.ends_well(&what);
    }
}

#[test]
fn what_is_written_to_the_console_comes_out_on_stdout() {
    if load::prefix_from_env().is_none() {
        say(
            "what_is_written_to_the_console_comes_out_on_stdout: skipped: RUMP_PREFIX says where no rump kernel is",
        );
        return;
    }
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = rumpring();
    command.args(["serve", "--kernel", "librump"]).stdout(writer).stderr(Stdio::null());
    let mut server = Mute::spawn(command, None);
    let client = server.client();
    client.write(1, b"a line\n").expect("written");
    client.write(1, b"without an end").expect("written");
    drop(client);
    server.ends_well("a console");
    let said = std::io::read_to_string(reader).expect("what it said");
    assert!(said.contains("a line\nwithout an end"), "{said}");
}

#[test]
fn a_second_signal_ends_a_server_at_once_whoever_reads() {
    on_each_sink(&["--drain", "600"], |server, what| {
        let client = server.client();
        let [read_end, _] = client.pipe().expect("a pipe").map(|fd| fd as u64);
        let into = client.space().alloc(1).expect("memory");
        let _asleep = client.begin(3, &[read_end, into, 1]);
        // The read is in flight when a later call of the same client is answered.
        client.getpid().expect("a getpid");
        server.signal(Signal::TERM);
        // The first signal was handled when the file is gone: two that come together count as one.
        let end = Instant::now() + SOON;
        while server.path().exists() {
            assert!(Instant::now() < end, "{what}: it does not heed a signal");
            thread::sleep(Duration::from_millis(5));
        }
        server.signal(Signal::TERM);
        assert!(server.ends().code().is_some(), "{what}: it exits, and is not killed");
    });
}

#[test]
fn a_server_that_fails_at_its_start_does_so_whoever_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("s"), "precious").expect("a file that is no socket");
    let url = format!("unix://{}", dir.path().join("s").display());
    for sink in SINKS {
        let (stderr, _reader) = sink.open();
        let mut command = rumpring();
        let mut child = command.args(["serve", &url]).stderr(stderr).spawn().expect("it starts");
        let status = wait(&mut child, SOON);
        let _ = child.kill();
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{sink:?}");
    }
}

#[test]
fn lines_of_a_server_come_when_somebody_reads_again_and_those_lost_are_counted() {
    let mut server = Mute::start(Sink::Stuck, &["-vvv", "--log-lines", "1000000"]);
    // Each connection makes a line of 100 bytes, more than can wait in all.
    for _ in 0..4000 {
        server.nonsense();
    }
    let mut lines = BufReader::new(server.reader.take().expect("the reader's end")).lines();
    let mut next = |word: &str| {
        let found = lines.find_map(|line| line.ok().filter(|line| line.contains(word)));
        found.unwrap_or_else(|| panic!("no line with {word:?}"))
    };
    next("listening on unix://");
    let lost = next("lines were lost here");
    let number = lost.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
    assert!(number.is_some_and(|number| number > 0), "{lost}");
    server.signal(Signal::USR1);
    next("connections ");
    server.ends_well("a reader that was away");
}

#[test]
fn the_last_lines_of_a_server_come_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none/s");
    let said = output(rumpring().args(["serve", &format!("unix://{}", missing.display())]), SOON);
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("rumpring: ") && stderr.contains("none/s"), "{stderr}");
}

/// Returns the descriptors 0, 1 and 2 of a process.
fn standard_files(pid: u32) -> [PathBuf; 3] {
    [0, 1, 2].map(|fd| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
        link.unwrap_or_else(|error| panic!("descriptor {fd} of {pid}: {error}"))
    })
}

/// Returns `command`, to be started with descriptors 0, 1 and 2 closed.
fn with_nothing_open(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 0<&- 1>&- 2>&-"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[test]
fn no_socket_takes_the_place_of_a_standard_file() {
    let mut command = rumpring();
    command.arg("serve");
    let mut server = Mute::run(with_nothing_open(&command), Sink::Gone);
    let null = Path::new("/dev/null");
    assert_eq!(standard_files(server.child.id()), [null; 3]);
    server.ends_well("nothing open");
    if fake::prefix().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Mute::run(with_nothing_open(&host(dir.path())), Sink::Gone);
    assert_eq!(standard_files(server.child.id()), [null; 3], "preloaded");
    server.client().reboot(0).expect("a halt");
    assert!(server.ends().success());
}

/// Returns a C program that asks for a server, and gets this one.
fn host(dir: &Path) -> Command {
    let mut command = Command::new(fake::host(dir, None));
    fake::with_lifetime(&mut command).env("LD_PRELOAD", fake::librumpring());
    command
}

#[test]
fn a_preloaded_server_that_cannot_say_why_it_does_not_start_ends_nothing() {
    if fake::prefix().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for sink in SINKS {
        let (stderr, _reader) = sink.open();
        let mut command = host(dir.path());
        // The program prints nothing itself: only the library's output could end it.
        command.env("RUMPRING_CPUS", "x").env("FAKE_QUIET", "1").arg("unix://never");
        let mut child = command.stderr(stderr).spawn().expect("it starts");
        let status = wait(&mut child, SOON);
        let _ = child.kill();
        let status = status.unwrap_or_else(|| panic!("{sink:?}: it still runs"));
        assert!(status.code().is_some(), "{sink:?}: {status}");
    }
}

#[test]
fn a_program_whose_server_has_broken_down_ends_with_the_reason() {
    if fake::prefix().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let url = Url::Unix(dir.path().join("s"));
    let mut command = host(dir.path());
    command.env("FAKE_BREAKS", "1").arg(url.to_string());
    let mut program = fake::Program::spawn(&mut command);
    let end = Instant::now() + SOON;
    while !program.said().iter().any(|line| line.contains("host: serving")) {
        assert!(Instant::now() < end, "{:?}", program.said());
        thread::sleep(Duration::from_millis(10));
    }
    // A connection makes the server's thread find out.
    let _ = Client::builder().timeout(SOON).connect(&url);
    let status = program.ends();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{:?}", program.said());
    let end = Instant::now() + SOON;
    while !program.said().iter().any(|line| line.starts_with("rumpring: ")) {
        assert!(Instant::now() < end, "no reason: {:?}", program.said());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command whose result nobody reads, and one whose disk is full.
#[track_caller]
fn says_that_it_cannot_print(command: impl Fn() -> Command) {
    let (stdout, _) = Sink::Gone.open();
    let gone = process_output(command().stdout(stdout));
    assert_eq!(gone, (Some(0), String::new()), "a reader that has had enough: {:?}", command());
    let (stdout, _) = Sink::FullDisk.open();
    let (status, said) = process_output(command().stdout(stdout));
    assert_eq!(status, Some(1), "{:?}: {said}", command());
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(said.contains("cannot write to standard output: No space left on device"), "{said}");
    let (stdout, stderr) = (Sink::FullDisk.open().0, Sink::Gone.open().0);
    let mut child = command().stdout(stdout).stderr(stderr).spawn().expect("it starts");
    let status = wait(&mut child, SOON).and_then(|status| status.code());
    assert_eq!(status, Some(1), "nobody to tell: {:?}", command());
}

/// Returns the status of a command with a stdout of its own, and its output on stderr.
#[track_caller]
fn process_output(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let status = wait(&mut child, SOON);
    let _ = child.kill();
    let stderr = child.stderr.take().expect("a pipe");
    let said = std::io::read_to_string(stderr).expect("text");
    (status.expect("it ends").code(), said)
}

#[test]
fn commands_say_that_they_cannot_print() {
    let server = process::Server::start(&[]);
    for words in [
        "calls",
        "call getpid",
        "call open / 0",
        "call stat / @152",
        "--help",
        "serve --help",
        "--version",
    ] {
        says_that_it_cannot_print(|| server.command(words.split(' ')));
    }
}

#[test]
fn errors_that_nobody_reads_have_their_status() {
    for (words, status) in [("call --server unix:///none getpid", 1), ("calls --no-such-option", 2)]
    {
        for sink in [Sink::Gone, Sink::FullDisk] {
            let mut command = rumpring();
            command.args(words.split(' ')).stdout(Stdio::null()).stderr(sink.open().0);
            let mut child = command.spawn().expect("it starts");
            let ended = wait(&mut child, SOON).and_then(|status| status.code());
            assert_eq!(ended, Some(status), "{words}, {sink:?}");
        }
    }
}
