//! The options for limits on what a server takes on. docs/limits.md has the table of what a client sees at
//! each limit.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use clap::{ArgMatches, Args};

use super::units::{memory, seconds};
use crate::server::ROOM;
use crate::server::{AnswerTime, Limits};
use embedded;
use rumpsp::session;

/// Pairs of a limit of one client and the limit of all clients, which it should not exceed.
pub const PAIRS: [(&str, &str); 10] = [
    ("connections_per_peer", "connections"),
    ("calls", "calls_in_all"),
    ("send_queue_pause", "send_queue_max"),
    ("send_queue_max", "send_queue_total"),
    ("copyin_cache", "copyin_cache_total"),
    ("preforks", "preforks_in_all"),
    ("files_of_family", "files_in_all"),
    ("processes", "processes_in_all"),
    ("bytes", "bytes_in_all"),
    ("inodes_of_family", "inodes"),
];

/// Returns `true` if the first limit of a pair is over the second.
pub fn is_over(given: &ArgMatches, one: &str, all: &str) -> bool {
    match (value(given, one), value(given, all)) {
        (Some(one), Some(all)) => one > all,
        _ => false,
    }
}

/// Returns the value of a limit, given or default. The embedded kernel's limits have their defaults in
/// that kernel.
fn value(given: &ArgMatches, id: &str) -> Option<u64> {
    fn get<T: Copy + Send + Sync + 'static>(given: &ArgMatches, id: &str) -> Option<T> {
        given.try_get_one::<T>(id).ok().flatten().copied()
    }
    let usual = embedded::Limits::default();
    let number = get::<u64>(given, id)
        .or_else(|| get::<usize>(given, id).map(|number| number as u64))
        .or_else(|| get::<NonZeroUsize>(given, id).map(|number| number.get() as u64))
        .or_else(|| get::<NonZeroU32>(given, id).map(|number| u64::from(number.get())));
    number.or(match id {
        "files_in_all" => Some(usual.files),
        "processes_in_all" => Some(usual.processes),
        "bytes_in_all" => Some(usual.bytes),
        _ => None,
    })
}

/// The heading under which `--help` lists the limits.
pub const HEADING: &str = "Limits";

/// The limits on clients, each by itself and all together.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub struct LimitOptions {
    /// Connections of one peer: a user at a unix URL, a host (of IPv6 a /64) at a tcp URL. No bound of
    /// its own if not given.
    #[arg(long, env = "RUMPRING_CONNECTIONS_PER_PEER", value_name = "N")]
    connections_per_peer: Option<NonZeroUsize>,

    /// Seconds from a connection to the end of its handshake, one at least.
    #[arg(long, env = "RUMPRING_HANDSHAKE_TIME", value_name = "SECONDS", default_value = "10",
        value_parser = handshake_time)]
    handshake_time: Duration,

    /// Seconds that a call waits for its client, in all: to answer what it is asked for and, with NetBSD's
    /// kernel, to take what is owed to it; 64k that the client moves give it a second more. `off`: no bound. If
    /// not given, 30 with NetBSD's kernel, whose calls may keep others waiting meanwhile, and `off` with the
    /// embedded one: a client that is stopped in a debugger answers late.
    #[arg(long, env = "RUMPRING_ANSWER_TIME", value_name = "SECONDS", value_parser = answer_time)]
    answer_time: Option<AnswerTime>,

    /// Bytes of a handshake's body: the command's name. At least 17, for NetBSD keeps 16 letters of it.
    #[arg(long, env = "RUMPRING_HANDSHAKE_BYTES", value_name = "SIZE", default_value = "1k",
        value_parser = handshake_bytes)]
    handshake_bytes: usize,

    /// Bytes of a call's argument structure, from 64, the longest of NetBSD's calls, to 128.
    #[arg(long, env = "RUMPRING_ARGUMENT_BYTES", value_name = "SIZE", default_value = "128",
        value_parser = argument_bytes)]
    argument_bytes: usize,

    /// Bytes of any other request's body.
    #[arg(long, env = "RUMPRING_REQUEST_BYTES", value_name = "SIZE", default_value = "4k",
        value_parser = memory)]
    request_bytes: usize,

    /// Calls in flight of one client, asleep or not.
    #[arg(long, env = "RUMPRING_CALLS", value_name = "N", default_value = "4096")]
    calls: NonZeroUsize,

    /// Calls in flight of all clients.
    #[arg(long, env = "RUMPRING_CALLS_IN_ALL", value_name = "N", default_value = "262144")]
    calls_in_all: NonZeroUsize,

    /// Calls of one client that wait for a thread.
    #[arg(long, env = "RUMPRING_QUEUED", value_name = "N", default_value = "256")]
    queued: NonZeroUsize,

    /// Bytes in one client's send queue at which it is not read from until it has taken half.
    #[arg(long, alias = "owed", env = "RUMPRING_SEND_QUEUE_PAUSE", value_name = "SIZE", default_value = "1m",
        value_parser = send_queue_pause)]
    send_queue_pause: usize,

    /// Bytes in one client's send queue at which it is hung up on. At least 128k: what one call copies out before
    /// it is sent.
    #[arg(long, alias = "owed-most", env = "RUMPRING_SEND_QUEUE_MAX", value_name = "SIZE", default_value = "32m",
        value_parser = send_queue_max)]
    send_queue_max: usize,

    /// Bytes in the send queues of all clients at which the one with the longest is hung up on.
    #[arg(long, alias = "owed-in-all", env = "RUMPRING_SEND_QUEUE_TOTAL", value_name = "SIZE", default_value = "1g",
        value_parser = send_queue_max)]
    send_queue_total: usize,

    /// Bytes of its answers that the calls of one client hold, half of it those that sleep. Beyond, those
    /// ask again when they wake, and the others' further asks wait.
    #[arg(long, alias = "kept", env = "RUMPRING_COPYIN_CACHE", value_name = "SIZE", default_value = "4m",
        value_parser = memory)]
    copyin_cache: usize,

    /// Bytes that all clients have sent and that are held, at which the one of whose bytes most are held is
    /// hung up on; from half of it on each holds less.
    #[arg(long, alias = "kept-in-all", env = "RUMPRING_COPYIN_CACHE_TOTAL", value_name = "SIZE", default_value = "1g",
        value_parser = memory)]
    copyin_cache_total: usize,

    /// Bytes of one client that wait while its handshake or prefork is under way.
    #[arg(long, env = "RUMPRING_BACKLOG", value_name = "SIZE", default_value = "16k",
        value_parser = memory)]
    backlog: usize,

    /// Preforks of one client that wait for their child.
    #[arg(long, env = "RUMPRING_PREFORKS", value_name = "N", default_value = "64")]
    preforks: usize,

    /// Preforks of all clients; the oldest whose parent has gone makes room.
    #[arg(long, env = "RUMPRING_PREFORKS_IN_ALL", value_name = "N", default_value = "4096")]
    preforks_in_all: usize,

    /// Seconds that an unused prefork outlives its parent.
    #[arg(long, env = "RUMPRING_ORPHAN_TIME", value_name = "SECONDS", default_value = "10",
        value_parser = seconds)]
    orphan_time: Duration,

    /// Seconds for a client that is hung up on, or that sends no more, to take what is owed to it.
    #[arg(long, env = "RUMPRING_LINGER", value_name = "SECONDS", default_value = "5",
        value_parser = seconds)]
    linger: Duration,

    /// Seconds that calls in flight have to end once the server is to stop.
    #[arg(long, env = "RUMPRING_DRAIN", value_name = "SECONDS", default_value = "5",
        value_parser = seconds)]
    drain: Duration,
}

impl LimitOptions {
    /// Returns the limits for the server.
    pub fn limits(&self) -> Limits {
        Limits {
            session: session::Limits {
                args: self.argument_bytes,
                command: self.handshake_bytes,
                unknown: self.request_bytes,
                calls: self.calls.get(),
            },
            handshake: self.handshake_time,
            answer: self.answer_time.unwrap_or_default(),
            calls_in_all: self.calls_in_all.get(),
            queued: self.queued.get(),
            send_queue_pause: self.send_queue_pause,
            send_queue_max: self.send_queue_max,
            send_queue_total: self.send_queue_total,
            copyin_cache: self.copyin_cache,
            copyin_cache_total: self.copyin_cache_total,
            backlog: self.backlog,
            preforks: self.preforks,
            preforks_in_all: self.preforks_in_all,
            orphan: self.orphan_time,
            linger: self.linger,
            drain: self.drain,
            ..Limits::default()
        }
    }

    /// Returns the number of connections that one peer may have.
    pub fn per_peer(&self) -> Option<usize> {
        self.connections_per_peer.map(NonZeroUsize::get)
    }
}

fn argument_bytes(text: &str) -> Result<usize, String> {
    let most = 8 * kernel::MAX_ARGS;
    match memory(text)? {
        bytes if bytes > most => Err(format!("at most {most}: no call has more arguments")),
        bytes if bytes < 64 => Err("at least 64: some calls have that many".into()),
        bytes => Ok(bytes),
    }
}

fn handshake_time(text: &str) -> Result<Duration, String> {
    some_time(text, "no client makes its handshake in no time; give it a second at least")
}

fn answer_time(text: &str) -> Result<AnswerTime, String> {
    if text == "off" {
        return Ok(AnswerTime::Unbounded);
    }
    let time =
        some_time(text, "no client answers in no time; give it a second at least, or `off`")?;
    Ok(AnswerTime::Bounded(time))
}

fn some_time(text: &str, advice: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err(advice.into()),
        time => Ok(time),
    }
}

fn handshake_bytes(text: &str) -> Result<usize, String> {
    at_least(text, 17, "a name of 16 letters and its end are that long")
}

fn send_queue_pause(text: &str) -> Result<usize, String> {
    at_least(text, 1, "a client whose send queue is empty has nothing to take")
}

fn send_queue_max(text: &str) -> Result<usize, String> {
    at_least(text, 2 * ROOM, "one call may copy out that much before it is sent")
}

fn at_least(text: &str, least: usize, why: &str) -> Result<usize, String> {
    match memory(text)? {
        bytes if bytes < least => Err(format!("at least {least}: {why}")),
        bytes => Ok(bytes),
    }
}
