//! Makes connections: not too many at once, and again if a server's queue was full.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rumpsp::url::Url;

use crate::connection::{Hello, PATIENCE};
use crate::socket;

/// The most connections that a thread sets up at a time. NetBSD's own server has a listen queue of 20.
const AT_ONCE: u32 = 16;

/// The pause in which a full listen queue can drain.
const PAUSE: Duration = Duration::from_millis(1);

/// The owner of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A client, for its own connection.
    Client(u32),
    /// One of a client's calls.
    Child { client: u32, slot: u32 },
}

/// The connections still to be made.
pub struct Dialer {
    url: Url,
    waiting: VecDeque<(Whose, Hello)>,
    /// Clients whose connections are being set up.
    under_way: u32,
    /// The time of the next try, and the time since which connecting fails.
    again: Option<(Instant, Instant)>,
}

impl Dialer {
    pub fn new(url: Url) -> Dialer {
        Dialer { url, waiting: VecDeque::new(), under_way: 0, again: None }
    }

    /// Queues a connection. There are never more than calls in flight and clients.
    pub fn push(&mut self, whose: Whose, hello: Hello) {
        self.waiting.push_back((whose, hello));
    }

    /// Queues a connection before all others.
    pub fn push_first(&mut self, whose: Whose, hello: Hello) {
        self.waiting.push_front((whose, hello));
    }

    /// Notes that a client is set up.
    pub fn is_set_up(&mut self) {
        self.under_way -= 1;
    }

    /// Returns `true` if no connection is waiting or being set up.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way == 0
    }

    /// Returns the time of the next try, if a failed one is to be repeated.
    pub fn retry_at(&self) -> Option<Instant> {
        self.again.map(|(when, _)| when)
    }

    /// Returns the next connection that was made, or is about to be: its success shows when the banner
    /// comes. Returns `None` if there is none now.
    pub fn next(&mut self) -> io::Result<Option<(Whose, Hello, OwnedFd)>> {
        let Some(&(whose, hello)) = self.waiting.front() else { return Ok(None) };
        let is_client = matches!(whose, Whose::Client(_));
        if is_client && self.under_way >= AT_ONCE {
            return Ok(None);
        }
        if self.again.is_some_and(|(when, _)| Instant::now() < when) {
            return Ok(None);
        }
        let Some(fd) = socket::begin_to_connect(&self.url)? else {
            return self.pause().map(|()| None);
        };
        self.again = None;
        self.waiting.pop_front();
        self.under_way += u32::from(is_client);
        Ok(Some((whose, hello, fd)))
    }

    fn pause(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let since = self.again.map_or(now, |(_, since)| since);
        if now.duration_since(since) > PATIENCE {
            let what =
                "the server takes no more connections: its listen queue was full for a minute";
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        self.again = Some((now + PAUSE, since));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn clients_come_few_at_once_and_children_do_not_wait_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut dialer = Dialer::new(Url::Unix(path));
        for client in 0..AT_ONCE + 1 {
            dialer.push(Whose::Client(client), Hello::Guest);
        }
        let mut held = Vec::new();
        for client in 0..AT_ONCE {
            let (whose, _, fd) = dialer.next().unwrap().unwrap();
            assert_eq!(whose, Whose::Client(client));
            held.push(fd);
        }
        assert!(dialer.next().unwrap().is_none());
        let child = Whose::Child { client: 0, slot: 0 };
        dialer.push_first(child, Hello::Guest);
        assert_eq!(dialer.next().unwrap().unwrap().0, child);
        assert!(dialer.next().unwrap().is_none());
        dialer.is_set_up();
        assert_eq!(dialer.next().unwrap().unwrap().0, Whose::Client(AT_ONCE));
        assert!(!dialer.is_done());
    }

    #[test]
    fn a_full_listen_queue_is_tried_again() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let mut dialer = Dialer::new(Url::Unix(path));
        for client in 0..2 {
            dialer.push(Whose::Client(client), Hello::Guest);
        }
        let first = dialer.next().unwrap();
        assert!(first.is_some() && dialer.next().unwrap().is_none());
        assert!(dialer.retry_at().is_some(), "it has a queue of one");
        drop(rustix::net::accept(&listener).unwrap());
        let end = Instant::now() + Duration::from_secs(10);
        while dialer.next().unwrap().is_none() {
            assert!(Instant::now() < end, "a free place is not taken");
            std::thread::sleep(PAUSE);
        }
        assert!(dialer.retry_at().is_none());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut dialer = Dialer::new(Url::Unix(dir.path().join("s")));
        dialer.push(Whose::Client(0), Hello::Guest);
        assert_eq!(dialer.next().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
