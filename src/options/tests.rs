//! Tests of options and their effects.

use super::*;
use crate::server::AnswerTime;

const UNIX: &str = "unix://s";

fn options(words: &[&str]) -> Result<(Options, ArgMatches), String> {
    let command = Options::augment_args(clap::Command::new("rumpring"));
    let words = ["rumpring"].iter().chain(words);
    let given = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
    let options = Options::from_arg_matches(&given).map_err(|error| error.to_string())?;
    Ok((options, given))
}

fn config(words: &[&str]) -> Result<Config, String> {
    let (options, given) = options(words)?;
    options.config(&given, UNIX.parse().unwrap())
}

#[test]
fn what_is_not_said_is_as_the_server_has_it() {
    let (said, default) = (config(&[]).unwrap(), Config::new("unix://s".parse().unwrap()));
    let text = |config: &Config| {
        format!("{:?}{:?}{:?}{:?}", config.limits, config.access, config.socket, config.scheduler)
    };
    assert_eq!(text(&said), text(&default));
}

#[test]
fn what_is_said_is_done() {
    let said = config(&["--connections", "7", "--max-asleep", "9", "--spin", "30"]).unwrap();
    assert_eq!((said.ring.sockets, said.scheduler.max_asleep.get()), (7, 9));
    let spin = Duration::from_micros(30);
    assert_eq!((said.scheduler.spin, said.ring.spin), (spin, spin));
    let said = config(&["--send-queue-pause", "2m", "--answer-time", "3", "--calls", "5"]).unwrap();
    assert_eq!((said.limits.send_queue_pause, said.limits.session.calls), (2 << 20, 5));
    assert_eq!(said.limits.answer, AnswerTime::Bounded(Duration::from_secs(3)));
    let said = config(&["--allow-user", "root,7", "--allow-group", "8"]).unwrap();
    assert_eq!((said.access.users, said.access.groups), (vec![0, 7], vec![8]));
    let said = config(&["--allow-from", "10.1.2.3/8,::1", "--socket-mode", "0660"]).unwrap();
    assert_eq!(said.access.networks[0], "10.0.0.0/8".parse().unwrap());
    assert_eq!(said.access.networks[1], "::1/128".parse().unwrap());
    assert_eq!(said.socket.mode, Some(0o660));
    let said = config(&["--socket-owner", "root:7"]).unwrap();
    assert_eq!((said.socket.user, said.socket.group), (Some(0), Some(7)));
    let said = config(&["--socket-owner", ":7"]).unwrap();
    assert_eq!((said.socket.user, said.socket.group), (None, Some(7)));
}

#[test]
fn faults_of_netbsd_are_let_through_by_who_asks_for_it() {
    let said = |words| options(words).unwrap().0;
    assert!(!said(&[]).allows_netbsd_faults());
    assert!(said(&["--netbsd-faults", "allow"]).allows_netbsd_faults());
    assert!(!said(&["--netbsd-faults", "refuse"]).allows_netbsd_faults());
    assert!(options(&["--netbsd-faults", "mend"]).is_err());
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    for (name, value) in [
        ("--connections", "0"),
        ("--connections", "4294967295"),
        ("--max-asleep", "many"),
        ("--spin", "-1"),
        ("--cpus", "x"),
        ("--drain", "1.5"),
        ("--drain", "999999999999"),
        ("--send-queue-pause", "1x"),
        ("--send-queue-pause", "99999999999g"),
        ("--argument-bytes", "129"),
        ("--calls", "0"),
        ("--handshake-time", "0"),
        ("--answer-time", "0"),
        ("--handshake-bytes", "16"),
        ("--argument-bytes", "63"),
        ("--send-queue-pause", "0"),
        ("--send-queue-max", "131071"),
        ("--send-queue-total", "131071"),
        ("--spin", "1000001"),
        ("--keepalive", "32768"),
        ("--keepalive", "on"),
        ("--connections-per-peer", "0"),
        ("--queued", "0"),
        ("--calls-in-all", "0"),
        ("--max-asleep", "0"),
        ("--allow-from", "10.0.0.0/33"),
        ("--allow-from", "all"),
        ("--socket-mode", "1777"),
        ("--socket-mode", "rw"),
    ] {
        let error = config(&[&format!("{name}={value}")]).map(drop).expect_err(name);
        assert!(error.contains(name) && error.contains(value), "{name} {value}: {error}");
    }
    let error = config(&["--allow-user", "nobody-of-that-name"]).map(drop).unwrap_err();
    assert!(error.contains("no user `nobody-of-that-name`"), "{error}");
}

#[test]
fn the_least_and_the_most_that_make_sense_are_taken() {
    for (name, value) in [
        ("--connections", "1"),
        ("--connections-per-peer", "1"),
        ("--handshake-time", "1"),
        ("--handshake-time", "31536000"),
        ("--answer-time", "1"),
        ("--handshake-bytes", "17"),
        ("--argument-bytes", "64"),
        ("--argument-bytes", "128"),
        ("--request-bytes", "0"),
        ("--calls", "1"),
        ("--calls-in-all", "1"),
        ("--queued", "1"),
        ("--send-queue-pause", "1"),
        ("--send-queue-max", "128k"),
        ("--send-queue-total", "128k"),
        ("--copyin-cache", "0"),
        ("--copyin-cache-total", "0"),
        ("--backlog", "0"),
        ("--preforks", "0"),
        ("--preforks-in-all", "0"),
        ("--orphan-time", "0"),
        ("--linger", "0"),
        ("--drain", "0"),
        ("--spin", "0"),
        ("--spin", "1000000"),
        ("--keepalive", "0"),
        ("--keepalive", "off"),
        ("--keepalive", "1"),
        ("--keepalive", "32767"),
        ("--max-asleep", "1"),
        ("--zero-copy-from", "0"),
    ] {
        config(&[&format!("{name}={value}")])
            .unwrap_or_else(|error| panic!("{name} {value}: {error}"));
    }
    let keepalive = |word| config(&["--keepalive", word]).unwrap().socket.keepalive;
    assert_eq!(keepalive("7"), Some(Duration::from_secs(7)));
    assert_eq!((keepalive("0"), keepalive("off")), (None, None));
}

#[test]
fn earlier_names_of_options_still_say_the_same() {
    let args = [
        "--owed",
        "64k",
        "--owed-most",
        "1m",
        "--owed-in-all",
        "2m",
        "--kept",
        "3m",
        "--kept-in-all",
        "4m",
    ];
    let limits = config(&args).unwrap().limits;
    assert_eq!(
        (limits.send_queue_pause, limits.send_queue_max, limits.send_queue_total),
        (64 << 10, 1 << 20, 2 << 20)
    );
    assert_eq!((limits.copyin_cache, limits.copyin_cache_total), (3 << 20, 4 << 20));
}
