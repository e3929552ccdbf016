//! Link-local addresses, which are valid only with their interface.

mod support;

use std::fs;
use std::sync::Arc;

use client::Client;
use client::numbers::sys;
use embedded::{Config as KernelConfig, Embedded};
use rumpring::server::{Config, Running};
use rumpsp::url::Url;
use support::*;

/// Returns addresses with their interfaces: a link-local one, if this machine has one, and loopback's.
fn addresses() -> Vec<(String, String)> {
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let link_local = rows.filter(|row| row[0].starts_with("fe80") && row[3] == "20");
    let address = |row: Vec<&str>| {
        let words: Vec<_> = (0..8).map(|word| &row[0][4 * word..4 * word + 4]).collect();
        (words.join(":"), row[5].to_owned())
    };
    let found: Vec<_> = link_local.map(address).take(1).collect();
    if found.is_empty() {
        println!("SKIPPED in part: this machine has no link-local address");
    }
    found.into_iter().chain([("::1".to_owned(), "lo".to_owned())]).collect()
}

#[test]
fn a_server_is_reached_by_an_address_with_its_interface() {
    for (address, interface) in addresses() {
        let url: Url = format!("tcp6://[{address}%{interface}]:0").parse().expect("a URL");
        let mut config = Config::new(url);
        config.access.networks = vec!["fe80::/10".parse().unwrap(), "::1/128".parse().unwrap()];
        let kernel = Arc::new(Embedded::new(KernelConfig::default()));
        let server = Running::start(config, kernel).expect("a server");
        // The URL it prints is valid for readers and for clients.
        let told: Url = server.url().to_string().parse().expect("a URL");
        assert_eq!(&told, server.url());
        let port = told.socket_addr().unwrap().port();
        let by_name: Url = format!("tcp6://[{address}%{interface}]:{port}").parse().unwrap();
        for url in [&told, &by_name] {
            let client = Client::builder().timeout(PATIENCE).connect(url).expect("a client");
            client.call(sys::GETPID, &[]).expect("an answer");
        }
        server.stop().expect("an end");
    }
}
