//! Tests of the tool against a server of this process: every load is answered. Speed is not tested.

use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use client::numbers::{O_RDONLY, sys};
use embedded::Embedded;
use kernel::Errno;
use rumpring::server::{Config, Running};
use rumpsp::url::Url;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on the embedded kernel, and the directory of its socket.
struct TestServer {
    server: Running,
    dir: tempfile::TempDir,
}

impl TestServer {
    fn new(url: fn(&std::path::Path) -> Url) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(url(dir.path()));
        config.ring.sockets = 256;
        let server = Running::start(config, Arc::new(Embedded::default())).unwrap();
        TestServer { server, dir }
    }

    fn unix() -> TestServer {
        TestServer::new(|dir| Url::Unix(dir.join("socket")))
    }

    fn command(&self, args: &str) -> Command {
        let url = self.server.url().to_string();
        let args = args.split(' ').map(|arg| arg.replace("URL", &url));
        let mut command = Command::new(env!("CARGO_BIN_EXE_rumpring-bench"));
        command.args(args).env_remove("RUMP_SERVER");
        command
    }

    fn bench(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts the tool, and waits until it has had calls answered.
    fn running(&self, args: &str) -> Bench {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = Bench(Some(command.spawn().unwrap()));
        self.until("calls", |stats| stats.calls > 1000);
        running
    }

    /// Waits until the server's counters satisfy `is_so`.
    fn until(&self, what: &str, is_so: impl Fn(&rumpring::server::CoreStats) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(&self.server.control().stats().unwrap().core) {
            assert!(Instant::now() < end, "waited too long for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the JSON object that the tool printed; the tool must succeed.
    fn json(&self, args: &str) -> Value {
        serde_json::from_str(&self.succeeds(args)).unwrap()
    }

    /// Returns the JSON object of a run that is long enough, however busy the machine is.
    fn json_of_enough(&self, args: &str, is_enough: impl Fn(&Value) -> bool) -> Value {
        let mut json = Value::Null;
        for seconds in [0.2, 1.0, 5.0] {
            json = self.json(&format!("URL --warm-up 0 --json --seconds {seconds} {args}"));
            if is_enough(&json) {
                break;
            }
        }
        json
    }

    /// Returns the tool's message on stderr; the tool must fail.
    fn fails(&self, args: &str) -> String {
        let output = self.bench(args);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{args}: {printed}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Returns `true` if the server has a file of this name.
    fn has(&self, path: &str) -> bool {
        let client = Client::connect(self.server.url()).unwrap();
        let path = client.space().alloc_str(path).unwrap();
        match client.call(sys::OPEN, &[path, O_RDONLY as u64, 0]) {
            Ok(_) => true,
            Err(error) if error.errno() == Some(Errno::ENOENT) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns the tool's output; the tool must succeed.
    fn succeeds(&self, args: &str) -> String {
        let output = self.bench(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The running tool, which does not outlive the test.
struct Bench(Option<Child>);

impl Bench {
    fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.0.as_ref().unwrap()), signal).unwrap();
    }

    /// Returns the processes that the tool has started.
    fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let tasks = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        tasks.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits for the tool's end. Returns whether it succeeded, its output, and its errors.
    fn end(mut self) -> (bool, String, String) {
        let end = Instant::now() + PATIENCE;
        while self.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs a load and returns the number of calls answered.
fn calls(test_server: &TestServer, args: &str) -> u64 {
    let calls = |json: &Value| json["calls"].as_u64().unwrap();
    calls(&test_server.json_of_enough(args, |json| calls(json) > 0))
}

/// Returns `true` if as many calls were answered or waited for as were due. There was no warm-up, whose
/// calls may count among either.
fn is_at_rate(json: &Value, rate: f64) -> bool {
    let number = |name: &str| json[name].as_f64().unwrap();
    let (all, seconds) = (number("calls") + number("unanswered_calls"), number("seconds"));
    (all - rate * seconds).abs() <= 2.0
}

#[test]
fn every_call_is_answered() {
    let test_server = TestServer::unix();
    for call in ["getpid", "read:1", "read:4k", "read:1m", "pwrite:1", "pwrite:4k", "pwrite:1m"] {
        for with in ["-c 1", "-c 5 -i 3"] {
            assert!(calls(&test_server, &format!("--call {call} {with}")) > 0, "{call} {with}");
        }
    }
}

#[test]
fn every_workload_is_answered() {
    let test_server = TestServer::unix();
    for call in ["copyinstr", "pipe", "fork", "connect", "mixed"] {
        for with in ["-c 2", "-c 6 -i 3 -t 2"] {
            assert!(calls(&test_server, &format!("--call {call} {with}")) > 0, "{call} {with}");
        }
    }
    test_server.until("all to leave", |stats| stats.connections == 0);
}

#[test]
fn so_it_is_over_tcp() {
    let test_server = TestServer::new(|_| "tcp://127.0.0.1:0".parse().unwrap());
    for call in ["getpid", "read:64k", "pwrite:1m", "pipe", "fork", "connect", "mixed"] {
        assert!(calls(&test_server, &format!("--call {call} -c 4 -i 2")) > 0, "{call}");
    }
}

#[test]
fn a_fork_and_a_connect_are_a_connection_each() {
    let test_server = TestServer::unix();
    for call in ["fork", "connect"] {
        let accepted = || test_server.server.control().stats().unwrap().core.accepted;
        let before = accepted();
        let json = test_server.json(&format!("URL --call {call} -c 2 -s 0.5 --warm-up 0 --json"));
        let (calls, accepted) = (json["calls"].as_u64().unwrap(), accepted() - before);
        // Some calls were in flight at the end, and fork has two connections of its own.
        assert!((calls..=calls + 6).contains(&accepted), "{call}: {accepted} {calls}");
    }
}

#[test]
fn the_parts_of_a_mix_make_the_whole() {
    let test_server = TestServer::unix();
    let call = "mixed:getpid=3+read:64k=2+pwrite:16=1+copyinstr=1";
    let has_all = |json: &Value| {
        json["parts"].as_array().unwrap().iter().all(|part| part["calls"].as_u64() > Some(100))
    };
    let json = test_server.json_of_enough(&format!("--call {call} -c 3 -i 2"), has_all);
    let parts = json["parts"].as_array().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part["part"].as_str().unwrap()).collect();
    assert_eq!(names, ["getpid", "read:64k", "pwrite:16", "copyinstr"]);
    let calls: Vec<_> = parts.iter().map(|part| part["calls"].as_u64().unwrap()).collect();
    assert_eq!(calls.iter().sum::<u64>(), json["calls"].as_u64().unwrap());
    assert!(has_all(&json) && calls[0] > calls[3], "{calls:?}");
    // A comparison separates calls by commas, and parts of a mix by `+`.
    let compared = test_server.succeeds(&format!(
        "compare one=URL other=URL --calls {call},getpid -c 2 --rounds 1 -s 0.3 --warm-up 0"
    ));
    assert!(compared.contains(call) && compared.contains("getpid"), "{compared}");
}

#[test]
fn the_slow_caller_of_a_fair_load_keeps_its_pace() {
    let test_server = TestServer::unix();
    for with in ["-c 4", "-c 5 -i 3 -t 2"] {
        let json = test_server.json(&format!("URL --call fair {with} -s 0.5 --warm-up 0 --json"));
        let calls = |part: usize| json["parts"][part]["calls"].as_u64().unwrap();
        // One call is due every 10 ms, answered or not.
        let slow = calls(1) + json["unanswered_calls"].as_u64().unwrap();
        assert_eq!(slow, 50, "{with}: {json}");
        assert!(calls(0) > 0 && calls(0) + calls(1) == json["calls"].as_u64().unwrap());
        assert!(json["parts"][1]["latency_us"]["p99"].as_f64().unwrap() > 0.0, "{with}: {json}");
    }
}

#[test]
fn a_rate_is_kept_to() {
    let test_server = TestServer::unix();
    for with in ["-c 8", "-c 8 -t 2", "-c 1 -i 8", "--call fork -c 2", "--call pipe -c 2"] {
        let json = test_server.json(&format!("URL --rate 2000 -s 0.5 --warm-up 0 --json {with}"));
        // The number of answers depends on the machine, the number of calls due does not.
        assert!(is_at_rate(&json, 2000.0), "{with}: {json}");
        assert_eq!(json["asked_calls_per_second"], 2000, "{with}");
        assert!(json["calls"].as_u64() > Some(0), "{with}: {json}");
    }
}

#[test]
fn calls_that_could_not_be_made_in_time_are_unanswered() {
    let test_server = TestServer::unix();
    let args = "URL -c 2 --rate 10000000 -s 0.3 --warm-up 0";
    let json = test_server.json(&format!("{args} --json"));
    assert!(json["unanswered_calls"].as_u64() > json["calls"].as_u64(), "{json}");
    assert!(is_at_rate(&json, 1e7), "{json}");
    let printed = test_server.succeeds(args);
    assert!(
        printed.contains(" 10000000 asked\n") && printed.contains("\nunanswered "),
        "{printed}"
    );
}

#[test]
fn an_object_has_all_of_it() {
    let test_server = TestServer::unix();
    let pid = std::process::id();
    let json = test_server.json(&format!("URL -c 3 -i 2 -s 0.5 --warm-up 0 --pid {pid} --json"));
    for (name, value) in [("call", Value::from("getpid")), ("connections", 3.into())] {
        assert_eq!(json[name], value);
    }
    for (name, value) in [("in_flight", 2), ("threads", 1), ("processes", 1)] {
        assert_eq!(json[name], value, "{name}");
    }
    assert_eq!(
        (&json["cut_short"], &json["asked_calls_per_second"]),
        (&false.into(), &Value::Null)
    );
    let latencies = json["latency_us"].as_object().unwrap();
    assert_eq!(latencies.len(), 6);
    for name in ["calls_per_second", "server_cpu_us_per_call", "client_cpu_us_per_call"] {
        assert!(json[name].as_f64().unwrap() > 0.0, "{name}: {json}");
    }
}

#[test]
fn few_files_are_made_up_for_by_processes() {
    let test_server = TestServer::unix();
    for (call, with, processes) in [
        ("getpid", "-c 40", 3),
        ("mixed", "-c 40 -t 4", 3),
        ("pipe", "-c 40", 3),
        ("fork", "-c 10", 2),
    ] {
        let args = format!("--call {call} {with} --files 48");
        let json = test_server.json_of_enough(&args, |json| json["calls"].as_u64() > Some(0));
        assert_eq!(json["processes"], processes, "{args}: {json}");
        assert!(json["calls"].as_u64().unwrap() > 0, "{args}: {json}");
    }
    let json = test_server.json("URL -c 40 --files 48 --rate 2000 -s 0.5 --warm-up 0 --json");
    assert!(is_at_rate(&json, 2000.0), "{json}");
    let errors = test_server.fails("URL -c 5000 --files 48");
    assert!(errors.contains("RLIMIT_NOFILE") && errors.contains("ulimit -n"), "{errors}");
}

#[test]
fn a_process_that_fails_is_said() {
    let test_server = TestServer::unix();
    let running = test_server.running("URL -c 40 --files 48 -s 60 --warm-up 0");
    let children = running.children();
    assert_eq!(children.len(), 3);
    let one = Pid::from_raw(children[1]).unwrap();
    kill_process(one, Signal::KILL).unwrap();
    let (is_good, printed, errors) = running.end();
    assert!(!is_good, "{printed}");
    let says =
        format!("process 2 of 3 (pid {}): it ended without a result (signal: 9", children[1]);
    assert!(errors.contains(&says), "{errors}");
    test_server.until("all to leave", |stats| stats.connections == 0);
}

#[test]
fn an_interrupt_keeps_what_was_measured_and_leaves_nothing_behind() {
    let test_server = TestServer::unix();
    let running = test_server.running("URL --call copyinstr -c 2 -s 600 --warm-up 0");
    let path = format!("/rumpring-bench.{}.1", running.pid());
    assert!(test_server.has(&path));
    running.signal(Signal::INT);
    let (is_good, printed, errors) = running.end();
    assert!(is_good, "{errors}");
    assert!(printed.contains(" calls/s\n") && printed.contains("\ncut short: "), "{printed}");
    assert!(!test_server.has(&path));
}

#[test]
fn processes_are_interrupted_too() {
    let test_server = TestServer::unix();
    let running =
        test_server.running("URL --call mixed -c 40 --files 48 -s 600 --warm-up 0 --json");
    let path = format!("/rumpring-bench.{}.20", running.children()[1]);
    assert!(test_server.has(&path));
    running.signal(Signal::INT);
    let (is_good, printed, errors) = running.end();
    assert!(is_good, "{errors}");
    let json: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&json["cut_short"], &json["processes"]), (&true.into(), &3.into()));
    assert!(json["calls"].as_u64().unwrap() > 0, "{json}");
    assert!(!test_server.has(&path));
}

#[test]
fn an_interrupted_warm_up_has_measured_nothing() {
    let test_server = TestServer::unix();
    let running = test_server.running("URL -c 2 -s 1 --warm-up 600");
    running.signal(Signal::INT);
    let (is_good, _, errors) = running.end();
    assert!(!is_good && errors.contains("nothing was measured"), "{errors}");
}

#[test]
fn a_server_that_goes_away_is_said() {
    let test_server = TestServer::unix();
    let running = test_server.running("URL -c 4 -t 2 -s 600 --warm-up 0");
    test_server.server.control().stop();
    let (is_good, printed, errors) = running.end();
    assert!(!is_good && printed.is_empty(), "{printed}");
    let says_who = errors.contains("thread ") && errors.contains("connection ");
    assert!(says_who && errors.contains("hung up"), "{errors}");
}

#[test]
fn what_cannot_be_is_refused() {
    let test_server = TestServer::unix();
    for (args, says) in [
        ("URL --call pipe -c 3", "even number"),
        ("URL --call nothing", "none of getpid"),
        ("URL -c 1000001", "no number from 1 to 1000000"),
        ("URL -i 1025", "no number from 1 to 1024"),
        ("URL --call fair -c 1", "2 connections at least"),
        ("URL --call fair --rate 10", "pace of its own"),
        ("URL --rate 0", "--rate"),
        ("URL --rate 100000001", "--rate"),
        ("URL -c 1000000 -i 1024", "calls in flight in all"),
        ("unix:///nonexistent/socket", "connecting to unix:///nonexistent/socket"),
    ] {
        let errors = test_server.fails(args);
        assert!(errors.contains(says), "{args}: {errors}");
    }
}

#[test]
fn the_bill_is_that_of_the_process() {
    let test_server = TestServer::unix();
    let pid = std::process::id();
    let printed = test_server.succeeds(&format!("URL --seconds 0.5 --warm-up 0 --pid {pid}"));
    assert!(printed.contains("us of CPU and "), "{printed}");
}

#[test]
fn a_comparison_has_a_line_for_each_and_a_file() {
    let test_server = TestServer::unix();
    let json = test_server.dir.path().join("json");
    let args = format!(
        "compare one=URL other=URL --calls getpid,read:16@2x2 -c 1,3 --rounds 2 --seconds 0.3 \
         --warm-up 0 --json {}",
        json.display()
    );
    let printed = test_server.succeeds(&args);
    let (measured, ratios) = printed.split_once("Ratios to one:").expect("a table of ratios");
    assert!(ratios.contains("| read:16 | 2 x 2 | other | **"), "{printed}");
    for load in ["getpid | 1 x 1", "getpid | 3 x 1", "read:16 | 2 x 2"] {
        for server in ["one", "other"] {
            let line = format!("| {load} | {server} |");
            assert_eq!(measured.matches(&line).count(), 1, "{line}: {printed}");
        }
    }
    let json: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(json["cases"].as_array().unwrap().len(), 3);
    assert!(json["cases"][2]["rounds"][1][1]["calls_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_server_that_does_not_start_is_said() {
    let test_server = TestServer::unix();
    let output =
        test_server.bench("compare one=URL other=/nonexistent/server{url} --rounds 1 -s 0.01");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("other") && errors.contains("1 turns failed"), "{errors}");
}
