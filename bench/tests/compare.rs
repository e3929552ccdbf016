//! Tests of comparisons from the command line to the files they write. The servers are baseline
//! servers, which are in the tool itself.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

/// The time anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rumpring-bench"))
}

/// Runs a comparison of two baseline servers, in turns that are short, but long enough for some calls
/// on a machine with other work. `DIR` in the arguments stands for the folder.
fn compare(dir: &Path, args: &str) -> Output {
    let args = args.split(' ').map(|arg| arg.replace("DIR", &dir.display().to_string()));
    bench()
        .args(["compare", "ring=baseline ring", "hop=baseline hop"])
        .args("--seconds 0.3 --warm-up 0".split(' '))
        .args(args)
        .output()
        .unwrap()
}

/// Returns the tool's output; the tool must succeed.
fn printed(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(file: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn all_that_is_asked_for_is_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("about"), "a machine & its <kernel>").unwrap();
    let printed = printed(compare(
        dir.path(),
        "--calls getpid@1,getpid@4x2=hop --rounds 2 --ratio-to hop,ring --idle 20,30=ring --quiet \
         --json DIR/json --report DIR/page.html --about DIR/about --histograms DIR/latencies",
    ));
    for text in ["Ratios to hop:", "Ratios to ring:", "| 30 | ring | ", "| getpid | 4 x 2 | hop |"]
    {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    for text in ["| 30 | hop |", "| getpid | 4 x 2 | ring |"] {
        assert!(!printed.contains(text), "{text}: {printed}");
    }
    let json = json(&dir.path().join("json"));
    let turn = &json["cases"][0]["rounds"][1][0];
    for number in ["p99.99_us", "max_us", "server_enters_per_call", "server_cpu_us_per_call"] {
        assert!(turn[number].as_f64().unwrap() > 0.0, "{number}: {turn}");
    }
    assert!(turn["server_memory_kib"].as_u64() > Some(100), "{turn}");
    assert!(turn["server_threads"].as_u64() >= Some(2), "{turn}");
    assert!(json["idle"][1]["rounds"][0][0]["server_memory_kib_per_connection"].is_f64());
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(page.contains("a machine &amp; its &lt;kernel&gt;") && page.contains("<svg "));
}

#[test]
fn the_histograms_of_the_rounds_make_one() {
    let dir = tempfile::tempdir().unwrap();
    printed(compare(dir.path(), "--calls getpid@2 --rounds 2 --histograms DIR/h"));
    let logs = [1, 2].map(|round| dir.path().join(format!("h/getpid-2x1-ring-{round}.hlog")));
    let counts = logs.each_ref().map(|log| merged(&[log], None));
    let sum = dir.path().join("sum");
    let both = merged(&[&logs[0], &logs[1]], Some(&sum));
    assert!(counts[0] > 0 && counts[1] > 0);
    assert_eq!(both, counts[0] + counts[1]);
    assert_eq!(merged(&[&sum], None), both, "the sum is a log as well");
    let text = std::fs::read_to_string(dir.path().join("sum.hgrm")).unwrap();
    assert!(text.contains(&format!("Total count    = {both:12}]")), "{text}");
}

/// Merges logs and returns the number of calls in them.
fn merged(logs: &[&Path], output: Option<&Path>) -> u64 {
    let mut command = bench();
    command.arg("merge").args(logs);
    if let Some(file) = output {
        command.arg("-o").arg(file);
    }
    let printed = printed(command.output().unwrap());
    assert!(printed.contains("p99.99 "), "{printed}");
    printed.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_broken_log_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    std::fs::write(&file, "# fine\nnot fine\n").unwrap();
    let output = bench().arg("merge").arg(&file).output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(&format!("{}:2: ", file.display())), "{errors}");
}

#[test]
fn a_signal_keeps_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("json");
    let mut child = bench()
        .args(["compare", "ring=baseline ring", "hop=baseline hop", "--calls", "getpid@1,getpid@2"])
        .args("--rounds 500 --seconds 0.05 --warm-up 0 --json".split(' '))
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("turn 4 of 2000: ")));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(!child.wait().unwrap().success(), "not all was measured");
    assert!(rest.last().unwrap().contains("cut short by a signal after "), "{rest:?}");
    let mut printed = String::new();
    child.stdout.unwrap().read_to_string(&mut printed).unwrap();
    assert!(printed.contains("| getpid | 1 x 1 | hop | "), "{printed}");
    assert!(printed.contains("Ratios to ring:") && printed.contains("This was cut short"));
    let json = json(&file);
    assert!(json["cut_short"].is_string());
    assert_eq!(json["cases"].as_array().unwrap().len(), 1);
    assert!(json["cases"][0]["rounds"][0][1]["calls_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_turn_that_a_signal_cuts_short_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("json");
    let mut child = bench()
        .args(["compare", "ring=baseline ring", "--quiet", "--rounds", "1"])
        .args("--seconds 600 --warm-up 0 --json".split(' '))
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A server that has used so much CPU time is being measured.
    let server = server_of(&child);
    let start = Instant::now();
    while ticks(server) < 10 {
        assert!(start.elapsed() < PATIENCE, "its server does nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(errors.contains("after 1 of 1 turns, the last of which ended after "), "{errors}");
    let turn = &json(&file)["cases"][0]["rounds"][0][0];
    assert_eq!(turn["cut_short"], true, "{turn}");
    assert!(turn["seconds"].as_f64().unwrap() < 60.0, "{turn}");
    assert!(turn["server_cpu_us_per_call"].as_f64().unwrap() > 0.0, "{turn}");
}

/// Returns the clock ticks of CPU time that a process has used.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_ascii_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_second_signal_ends_it_and_its_server_at_once() {
    // The server is waited for and never listens, so that the first signal does not suffice.
    let mut child = bench()
        .args(["compare", "mute=sleep 600 # {url}", "--seconds", "60", "--warm-up", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("turn 1 of 3: "), "{line}");
    let server = Pid::from_raw(server_of(&child)).unwrap();
    let server = pidfd_open(server, PidfdFlags::empty()).unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "two signals should have ended it");
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(130));
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&patience));
    assert_eq!(ended, Ok(1), "its server should have ended, too");
}

/// Returns the one process that a comparison has started, once it has.
fn server_of(comparison: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", comparison.id());
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "no server was started");
        let children = std::fs::read_to_string(&children).unwrap();
        if let Some(pid) = children.split(' ').next().and_then(|pid| pid.parse().ok()) {
            return pid;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_server_is_called_at_half_of_its_own_rate() {
    let dir = tempfile::tempdir().unwrap();
    let printed = printed(compare(
        dir.path(),
        "--calls getpid@4,getpid@4%50 --rounds 2 --quiet --json DIR/json --report DIR/page.html",
    ));
    assert!(printed.contains("\nLatency at a fixed rate: an open loop"), "{printed}");
    let cases = json(&dir.path().join("json"))["cases"].clone();
    assert_eq!(cases[1]["percent_of_own_rate"], 50);
    for target in [0, 1] {
        let number = |case: usize, round: usize, name: &str| {
            cases[case]["rounds"][round][target][name].as_f64().unwrap()
        };
        let rate = |round| number(0, round, "calls_per_second");
        let half = (rate(0) + rate(1)) / 2.0 / 2.0;
        for round in [0, 1] {
            let asked = number(1, round, "asked_calls_per_second");
            assert!((asked - half).abs() <= 1.0, "{target}: {asked}, half is {half}");
            let seconds = number(1, round, "seconds");
            let answered = number(1, round, "calls_per_second") * seconds;
            let all = answered + number(1, round, "unanswered_calls");
            assert!((all - asked * seconds).abs() <= 2.0, "{target}: {all} of {}", asked * seconds);
        }
    }
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(page.contains("4 x 1 at 50 %"));
}

#[test]
fn fairness_is_told_of_each_server() {
    let dir = tempfile::tempdir().unwrap();
    let printed = printed(compare(
        dir.path(),
        "--calls fair@4 --rounds 1 --threads 2 --quiet --json DIR/json",
    ));
    let (_, table) = printed.split_once("Fairness: ").unwrap();
    for target in ["ring", "hop"] {
        assert!(table.contains(&format!("| fair | 4 x 1 | {target} | ")), "{printed}");
    }
    let round = json(&dir.path().join("json"))["cases"][0]["rounds"][0].clone();
    for turn in round.as_array().unwrap() {
        let part = |part: usize, name: &str| turn["parts"][part][name].as_f64().unwrap();
        assert_eq!(
            (&turn["parts"][0]["part"], &turn["parts"][1]["part"]),
            (&"busy".into(), &"slow".into())
        );
        assert!(part(0, "calls_per_second") > part(1, "calls_per_second"), "{turn}");
        assert!(part(0, "p50_us") > 0.0 && part(1, "p99_us") > 0.0, "{turn}");
        assert_eq!(turn["load_threads"], 2);
    }
}

#[test]
fn how_the_load_was_made_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let args = "-c 1,2 --threads 2 --spin 20 --rate 2000 --rounds 1 --quiet --json DIR/json";
    let printed = printed(compare(dir.path(), args));
    let says = "1 turns each, in turn, of 0.3 s after 0 s of warm-up, a new server for each; up to 2 load \
                threads, looking for answers for up to 20 us before sleeping; an open loop of 2000 \
                calls/s, all connections together.\n";
    assert!(printed.starts_with(says), "{printed}");
    assert!(printed.contains("| getpid | 2 x 1 at 2000/s | hop |"), "{printed}");
    let json = json(&dir.path().join("json"));
    assert_eq!(json["settings"]["load_spin_us"], 20);
    let threads = [0, 1].map(|case: usize| &json["cases"][case]["rounds"][0][0]["load_threads"]);
    assert_eq!(threads, [1, 2]);
}

#[test]
fn what_cannot_be_is_refused_before_the_first_turn() {
    let dir = tempfile::tempdir().unwrap();
    for (args, word) in [
        ("--ratio-to other", "--ratio-to other: no server has that name"),
        ("ring=x{url}", "two servers have the name ring"),
        ("--calls getpid@3=other", "no server has the name other"),
        ("--calls getpid@3%50", "getpid 3 x 1 in a closed loop has to come before it"),
        ("--calls getpid@3=hop,getpid@3%50", "has to come before it, with the same servers"),
        ("--calls getpid@3,getpid@3%50 --rate 9", "in a closed loop has to come before it"),
        ("--calls getpid@3%201", "no number from 1 to 200"),
        ("--calls fair --rate 9", "fair has a pace of its own"),
        ("--calls fair@1", "2 connections at least"),
        ("--idle 3=other", "no server has the name other"),
        ("url=tcp://127.0.0.1:1 --idle 3", "url is not started here"),
        ("--report DIR/page --about DIR/none", "none: No such file"),
    ] {
        let output = compare(dir.path(), args);
        assert!(!output.status.success(), "{args}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(word) && !errors.contains("turn 1"), "{args}: {errors}");
    }
}

#[test]
fn a_server_that_does_not_tell_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // The server prints nothing at SIGUSR1 that is found, for its stderr goes elsewhere.
    let program = env!("CARGO_BIN_EXE_rumpring-bench");
    let output = bench()
        .arg("compare")
        .args([
            "ring=baseline ring",
            &format!("mute+stats={program} baseline ring {{url}} 2>/dev/null"),
        ])
        .args("--rounds 1 --seconds 0.01 --warm-up 0 --json".split(' '))
        .arg(dir.path().join("json"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("mute: the server's bill: SIGUSR1 made it print no line"), "{errors}");
}
