//! Tests of the client against scripted servers.

mod broken;
mod calls;
mod fake;
mod family;
mod full;
mod many;
mod raw;
mod typed;

use super::Client;
use fake::{Fake, LONG};

fn connect(server: &Fake) -> Client {
    Client::builder().timeout(LONG).connect(&server.url).unwrap()
}
