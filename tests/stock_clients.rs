//! NetBSD's own client libraries, unmodified, against the program: over Unix sockets and TCP.
//!
//! They come from outside: RUMP_PREFIX names a directory with `lib/librumpclient.so`,
//! `lib/librumphijack.so` and `include/rump`, as buildrump.sh installs them. Without it these tests
//! say that they are skipped. The programs in `tests/stock` are compiled with `cc` and linked with that
//! library; what each checks is in its first lines.

mod process;
mod stock;

use std::fs;
use std::process::Command;

use process::{Counters, SOON, Server, output};
use stock::{Stock, run};

/// Starts a server on each kind of socket.
fn servers() -> [Server; 2] {
    [Server::start(&[]), Server::start_tcp(&[])]
}

/// Runs a program at a server on each kind of socket; afterwards nothing of it may be left.
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

/// Runs the host's own programs that librumphijack can serve on Linux: dd, head, wc, unlink. The
/// library does not intercept stat (cat, tail, ls), translate open's flags (tee) or catch the calls of
/// the C library's stdio (md5sum, grep), and its constructor comes too late for programs with
/// libselinux (mkdir, cp).
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
