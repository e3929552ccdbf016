//! An echo server: `cargo run --example echo -- 127.0.0.1:7007`, then `nc 127.0.0.1 7007`.

use std::collections::HashMap;
use std::net::TcpListener;

use rumpring_ring::{Arena, Chunk, Config, Event, Ring, Socket, Then};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7007".into());
    let mut ring = Ring::new(&Config::default())?;
    let arena = ring.arena();
    ring.listen(TcpListener::bind(&address)?.into())?;
    println!("listening on {address}");
    let mut clients: HashMap<Socket, Client> = HashMap::new();
    loop {
        // One system call submits the requests that the events before led to, and waits for the next
        // events.
        ring.wait(None, || true)?;
        while let Some(event) = ring.next_event() {
            handle(&mut ring, &arena, &mut clients, event);
        }
    }
}

/// The bytes a client has sent and has not been sent back. One send of a socket is in flight at a time:
/// bytes that arrive meanwhile are kept here, and nothing more is received until they are sent.
#[derive(Default)]
struct Client {
    owed: Vec<Chunk>,
    sending: bool,
}

fn handle(ring: &mut Ring, arena: &Arena, clients: &mut HashMap<Socket, Client>, event: Event) {
    match event {
        Event::Accepted { socket, .. } => {
            clients.insert(socket, Client::default());
            ring.resume(socket);
        }
        Event::Received { socket, data } => {
            let Some(client) = clients.get_mut(&socket) else { return };
            let mut chunk = arena.chunk(data.len());
            chunk.put(&data);
            client.owed.push(chunk);
            client.pay(ring, socket);
        }
        Event::Sent { socket, result: Ok(_) } => {
            let Some(client) = clients.get_mut(&socket) else { return };
            client.sending = false;
            client.pay(ring, socket);
        }
        Event::Sent { socket, .. } | Event::RecvEnded { socket, .. } | Event::HungUp { socket } => {
            ring.close(socket)
        }
        Event::Closed { socket } => drop(clients.remove(&socket)),
        Event::AcceptFailed { error, .. } => eprintln!("accept: {error}"),
    }
}

impl Client {
    fn pay(&mut self, ring: &mut Ring, socket: Socket) {
        if self.sending {
            ring.pause(socket);
        } else if self.owed.is_empty() {
            ring.resume(socket);
        } else {
            self.sending = ring.send(socket, self.owed.drain(..), Then::Nothing).is_ok();
        }
    }
}
