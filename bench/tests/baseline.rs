//! Tests of the baseline servers against the tool's own load, and against bytes cut anywhere. Speed is
//! not tested.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rumpsp::url::Url;
use rumpsp::wire::{self, Handshake};
use rustix::process::{Pid, Signal, kill_process};

const WAYS: [&str; 4] = ["ring", "ring --spin 50", "hop", "hop --spin 50"];

/// The time anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running baseline server, which is killed at the end if it has not ended by then.
struct Baseline {
    child: Child,
    url: Url,
    _stderr: BufReader<ChildStderr>,
    dir: tempfile::TempDir,
}

impl Baseline {
    fn unix(way: &str) -> Baseline {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("unix://{}", dir.path().join("socket").display());
        Baseline::start(way, &url, dir)
    }

    fn tcp(way: &str) -> Baseline {
        Baseline::start(way, "tcp://127.0.0.1:0", tempfile::tempdir().unwrap())
    }

    fn start(way: &str, url: &str, dir: tempfile::TempDir) -> Baseline {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rumpring-bench"))
            .arg("baseline")
            .args(way.split(' '))
            .arg(url)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{way}: {line}"));
        Baseline { child, url: url.trim().parse().unwrap(), _stderr: stderr, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Connects to the URL the server listens on.
    fn connect(&self) -> Box<dyn Stream> {
        match self.url.socket_addr() {
            Some(addr) => {
                let stream = TcpStream::connect(addr).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
            None => {
                let stream = UnixStream::connect(self.path()).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
        }
    }

    /// Waits for the server's end.
    fn ends(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the floor should have ended by now");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Returns a guest handshake and two calls, the second with arguments; and the answers.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let mut sent = Vec::new();
    wire::handshake_request(&mut sent, 7, Handshake::Guest, "test");
    wire::syscall_request(&mut sent, 8, 20, &[]);
    wire::syscall_request(&mut sent, 9, 173, &[3, 0x1000, 16, 0, 0]);
    let mut back = wire::handshake_response(7).to_vec();
    back.extend(wire::syscall_response(8, 0, [1, 0]));
    back.extend(wire::syscall_response(9, 0, [1, 0]));
    (sent, back)
}

fn read_banner(stream: &mut dyn Stream) {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    assert!(line.starts_with(b"RUMPSP-0.4-baseline-"), "{line:?}");
}

fn read_back(stream: &mut dyn Stream, expected: &[u8], what: &str) {
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(back, expected, "{what}");
}

/// Returns what a load of `getpid` prints.
fn load(baseline: &Baseline, seconds: f64, with: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rumpring-bench"))
        .arg(baseline.url.to_string())
        .args(format!("--seconds {seconds} --warm-up 0 {with}").split(' '))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{with}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn getpid_is_answered_over_unix_and_tcp() {
    for way in WAYS {
        for baseline in [Baseline::unix(way), Baseline::tcp(way)] {
            for with in ["-c 1", "-c 7 -i 5", "-c 3 -i 200"] {
                // A machine that is busy with other things may leave no time to a short load.
                let has_calls =
                    |seconds: &f64| !load(&baseline, *seconds, with).contains(" 0 calls/s");
                assert!([0.2, 2.0, 20.0].iter().any(has_calls), "{way} {with}: no calls");
            }
        }
    }
}

#[test]
fn frames_cut_at_every_byte_are_the_same() {
    let (sent, back) = conversation();
    for way in WAYS {
        for baseline in [Baseline::unix(way), Baseline::tcp(way)] {
            for cut in 0..=sent.len() {
                let mut stream = baseline.connect();
                read_banner(&mut *stream);
                stream.write_all(&sent[..cut]).unwrap();
                // The pause keeps the two halves from coming in one read.
                std::thread::sleep(Duration::from_millis(1));
                stream.write_all(&sent[cut..]).unwrap();
                read_back(&mut *stream, &back, &format!("{way}, cut at {cut}"));
            }
        }
    }
}

#[test]
fn a_client_that_reads_late_gets_all_its_answers() {
    // This is more than a client may be owed before it is not read any more.
    let calls: u64 = 20_000;
    for way in WAYS {
        let baseline = Baseline::unix(way);
        let stream = UnixStream::connect(baseline.path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut writes = stream.try_clone().unwrap();
        let mut reads: Box<dyn Stream> = Box::new(stream);
        read_banner(&mut *reads);
        let writer = std::thread::spawn(move || {
            let mut sent = Vec::new();
            wire::handshake_request(&mut sent, 0, Handshake::Guest, "test");
            (0..calls).for_each(|reqno| wire::syscall_request(&mut sent, reqno, 20, &[]));
            writes.write_all(&sent).unwrap();
        });
        std::thread::sleep(Duration::from_millis(100));
        read_back(&mut *reads, &wire::handshake_response(0), way);
        for reqno in 0..calls {
            read_back(&mut *reads, &wire::syscall_response(reqno, 0, [1, 0]), way);
        }
        writer.join().unwrap();
    }
}

#[test]
fn what_is_no_guest_is_hung_up_on() {
    let mut too_long = wire::handshake_response(1);
    too_long[0..8].copy_from_slice(&u64::MAX.to_le_bytes());
    too_long[16] = 0;
    let mut call_first = Vec::new();
    wire::syscall_request(&mut call_first, 1, 20, &[]);
    let mut prefork = Vec::new();
    wire::prefork_request(&mut prefork, 1);
    for way in WAYS {
        let baseline = Baseline::unix(way);
        for bytes in [&too_long[..], &call_first, &prefork, &[0; 24]] {
            let mut stream = baseline.connect();
            read_banner(&mut *stream);
            stream.write_all(bytes).unwrap();
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest).map_err(|error| error.kind());
            // A reset counts as an end, too.
            let has_ended = matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset));
            assert!(has_ended && rest.is_empty(), "{way}: {bytes:?} got {rest:?}, {ended:?}");
        }
        // The server serves others as before.
        let (sent, back) = conversation();
        let mut stream = baseline.connect();
        read_banner(&mut *stream);
        stream.write_all(&sent).unwrap();
        read_back(&mut *stream, &back, way);
    }
}

#[test]
fn a_signal_ends_it() {
    for way in WAYS {
        for signal in [Signal::TERM, Signal::INT] {
            let mut baseline = Baseline::unix(way);
            let mut stream = baseline.connect();
            read_banner(&mut *stream);
            assert!(baseline.path().exists());
            kill_process(Pid::from_child(&baseline.child), signal).unwrap();
            assert!(baseline.ends().success(), "{way}: {signal:?}");
            assert!(!baseline.path().exists(), "the socket's file goes with it");
            let ended = stream.read(&mut [0; 1]);
            assert!(matches!(ended, Ok(0) | Err(_)), "{way}: {ended:?}");
        }
    }
}

#[test]
fn where_it_cannot_listen_is_said() {
    let baseline = Baseline::unix("ring");
    let output = Command::new(env!("CARGO_BIN_EXE_rumpring-bench"))
        .args(["baseline", "ring", &baseline.url.to_string()])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    let says = format!("{}: a server is already listening there", baseline.url);
    assert!(errors.contains(&says), "{errors}");
}

#[test]
fn the_socket_file_of_a_killed_one_is_replaced() {
    let mut killed = Baseline::unix("ring");
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(killed.path().exists(), "nobody has removed it");
    let url = killed.url.to_string();
    let dir = std::mem::replace(&mut killed.dir, tempfile::tempdir().unwrap());
    Baseline::start("ring", &url, dir).connect();
}

#[test]
fn floors_take_turns_as_servers_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_rumpring-bench"))
        .args(["compare", "ring=baseline ring", "hop=baseline hop --spin 20"])
        .args("--calls getpid@3x2 --rounds 2 --seconds 0.3 --warm-up 0".split(' '))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8_lossy(&output.stdout);
    for name in ["ring", "hop"] {
        assert!(printed.contains(&format!("| getpid | 3 x 2 | {name} | ")), "{printed}");
    }
    assert!(printed.contains("- hop: `baseline hop --spin 20`"), "{printed}");
}
