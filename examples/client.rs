//! A client: calls, typed and by number, and memory for what they point to.
//!
//!     rumpring serve unix:///tmp/rump.sock
//!     RUMP_SERVER=unix:///tmp/rump.sock cargo run --example client
//!
//! Without RUMP_SERVER it starts a server of its own.

use std::error::Error;
use std::sync::Arc;

use client::numbers::{O_CREAT, O_RDWR, sys};
use client::{CallError, Client};
use embedded::Embedded;
use rumpring::server::{Config, Running};
use rumpsp::url::Url;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut own = None;
    let url = match std::env::var("RUMP_SERVER") {
        Ok(url) => url.parse()?,
        Err(_) => {
            let url = Url::Unix(dir.path().join("rump.sock"));
            let kernel = Arc::new(Embedded::new(embedded::Config::default()));
            own = Some(Running::start(Config::new(url.clone()), kernel)?);
            url
        }
    };
    let client = Client::builder().name("example").connect(&url)?;

    // Typed calls, with NetBSD's errno.
    let file = client.open("/greeting", O_CREAT | O_RDWR, 0o600)?;
    client.write(file, b"hello")?;
    assert!(matches!(client.read(99, 1), Err(CallError::Errno(errno)) if errno.0 == 9));

    // Any call by its number: its arguments are NetBSD's slots, and point into the client's memory.
    let buffer = client.space().buffer(5)?;
    let [read, _] = client.call(sys::PREAD, &[file as u64, buffer.addr(), 5, 0, 0])?;
    assert_eq!((read, buffer.bytes(5)), (5, b"hello".to_vec()));

    // A child, as fork(2) makes it: with a copy of the descriptors.
    let child = Client::fork(&client.prefork()?)?;
    assert_ne!(child.getpid()?, client.getpid()?);
    drop((child, buffer));
    drop(client);
    if let Some(server) = own {
        server.stop()?;
    }
    Ok(())
}
