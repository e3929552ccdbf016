//! The listening socket: from a URL to a descriptor, and away again.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::url::Url;

/// Connections the system keeps until they are accepted; it may set a lower bound of its own.
const BACKLOG: i32 = 4096;

/// How long the system may take to let go of the sockets of a process that was killed. Those of an
/// io_uring are closed behind its back: until then they look alive, and a port is in use.
const LETTING_GO: Duration = Duration::from_secs(1);

/// How long to wait between two looks at them.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another server is there.
    #[error("{0}: a server is already listening there; stop it or take another path")]
    Live(Url),
    /// The path is something else than a socket.
    #[error("{0}: there is a file at that path that is no socket; remove it or take another path")]
    NotASocket(Url),
    /// It has not been said who may connect.
    #[error(
        "{0}: whoever reaches that address could connect, and be root in the kernel; say who may with \
         --allow-from NETWORK (0.0.0.0/0 or ::/0 for everybody), or listen on 127.0.0.1"
    )]
    Open(Url),
    /// The system refused.
    #[error("cannot listen on {url}: {what}: {source}")]
    System { url: Url, what: &'static str, source: io::Error },
}

/// Whom the socket file of a unix URL lets in. What is `None` is as the system makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketMode {
    /// Permissions: who may write may connect.
    pub mode: Option<u32>,
    pub user: Option<u32>,
    pub group: Option<u32>,
}

/// A bound and listening socket, before the ring has it.
pub struct Bound {
    pub fd: OwnedFd,
    /// Where it really is: with the port the system chose, if it was to.
    pub url: Url,
    /// The socket file.
    pub file: Option<SocketFile>,
}

/// A file that was made by binding, and goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// So that the file of a later server is left alone.
    identity: Identity,
}

/// Device, inode and time of creation: inode numbers are used again at once.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> rustix::io::Result<Identity> {
    let stat = rustix::fs::lstat(path)?;
    Ok((stat.st_dev, stat.st_ino, stat.st_mtime, stat.st_mtime_nsec as i64))
}

/// Listens there. A socket file that a dead server left behind is replaced; a live server's, or a file
/// that is no socket, is an error.
pub fn listen(url: &Url, mode: SocketMode) -> Result<Bound, ListenError> {
    match url {
        Url::Unix(path) => listen_unix(url, path, mode),
        Url::Tcp(addr) => listen_tcp(url, (*addr).into()),
        Url::Tcp6(addr) => listen_tcp(url, (*addr).into()),
    }
}

fn failed(url: &Url, what: &'static str) -> impl FnOnce(rustix::io::Errno) -> ListenError {
    let url = url.clone();
    move |errno| ListenError::System { url, what, source: errno.into() }
}

fn socket(url: &Url, family: AddressFamily) -> Result<OwnedFd, ListenError> {
    net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed(url, "socket"))
}

fn listen_unix(url: &Url, path: &Path, mode: SocketMode) -> Result<Bound, ListenError> {
    let addr = SocketAddrUnix::new(path).map_err(failed(url, "path"))?;
    remove_stale(url, path, &addr)?;
    let fd = socket(url, AddressFamily::UNIX)?;
    net::bind(&fd, &addr).map_err(failed(url, "bind"))?;
    let file = SocketFile::new(path).map_err(failed(url, "stat"))?;
    // Nobody can connect before it listens, so nobody comes by the wrong permissions.
    mode.set(path).map_err(failed(url, "owner and mode of the socket file"))?;
    net::listen(&fd, BACKLOG).map_err(failed(url, "listen"))?;
    Ok(Bound { fd, url: url.clone(), file: Some(file) })
}

impl SocketMode {
    fn set(self, path: &Path) -> rustix::io::Result<()> {
        use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmod, chownat};
        if self.user.is_some() || self.group.is_some() {
            let (user, group) = (self.user.map(Uid::from_raw), self.group.map(Gid::from_raw));
            chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.mode.map_or(Ok(()), |mode| chmod(path, Mode::from_raw_mode(mode)))
    }
}

/// Removes a socket file nobody listens at.
fn remove_stale(url: &Url, path: &Path, addr: &SocketAddrUnix) -> Result<(), ListenError> {
    use rustix::fs::{FileType, lstat, unlink};
    let Ok(stat) = lstat(path) else {
        return Ok(());
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(ListenError::NotASocket(url.clone()));
    }
    let end = Instant::now() + LETTING_GO;
    loop {
        let probe = socket(url, AddressFamily::UNIX)?;
        match net::connect(&probe, addr) {
            Err(Errno::CONNREFUSED) => {
                tracing::info!("removing the socket file that a dead server left at {url}");
                return unlink(path).map_err(failed(url, "removing the old socket file"));
            }
            Ok(()) if Instant::now() >= end || is_greeted(&probe, end) => {
                return Err(ListenError::Live(url.clone()));
            }
            Ok(()) => std::thread::sleep(PAUSE),
            Err(errno) => return Err(failed(url, "asking whether a server is there")(errno)),
        }
    }
}

/// Whether there is, until then, a banner or at least no end of the connection.
fn is_greeted(probe: &OwnedFd, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
    let timeout = sockopt::set_socket_timeout(probe, sockopt::Timeout::Recv, Some(left));
    let came = timeout.and_then(|()| net::recv(probe, &mut [0; 1], RecvFlags::empty()));
    !matches!(came, Ok((_, 0)) | Err(Errno::CONNRESET))
}

fn listen_tcp(url: &Url, addr: SocketAddr) -> Result<Bound, ListenError> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(url, family)?;
    sockopt::set_socket_reuseaddr(&fd, true).map_err(failed(url, "SO_REUSEADDR"))?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true).map_err(failed(url, "IPV6_V6ONLY"))?;
    }
    // Accepted sockets inherit it.
    sockopt::set_tcp_nodelay(&fd, true).map_err(failed(url, "TCP_NODELAY"))?;
    bind_tcp(&fd, &addr).map_err(failed(url, "bind"))?;
    net::listen(&fd, BACKLOG).map_err(failed(url, "listen"))?;
    let bound = net::getsockname(&fd).map_err(failed(url, "getsockname"))?;
    let bound = SocketAddr::try_from(bound).map_err(failed(url, "getsockname"))?;
    Ok(Bound { fd, url: Url::from_socket_addr(bound), file: None })
}

/// Binds, and gives a server that was killed time to let go of the port.
fn bind_tcp(fd: &OwnedFd, addr: &SocketAddr) -> rustix::io::Result<()> {
    let end = Instant::now() + LETTING_GO;
    loop {
        match net::bind(fd, addr) {
            Err(Errno::ADDRINUSE) if Instant::now() < end => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

impl SocketFile {
    fn new(path: &Path) -> rustix::io::Result<SocketFile> {
        Ok(SocketFile { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = identity(&self.path) == Ok(self.identity);
        if is_ours && let Err(error) = rustix::fs::unlink(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_in(dir: &tempfile::TempDir) -> Url {
        Url::Unix(dir.path().join("s"))
    }

    #[test]
    fn the_file_of_a_dead_server_is_replaced_and_that_of_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let url = url_in(&dir);
        let live = listen(&url, SocketMode::default()).unwrap();
        assert!(
            matches!(listen(&url, SocketMode::default()), Err(ListenError::Live(_))),
            "a live server is left alone"
        );
        let Bound { fd, file, .. } = live;
        drop(fd);
        let again = listen(&url, SocketMode::default()).expect("a stale file is replaced");
        drop(file);
        assert!(
            matches!(listen(&url, SocketMode::default()), Err(ListenError::Live(_))),
            "the first took only its own file"
        );
        drop(again);
        assert!(!dir.path().join("s").exists(), "its own file goes with it");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s"), "precious").unwrap();
        assert!(matches!(
            listen(&url_in(&dir), SocketMode::default()),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(std::fs::read(dir.path().join("s")).unwrap(), b"precious");
    }

    #[test]
    fn port_0_is_told_as_what_it_became() {
        for url in ["tcp://127.0.0.1:0", "tcp6://[::1]:0"] {
            let bound = listen(&url.parse().unwrap(), SocketMode::default()).unwrap();
            assert_ne!(bound.url.socket_addr().unwrap().port(), 0);
        }
    }

    #[test]
    fn an_address_that_is_taken_is_an_error_that_names_it() {
        let bound = listen(&"tcp://127.0.0.1:0".parse().unwrap(), SocketMode::default()).unwrap();
        let error = listen(&bound.url, SocketMode::default()).map(drop).unwrap_err().to_string();
        assert!(error.contains(&bound.url.to_string()), "{error}");
    }
}
