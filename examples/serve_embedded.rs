//! Serves the embedded kernel from a program of one's own, has a client use it, and stops.
//!
//!     cargo run --example serve_embedded

use std::error::Error;
use std::sync::Arc;

use client::Client;
use embedded::Embedded;
use rumpring::server::{Config, Running};
use rumpsp::url::Url;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let url = Url::Unix(dir.path().join("rump.sock"));
    let kernel = Embedded::new(embedded::Config::default());
    let server = Running::start(Config::new(url), Arc::new(kernel))?;

    // Any number of clients, in this process or others.
    let client = Client::builder().name("example").connect(server.url())?;
    let [reader, writer] = client.pipe()?;
    client.write(writer, b"through a pipe of the kernel")?;
    let bytes = client.read(reader, 100)?;
    assert_eq!(bytes, b"through a pipe of the kernel");
    drop(client);

    server.stop()?;
    Ok(())
}
