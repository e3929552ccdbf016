//! The tool against a server of this process: every load is answered. How fast is not for tests.

use std::process::{Command, Output};
use std::sync::Arc;

use rumpring::kernel::embedded::Embedded;
use rumpring::server::{Config, Running};
use rumpring::url::Url;

/// A server on the embedded kernel, and where its socket is.
struct House {
    server: Running,
    dir: tempfile::TempDir,
}

impl House {
    fn new(url: fn(&std::path::Path) -> Url) -> House {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(url(dir.path()));
        config.ring.sockets = 256;
        let server = Running::start(config, Arc::new(Embedded::default())).unwrap();
        House { server, dir }
    }

    fn unix() -> House {
        House::new(|dir| Url::Unix(dir.join("socket")))
    }

    fn bench(&self, args: &str) -> Output {
        let url = self.server.url().to_string();
        let args = args.split(' ').map(|arg| arg.replace("URL", &url));
        let program = env!("CARGO_BIN_EXE_rumpring-bench");
        Command::new(program).args(args).env_remove("RUMP_SERVER").output().unwrap()
    }

    /// What it printed, if it succeeded.
    fn succeeds(&self, args: &str) -> String {
        let output = self.bench(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Runs a load and returns how many calls a second were answered.
fn rate(house: &House, args: &str) -> u64 {
    let printed = house.succeeds(&format!("URL --seconds 0.2 --warm-up 0 {args}"));
    let rate = printed.split(" calls/s").next().unwrap().rsplit(' ').next().unwrap();
    rate.parse().unwrap_or_else(|_| panic!("{args}: {printed}"))
}

#[test]
fn every_call_is_answered() {
    let house = House::unix();
    for call in ["getpid", "read:1", "read:4k", "read:1m", "pwrite:1", "pwrite:4k", "pwrite:1m"] {
        for with in ["-c 1", "-c 5 -i 3"] {
            assert!(rate(&house, &format!("--call {call} {with}")) > 0, "{call} {with}");
        }
    }
}

#[test]
fn so_it_is_over_tcp() {
    let house = House::new(|_| "tcp://127.0.0.1:0".parse().unwrap());
    for call in ["getpid", "read:64k", "pwrite:1m"] {
        assert!(rate(&house, &format!("--call {call} -c 4 -i 2")) > 0, "{call}");
    }
}

#[test]
fn the_bill_is_that_of_the_process() {
    let house = House::unix();
    let pid = std::process::id();
    let printed = house.succeeds(&format!("URL --seconds 0.2 --warm-up 0 --pid {pid}"));
    assert!(printed.contains("us of CPU and "), "{printed}");
}

#[test]
fn a_comparison_has_a_line_for_each_and_a_file() {
    let house = House::unix();
    let json = house.dir.path().join("json");
    let args = format!(
        "compare one=URL other=URL --calls getpid,read:16@2x2 -c 1,3 --rounds 2 --seconds 0.05 \
         --warm-up 0 --json {}",
        json.display()
    );
    let printed = house.succeeds(&args);
    let (measured, ratios) = printed.split_once("Ratios to one:").expect("a table of ratios");
    assert!(ratios.contains("| read:16 | 2 x 2 | other | **"), "{printed}");
    for load in ["getpid | 1 x 1", "getpid | 3 x 1", "read:16 | 2 x 2"] {
        for server in ["one", "other"] {
            let line = format!("| {load} | {server} |");
            assert_eq!(measured.matches(&line).count(), 1, "{line}: {printed}");
        }
    }
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(json["cases"].as_array().unwrap().len(), 3);
    assert!(json["cases"][2]["rounds"][1][1]["calls_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_server_that_does_not_start_is_said() {
    let house = House::unix();
    let output = house.bench("compare one=URL other=/nonexistent/server{url} --rounds 1 -s 0.01");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("other") && errors.contains("1 turns failed"), "{errors}");
}
