//! NetBSD's own client libraries, unmodified, against the program: over Unix sockets and TCP.
//!
//! They come from outside: RUMP_PREFIX names a directory with `lib/librumpclient.so`,
//! `lib/librumphijack.so` and `include/rump`, as buildrump.sh installs them. Without it these tests
//! say that they are skipped. The programs in `tests/stock` are compiled with `cc` and linked with that
//! library; what each checks is in its first lines.

mod process;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use process::{Counters, SOON, Server, output};
use tempfile::TempDir;

/// The longest a client may take; each has a shorter limit of its own.
const PATIENCE: Duration = Duration::from_secs(110);

/// The stock libraries, and a directory for what is compiled.
struct Stock {
    prefix: PathBuf,
    dir: TempDir,
}

impl Stock {
    /// `None`, with a word about it, if there are none here.
    fn find(test: &str) -> Option<Stock> {
        let Some(prefix) = std::env::var_os("RUMP_PREFIX").map(PathBuf::from) else {
            process::say(&format!("{test}: skipped: RUMP_PREFIX is not set"));
            return None;
        };
        let library = prefix.join("lib/librumpclient.so");
        assert!(library.exists(), "RUMP_PREFIX is set, but there is no {}", library.display());
        Some(Stock { prefix, dir: tempfile::tempdir().expect("a directory") })
    }

    fn lib(&self) -> PathBuf {
        self.prefix.join("lib")
    }

    /// Compiles `tests/stock/NAME.c`.
    fn compile(&self, name: &str, with_library: bool) -> PathBuf {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock");
        let program = self.dir.path().join(name);
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-g", "-Wall", "-Wextra", "-Wno-unused-result", "-Wno-pointer-arith"]);
        cc.arg("-Wno-missing-field-initializers").arg("-o").arg(&program);
        cc.arg(sources.join(name).with_extension("c"));
        if with_library {
            // rump_syscalls.h expects the C99 integer types to be there.
            cc.args(["-include", "stdint.h", "-I"]).arg(self.prefix.join("include"));
            cc.arg("-L").arg(self.lib());
            let mut rpath = OsString::from("-Wl,-z,now,-rpath,");
            rpath.push(self.lib());
            cc.arg(rpath).args(["-lrumpclient", "-lpthread"]);
        }
        let compiled = output(&mut cc, PATIENCE);
        let words = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{cc:?} failed:\n{words}");
        assert!(words.is_empty(), "{cc:?} has warnings:\n{words}");
        program
    }

    /// A host program with librumphijack, which makes `/rump` the root of the server's files.
    fn hijack(&self, program: impl Into<OsString>, server: &Server) -> Command {
        let mut command = Command::new(program.into());
        command
            .env("LD_LIBRARY_PATH", self.lib())
            .env("LD_PRELOAD", self.lib().join("librumphijack.so"))
            .env("RUMPHIJACK", "path=/rump,socket=all")
            .env("RUMP_SERVER", server.url().to_string());
        command
    }
}

/// A server on each kind of socket.
fn servers() -> [Server; 2] {
    [Server::start(&[]), Server::start_tcp(&[])]
}

/// Runs one of the programs: it may skip what this kernel lacks, but nothing may fail.
#[track_caller]
fn run(command: &mut Command, server: &mut Server) {
    let done = output(command, PATIENCE);
    let stdout = String::from_utf8_lossy(&done.stdout);
    let told = |kind: &str| {
        let lines: Vec<&str> = stdout.lines().filter(|line| line.starts_with(kind)).collect();
        lines.join("\n")
    };
    let url = server.url().clone();
    assert!(
        done.status.success() && told("FAIL").is_empty() && !told("DONE").is_empty(),
        "{command:?} at {url}: {}\n{}\n{}\nits last lines:\n{}\n{}\nthe server said {:?}",
        done.status,
        told("FAIL"),
        told("DONE"),
        stdout.lines().rev().take(3).collect::<Vec<_>>().join("\n"),
        String::from_utf8_lossy(&done.stderr),
        server.said(),
    );
    for kind in ["SKIP", "INFO", "DONE"] {
        told(kind).lines().for_each(|line| println!("{line} ({url})"));
    }
}

/// A program at a server on each kind of socket; afterwards nothing of it is left.
fn stock_client(name: &str) {
    let Some(stock) = Stock::find(name) else {
        return;
    };
    let program = stock.compile(name, true);
    for mut server in servers() {
        let url = server.url().to_string();
        run(Command::new(&program).env("RUMP_SERVER", url), &mut server);
        let counters = server.until(SOON, "nothing left of the client", Counters::is_deserted);
        assert_eq!(counters.get("panics"), 0.0, "{}", counters.line());
    }
}

#[test]
fn calls() {
    stock_client("calls");
}

#[test]
fn threads_with_big_copies() {
    stock_client("threads");
}

#[test]
fn forks_and_tokens() {
    stock_client("forks");
}

#[test]
fn execs() {
    stock_client("execs");
}

#[test]
fn signals_and_calls_from_their_handlers() {
    stock_client("signals");
}

#[test]
fn clients_killed_while_they_sleep() {
    stock_client("killed");
}

#[test]
fn halt() {
    let Some(stock) = Stock::find("halt") else {
        return;
    };
    let program = stock.compile("halts", true);
    for mut server in servers() {
        let url = server.url().to_string();
        run(Command::new(&program).env("RUMP_SERVER", url), &mut server);
        assert!(server.ended_within(SOON, "halt").success(), "a halted server has not failed");
        if let Some(path) = server.url().path() {
            assert!(!path.exists(), "the socket file goes with the server");
        }
    }
}

#[test]
fn a_hijacked_program() {
    let Some(stock) = Stock::find("a_hijacked_program") else {
        return;
    };
    let program = stock.compile("hijacked", false);
    for mut server in servers() {
        run(&mut stock.hijack(&program, &server), &mut server);
        server.until(SOON, "nothing left of the client", Counters::is_deserted);
    }
}

/// The host's own programs, those that librumphijack can do on Linux: dd, head, wc, unlink. It does not
/// intercept stat (cat, tail, ls), translate open's flags (tee) or catch what the C library opens for
/// stdio (md5sum, grep), and its constructor comes too late for programs with libselinux (mkdir, cp).
#[test]
fn hijacked_host_programs() {
    let Some(stock) = Stock::find("hijacked_host_programs") else {
        return;
    };
    let bytes: Vec<u8> =
        (0_u32..525_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let original = stock.dir.path().join("original");
    fs::write(&original, &bytes).expect("a file");
    for server in servers() {
        let hijacked =
            |program: &str, args: &[&str]| output(stock.hijack(program, &server).args(args), SOON);
        let copy = stock.dir.path().join("copy");
        let from = format!("if={}", original.display());
        let done = hijacked("dd", &[&from, "of=/rump/file", "bs=70000"]);
        assert!(done.status.success(), "dd to the rump kernel: {done:?}");
        let to = format!("of={}", copy.display());
        let done = hijacked("dd", &["if=/rump/file", &to, "bs=65536"]);
        assert!(done.status.success(), "dd from the rump kernel: {done:?}");
        assert!(
            fs::read(&copy).expect("the copy") == bytes,
            "what dd brought back is what it took"
        );
        let done = hijacked("head", &["-c", "16", "/rump/file"]);
        assert_eq!(done.stdout, bytes[..16], "head: {done:?}");
        let done = hijacked("wc", &["-c", "/rump/file"]);
        assert_eq!(String::from_utf8_lossy(&done.stdout), "2100000 /rump/file\n", "wc: {done:?}");
        let done = hijacked("unlink", &["/rump/file"]);
        assert!(done.status.success(), "unlink: {done:?}");
        let done = hijacked("head", &["-c", "1", "/rump/file"]);
        assert!(!done.status.success(), "head of a file that is gone: {done:?}");
    }
}
