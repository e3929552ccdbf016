//! Whole runs: of servers that agree, of some that do not, and against NetBSD's own kernel.
//!
//! RUMP_PREFIX names the directory of a rump kernel. Without it the tests that need one print that they
//! are skipped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use embedded::{Config, Embedded, Limits};
use rumpring::server::{self, Running};
use rumpring_diff::duel::{Duel, Times};
use rumpring_diff::prepare;
use rumpring_diff::random::{self, FAMILIES};
use rumpring_diff::report::{Example, Report};
use rumpring_diff::run::Run;
use rumpring_diff::scripts::SCRIPTS;
use rumpsp::url::Url;
use tempfile::TempDir;

/// A server of an embedded kernel in this process.
struct TestServer {
    server: Running,
    _dir: TempDir,
}

impl TestServer {
    fn new(limits: Limits) -> TestServer {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let url = Url::Unix(dir.path().join("s"));
        let kernel = Embedded::new(Config { limits, ..Config::default() });
        let server = Running::start(server::Config::new(url), Arc::new(kernel)).expect("a server");
        TestServer { server, _dir: dir }
    }

    fn url(&self) -> Url {
        self.server.url().clone()
    }
}

/// Runs `body` on two servers, and returns the report.
fn found(urls: [Url; 2], body: impl FnOnce(&mut Run<'_>)) -> Report {
    let sides = prepare::sides(&urls).expect("servers to prepare");
    let mut tell = |example: &Example| println!("{example}");
    let mut run = Run::new(Duel::new(sides, Times::new(Duration::from_millis(300))), &mut tell);
    body(&mut run);
    run.end()
}

fn scripts(run: &mut Run<'_>) {
    for script in SCRIPTS {
        let cases = script.cases().expect("a script that can be read");
        run.script(script.name, &cases).expect("a script that runs");
    }
}

/// Runs everything on two servers of one kernel, which must agree: so all fields that differ are
/// masked, and no order is left to chance.
#[test]
fn a_kernel_agrees_with_itself() {
    let [one, other] = [TestServer::new(Limits::default()), TestServer::new(Limits::default())];
    let report = found([one.url(), other.url()], |run| {
        scripts(run);
        for family in FAMILIES {
            for seed in 0..3 {
                run.random(family, seed, 30).expect("a sequence that runs");
            }
        }
    });
    println!("{report}");
    assert!(report.is_clean(), "no differences:\n{report}");
    assert_eq!(report.sequences, 3 * FAMILIES.len() as u64);
    assert!(report.steps > 1000, "that many steps at least: {report}");
}

/// Compares a kernel that has room for six descriptors, three of which a client begins with, to one
/// that has room for a thousand.
#[test]
fn a_smaller_kernel_is_told_apart_in_a_few_steps() {
    let small = Limits { files_per_process: 6, ..Limits::default() };
    let [one, other] = [TestServer::new(small), TestServer::new(Limits::default())];
    let family = random::family("pipes").expect("a family");
    let report = found([one.url(), other.url()], |run| {
        for seed in 0..10 {
            run.random(family, seed, 60).expect("a sequence that runs");
        }
    });
    let full = report.unknown().find(|example| example.difference.kinds[0] == "EMFILE");
    let full = full.unwrap_or_else(|| panic!("a call that has no descriptor left:\n{report}"));
    assert!(full.steps.len() <= 6, "two pipes at most and what needs more room, not:\n{full}");
    assert!(full.again.contains("--family pipes --seed "), "{}", full.again);
}

/// A server as a process, which is ended when this is dropped.
struct Server {
    child: Child,
    url: Url,
    _dir: TempDir,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let url = format!("unix://{}", dir.path().join("s").display());
        let mut child = Command::new(program())
            .arg("serve")
            .args(args)
            .arg(&url)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let (said, hear) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // When nobody listens any more, the pipe is still emptied.
                let _ = said.send(line);
            }
        });
        loop {
            let line = hear.recv_timeout(Duration::from_secs(30)).expect("a server that listens");
            if line.starts_with("listening on ") {
                break;
            }
        }
        Server { child, url: url.parse().expect("a URL"), _dir: dir }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the server's program, which lies beside this package's: only it exports the functions that a
/// rump kernel calls.
fn program() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_rumpring-diff")).with_file_name("rumpring");
    assert!(server.exists(), "no {}: run `cargo build` first", server.display());
    server
}

/// The arguments for a rump kernel.
const RUMP: &[&str] = &[
    "--kernel",
    "librump",
    // The kernel is compared as it is.
    "--netbsd-faults",
    "allow",
    "-lrumpvfs",
    "-lrumpvfs_fifofs",
    "-lrumpfs_tmpfs",
    "-lrumpdev",
    "-lrumpnet",
    "-lrumpnet_net",
    "-lrumpnet_netinet",
    "-lrumpnet_netinet6",
    "-lrumpnet_local",
];

/// Compares the embedded kernel to NetBSD's by the scripts: there must be none but known differences.
#[test]
fn scripts_against_netbsd() {
    if std::env::var_os("RUMP_PREFIX").is_none() {
        println!("skipped: RUMP_PREFIX does not say where a rump kernel is");
        return;
    }
    let embedded = TestServer::new(Limits::default());
    let netbsd = Server::start(RUMP);
    let report = found([embedded.url(), netbsd.url.clone()], scripts);
    println!("{report}");
    assert_eq!(report.scripts, SCRIPTS.len() as u64);
    assert!(report.is_clean(), "no differences but known ones:\n{report}");
}

/// Compares NetBSD's kernel to itself: differences that the scripts show elsewhere are no matter of
/// chance.
#[test]
fn netbsd_agrees_with_itself() {
    if std::env::var_os("RUMP_PREFIX").is_none() {
        println!("skipped: RUMP_PREFIX does not say where a rump kernel is");
        return;
    }
    let [one, other] = [Server::start(RUMP), Server::start(RUMP)];
    let report = found([one.url.clone(), other.url.clone()], scripts);
    println!("{report}");
    assert!(report.is_clean(), "no differences:\n{report}");
}
