//! Messages to the service manager, for example systemd, when the server is ready and when it ends.
//!
//! The socket is connected at the start, before the server becomes another user or enters its sandbox.
//! After either, the server may be unable to connect it.
//!
//! Source: sd_notify(3), unix(7).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

/// The connection to the service manager, if it wants to be told.
#[derive(Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    is_stopping: AtomicBool,
}

impl Notifier {
    /// Connects to `NOTIFY_SOCKET`, if that is set. If the connection fails, the server starts all the
    /// same.
    pub fn from_env() -> Notifier {
        std::env::var_os("NOTIFY_SOCKET").map_or_else(Notifier::default, |name| Notifier::to(&name))
    }

    fn to(name: &OsString) -> Notifier {
        let socket = connect(name).map_err(|error| {
            let name = name.display();
            tracing::warn!("cannot tell NOTIFY_SOCKET ({name}) when the server is ready: {error}");
        });
        Notifier { socket: socket.ok(), is_stopping: AtomicBool::new(false) }
    }

    /// Tells that connections are accepted.
    pub fn ready(&self) {
        self.tell("READY=1\n");
    }

    /// Tells, once, that the server ends.
    pub fn stopping(&self) {
        if !self.is_stopping.swap(true, Ordering::SeqCst) {
            self.tell("STOPPING=1\n");
        }
    }

    fn tell(&self, what: &'static str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            tracing::warn!("cannot tell NOTIFY_SOCKET {}: {error}", what.trim_end());
        }
    }
}

/// Returns a socket that is connected to a path, or to an abstract name behind an `@`. The socket never
/// waits.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let problem = "it is neither a path that begins with / nor a name behind an @";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_names_are_told_and_the_end_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let hidden = format!("rumpring notify test {}", std::process::id());
        let address = SocketAddr::from_abstract_name(&hidden).unwrap();
        for (name, socket) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{hidden}").into(), UnixDatagram::bind_addr(&address).unwrap()),
        ] {
            let notifier = Notifier::to(&name);
            notifier.ready();
            notifier.stopping();
            notifier.stopping();
            drop(notifier);
            socket.set_nonblocking(true).unwrap();
            let mut buf = [0; 64];
            let mut heard = || socket.recv(&mut buf).map(|len| buf[..len].to_vec()).ok();
            assert_eq!(heard().as_deref(), Some(&b"READY=1\n"[..]));
            assert_eq!(heard().as_deref(), Some(&b"STOPPING=1\n"[..]));
            assert_eq!(heard(), None);
        }
    }

    #[test]
    fn nobody_there_is_no_reason_not_to_start() {
        for name in ["", "@nobody listens to this name", "relative", "/no/such/socket", "vsock:2:1"]
        {
            let notifier = Notifier::to(&name.into());
            notifier.ready();
            assert!(notifier.socket.is_none(), "{name}");
        }
    }

    #[test]
    fn who_does_not_listen_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(&path.into());
        for _ in 0..10_000 {
            notifier.ready();
        }
    }
}
