//! Tests of short soaks from the command line to their reports: of a healthy server, and of some that
//! are not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs a soak of a server that `command` starts, in which `SERVE` stands for the server's program and
/// its command.
fn soak(dir: &Path, command: &str, args: &str) -> Output {
    let command = command.replace("SERVE", &format!("{} serve", server().display()));
    Command::new(env!("CARGO_BIN_EXE_rumpring-bench"))
        .args(["soak", &format!("it{command}"), "--connections", "8", "--rate", "500"])
        .args("--hostile 6 --churn 2 --victims 2 --every 0.5 --seed 7 --quiet".split(' '))
        .arg("--json")
        .arg(dir.join("json"))
        .arg("--report")
        .arg(dir.join("report"))
        .args(args.split(' '))
        .output()
        .unwrap()
}

/// Returns the server: an example of this package, which is built with its tests.
fn server() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_rumpring-bench")).with_file_name("examples/serve");
    assert!(server.exists(), "no {}: build it with --examples", server.display());
    server
}

fn report(dir: &Path) -> (String, Value) {
    let json = std::fs::read_to_string(dir.join("json")).unwrap();
    (std::fs::read_to_string(dir.join("report")).unwrap(), serde_json::from_str(&json).unwrap())
}

fn passes(args: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = soak(dir.path(), "+stats=SERVE {url}", args);
    let (text, json) = report(dir.path());
    assert!(output.status.success(), "{text}");
    assert_eq!((&json["passed"], &json["wrongs"]), (&true.into(), &0.into()), "{text}");
    assert_eq!(json["seed"], 7);
    for number in ["/load/count", "/canary/count", "/after/counters/hang_ups", "/samples/2/threads"]
    {
        assert!(json.pointer(number).and_then(Value::as_u64) > Some(0), "{number}: {text}");
    }
    for part in ["churn", "victims", "hostile"] {
        let counts = json["counts"][part].as_object().unwrap();
        assert!(counts.values().any(|count| count.as_u64() > Some(0)), "{part}: {text}");
    }
    for line in ["| preforks at rest | 0 | 0 | 0 | good |", "exit status: 0, ", "seed 7."] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_server_that_is_well_passes() {
    passes("--duration 4");
}

#[test]
fn a_server_on_tcp_passes() {
    passes("--duration 3 --tcp");
}

#[test]
fn a_server_that_dies_fails() {
    let dir = tempfile::tempdir().unwrap();
    let command = "=sh -c 'SERVE {url} & sleep 5; kill -9 $!; echo no more; exit 3'";
    let output = soak(dir.path(), command, "--duration 120");
    assert_eq!(output.status.code(), Some(1));
    let (text, json) = report(dir.path());
    assert_eq!(json["passed"], false);
    for words in ["it has ended: exit status: 3", "no more", "it did not end as it was told to"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(json["seconds"].as_f64().unwrap() < 60.0, "it was not waited for: {text}");
}

#[test]
fn a_server_that_does_not_start_or_cannot_be_soaked_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for (command, words) in [
        ("=sh -c 'sleep 0.2; exit 4' {url}", "exit status: 4"),
        ("=unix:///nowhere", "started here"),
        ("=baseline ring", "started here"),
    ] {
        let output = soak(dir.path(), command, "--duration 1");
        assert!(!output.status.success(), "{command}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(words), "{command}: {errors}");
    }
}

/// Soaks a server whose answers are correct, but which does not end well.
#[test]
fn a_server_that_ends_badly_fails() {
    let dir = tempfile::tempdir().unwrap();
    let command = "=sh -c 'trap \"kill \\$!; exit 5\" TERM; SERVE {url} & wait'";
    let output = soak(dir.path(), command, "--duration 1");
    assert_eq!(output.status.code(), Some(1));
    let (text, _) = report(dir.path());
    assert!(text.contains("at SIGTERM it ended with exit status: 5"), "{text}");
}
