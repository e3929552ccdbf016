//! TCP connections of a running server are kept alive, as the system shows them.

mod support;

use std::fs;
use std::time::Duration;

use support::*;

/// Returns the keepalive timers of the server's ends of its connections: the time until a probe, if a
/// timer runs. See proc_net_tcp of the kernel's documentation.
fn keepalive_timers(test_server: &TestServer, table: &str) -> Vec<Option<Duration>> {
    let port = test_server.url.socket_addr().expect("a tcp URL").port();
    let (local, established) = (format!(":{port:04X}"), "01");
    let text = fs::read_to_string(format!("/proc/net/{table}")).expect("the table of sockets");
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[1].ends_with(&local) && row[3] == established);
    let timer = |row: Vec<&str>| {
        let (kind, when) = row[5].split_once(':').expect("a timer and its time");
        let ticks = u64::from_str_radix(when, 16).expect("a number");
        (kind == "02").then(|| Duration::from_millis(ticks * 10))
    };
    ours.map(timer).collect()
}

#[test]
fn a_silent_host_will_be_asked() {
    for (transport, table) in [(Transport::Tcp, "tcp"), (Transport::Tcp6, "tcp6")] {
        for silence in [Some(Duration::from_secs(600)), None] {
            let test_server =
                TestServer::with(transport, |config| config.socket.keepalive = silence);
            let mut client = FrameClient::guest(&test_server);
            client.getpid();
            // Before that there may be another timer.
            eventually("only the one timer", || {
                let timers = keepalive_timers(&test_server, table);
                match (&timers[..], silence) {
                    ([None], None) => true,
                    // The time counts from the last bytes received.
                    ([Some(time)], Some(most)) => *time > most / 2 && *time <= most,
                    _ => false,
                }
            });
        }
    }
}
