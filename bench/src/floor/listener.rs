//! A floor's listening socket, and its file.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rumpring::url::Url;
use rustix::net;

/// Connections the system keeps until they are accepted; it may set a lower bound of its own.
const BACKLOG: i32 = 4096;

pub struct Bound {
    pub fd: OwnedFd,
    /// Where it really is: with the port the system chose, if it was to.
    pub url: Url,
    /// Keeps the socket's file in the file system.
    pub _file: Option<SocketFile>,
}

/// A file that goes when this is dropped.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Listens there. A path must not exist.
pub fn listen(url: &Url) -> io::Result<Bound> {
    let bound = match url {
        Url::Unix(path) => UnixListener::bind(path).map(|listener| Bound {
            fd: listener.into(),
            url: url.clone(),
            _file: Some(SocketFile(path.clone())),
        }),
        Url::Tcp(addr) => tcp(TcpListener::bind(addr)),
        Url::Tcp6(addr) => tcp(TcpListener::bind(addr)),
    };
    let listens = bound.and_then(|bound| {
        net::listen(&bound.fd, BACKLOG)?;
        Ok(bound)
    });
    listens
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {url}: {error}")))
}

fn tcp(listener: io::Result<TcpListener>) -> io::Result<Bound> {
    let listener = listener?;
    // Accepted sockets inherit it.
    net::sockopt::set_tcp_nodelay(&listener, true)?;
    let url = Url::from_socket_addr(listener.local_addr()?);
    Ok(Bound { fd: listener.into(), url, _file: None })
}
