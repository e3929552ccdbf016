//! The threads of a server: when a thread that the server cannot do without ends before its time, the
//! server ends, too, and says why.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use embedded::Embedded;
use rumpring::server::{Config, Error, Running, Server};
use rumpsp::url::Url;
use support::PATIENCE;

fn config() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().expect("a directory for the socket");
    let config = Config::new(Url::Unix(dir.path().join("s")));
    (dir, config)
}

/// Starts a server and has it run `body` for good.
fn ends_with(body: impl FnOnce() + Send + 'static, why: &str) {
    let (dir, config) = config();
    let server = Running::start(config, Arc::new(Embedded::default())).expect("a server");
    let client = client::Client::builder().timeout(PATIENCE).connect(server.url());
    let client = client.expect("a client");
    let control = server.control().clone();
    control.run_for_good("something", body).expect("a thread");
    let end = Instant::now() + PATIENCE;
    while !control.has_ended() {
        assert!(Instant::now() < end, "the server does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    for ended in [control.wait_for_end(), server.wait()] {
        let Err(error @ Error::Ended(_)) = ended else { panic!("no failure: {ended:?}") };
        assert_eq!(error.to_string(), format!("the server has ended: {why}"));
    }
    assert!(client.getpid().is_err(), "its clients are hung up on");
    assert!(!dir.path().join("s").exists(), "the socket file goes with it");
}

#[test]
fn a_server_ends_with_a_thread_that_panics() {
    ends_with(|| panic!("a panic for the test"), "the thread `something` panicked");
}

#[test]
fn a_server_ends_with_a_thread_that_ends() {
    ends_with(|| {}, "the thread `something` ended");
}

#[test]
fn a_server_that_is_stopped_has_not_failed() {
    let (_dir, config) = config();
    let server = Running::start(config, Arc::new(Embedded::default())).expect("a server");
    let control = server.control().clone();
    server.stop().expect("it ends well");
    control.wait_for_end().expect("and says so");
}

#[test]
fn whoever_waits_for_a_server_hears_that_its_own_thread_has_panicked() {
    let (dir, config) = config();
    let (sender, control) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let server = Server::new(&config, Arc::new(Embedded::default())).expect("a server");
        sender.send(server.control()).expect("the test waits for it");
        panic!("a panic for the test");
    });
    let control = control.recv_timeout(PATIENCE).expect("a way to the server");
    let error = control.wait_for_end().expect_err("a failure").to_string();
    assert_eq!(error, "the server has ended: its thread panicked");
    assert!(thread.join().is_err());
    assert!(!dir.path().join("s").exists(), "the socket file goes with it");
}
