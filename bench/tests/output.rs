//! Tests of output that nobody reads: a reader that has had enough changes nothing, a full disk is one
//! sentence and a status. And of a baseline server whose stderr nobody reads.

use std::fs::File;
use std::io::{BufRead, BufReader, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

/// The time anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rumpring-bench"));
    command.env_remove("RUMP_SERVER").stdin(Stdio::null());
    command
}

/// Returns a pipe whose reader is gone.
fn gone() -> Stdio {
    pipe().unwrap().1.into()
}

/// Returns a file on a disk that is full.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Returns the status a command ends with.
#[track_caller]
fn status(child: &mut Child) -> Option<i32> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= end {
            let _ = child.kill();
            panic!("it still runs after {PATIENCE:?}: {:?}", child.wait());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the status of a command with this stdout, and the lines it printed on stderr.
#[track_caller]
fn run(args: &[&str], stdout: Stdio) -> (Option<i32>, Vec<String>) {
    let mut child = bench().args(args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    // The command prints little, so the pipe does not fill up.
    let status = status(&mut child);
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    (status, said.map(Result::unwrap).collect())
}

#[track_caller]
fn says_that_it_cannot_print(args: &[&str]) {
    let (status, said) = run(args, gone());
    assert_eq!(status, Some(0), "a reader that has had enough: {args:?}: {said:?}");
    assert!(!said.iter().any(|line| line.contains("output")), "{args:?}: {said:?}");
    let (status, said) = run(args, full());
    assert_eq!(status, Some(1), "a full disk: {args:?}: {said:?}");
    let last = said.last().expect("a sentence");
    assert!(
        last.starts_with("rumpring-bench: cannot write to standard output: No space"),
        "{last}"
    );
    assert!(!said.iter().any(|line| line.contains("panicked")), "{args:?}: {said:?}");
}

/// A running baseline server, which is killed at the end if it has not ended by then.
struct Baseline {
    child: Child,
    dir: tempfile::TempDir,
}

impl Baseline {
    fn start(stderr: Stdio) -> Baseline {
        let dir = tempfile::tempdir().unwrap();
        let url = url(dir.path());
        let child = bench().args(["baseline", "hop", &url]).stderr(stderr).spawn().unwrap();
        let baseline = Baseline { child, dir };
        let end = Instant::now() + PATIENCE;
        while run(&[&baseline.url(), "-c1", "-s0.01", "--warm-up=0"], Stdio::null()).0 != Some(0) {
            assert!(Instant::now() < end, "it does not answer");
        }
        baseline
    }

    fn url(&self) -> String {
        url(self.dir.path())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}

/// Returns a server with a kernel: an example of this package, which is built with its tests.
fn server() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_rumpring-bench")).with_file_name("examples/serve");
    assert!(server.exists(), "no {}: build it with --examples", server.display());
    server
}

#[test]
fn help_and_the_results_of_one_load_and_their_sum() {
    let baseline = Baseline::start(Stdio::null());
    let url = baseline.url();
    let log = baseline.dir.path().join("log");
    let (log, short) = (log.to_str().unwrap(), ["-c1", "-s0.05", "--warm-up=0", "-q"]);
    let load = [&[&url[..], "--histogram", log][..], &short].concat();
    says_that_it_cannot_print(&load);
    says_that_it_cannot_print(&[&[&url[..], "--json"][..], &short].concat());
    // The files are written though nobody has read the output.
    std::fs::remove_file(log).unwrap();
    assert_eq!(run(&load, gone()).0, Some(0));
    says_that_it_cannot_print(&["merge", log]);
    for help in [&["--help"][..], &["compare", "--help"], &["--version"]] {
        says_that_it_cannot_print(help);
    }
}

#[test]
fn the_tables_of_a_comparison() {
    let compare = "compare --seconds 0.05 --warm-up 0 --rounds 1 --calls getpid@1";
    let words: Vec<&str> =
        compare.split(' ').chain(["ring=baseline ring", "hop=baseline hop"]).collect();
    says_that_it_cannot_print(&words);
    // The progress goes to stderr.
    for stderr in [gone(), full()] {
        let mut child = bench().args(&words).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        assert_eq!(status(&mut child), Some(0));
    }
}

#[test]
fn the_table_of_those_that_wake() {
    let server = format!("it={} serve {{url}}", server().display());
    let few = ["--clients", "3", "--rounds", "1", "--wakes", "2", "--by", "poll"];
    says_that_it_cannot_print(&[&["wake", &server][..], &few].concat());
}

#[test]
fn the_report_of_a_soak() {
    let server = format!("it+stats={} serve {{url}}", server().display());
    let few =
        "--duration 1 --every 0.2 --connections 2 --rate 50 --hostile 0 --churn 1 --victims 0";
    let args = [&["soak", &server][..], &few.split(' ').collect::<Vec<_>>()].concat();
    let (_, said) = run(&args, full());
    // So short a soak may find the memory not flat: the test is that it comes to an end.
    let last = said.last().expect("a sentence");
    assert!(
        last.starts_with("rumpring-bench: cannot write to standard output: No space"),
        "{last}"
    );
    let mut child = bench().args(&args).stdout(gone()).stderr(gone()).spawn().unwrap();
    assert!(matches!(status(&mut child), Some(0 | 1)), "it exits");
}

#[test]
fn a_floor_whose_counters_nobody_takes_ends_well() {
    for stuck in [false, true] {
        let (reader, writer) = pipe().unwrap();
        let _kept = if stuck {
            let flags = fcntl_getfl(&writer).unwrap();
            fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
            while (&writer).write(&[b'\n'; 4096]).is_ok() {}
            fcntl_setfl(&writer, flags).unwrap();
            Some(reader)
        } else {
            drop(reader);
            None
        };
        let mut baseline = Baseline::start(writer.into());
        baseline.signal(Signal::USR1);
        assert_eq!(run(&[&baseline.url(), "-c1", "-s0.01", "-q"], Stdio::null()).0, Some(0));
        baseline.signal(Signal::TERM);
        assert_eq!(status(&mut baseline.child), Some(0), "stuck: {stuck}");
    }
}
