//! Tests of output that nobody reads: a reader that has had enough changes nothing, a full disk is one
//! sentence and a status.

use std::fs::File;
use std::io::{pipe, read_to_string};
use std::process::{Command, Stdio};
use std::sync::Arc;

use embedded::{Config, Embedded, Limits};
use rumpring::server::{self, Running};
use rumpsp::url::Url;

/// Returns the status of a command with this stdout, and its output on stderr.
fn run(args: &[&str], stdout: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rumpring-diff"));
    command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let said = read_to_string(child.stderr.take().expect("a pipe")).expect("text");
    (child.wait().expect("its end").code(), said)
}

#[track_caller]
fn says_that_it_cannot_print(args: &[&str], status: i32) {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let had_enough = (Some(status), String::new());
    assert_eq!(run(args, writer.into()), had_enough, "a reader that has had enough: {args:?}");
    let full = File::options().write(true).open("/dev/full").expect("a full disk");
    let (status, said) = run(args, full.into());
    assert_eq!(status, Some(1), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(said.starts_with("rumpring-diff: cannot write to standard output: No space"), "{said}");
}

fn server(limits: Limits) -> (Running, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory for the socket");
    let url = Url::Unix(dir.path().join("s"));
    let kernel = Embedded::new(Config { limits, ..Config::default() });
    let server = Running::start(server::Config::new(url), Arc::new(kernel)).expect("a server");
    (server, dir)
}

#[test]
fn names_help_and_reports() {
    says_that_it_cannot_print(&["--list"], 0);
    says_that_it_cannot_print(&["--help"], 0);
    let few = Limits { files_per_process: 8, ..Limits::default() };
    let servers = [Limits::default(), Limits::default(), few].map(server);
    let [one, same, other] = servers.each_ref().map(|(server, _)| server.url().to_string());
    let script = "--family=descriptors";
    says_that_it_cannot_print(&[&one, &same, script, "--sequences=1"], 0);
    // There are differences, which are printed as they are found, and which are a failure.
    says_that_it_cannot_print(&[&one, &other, script, "--sequences=3"], 1);
}
