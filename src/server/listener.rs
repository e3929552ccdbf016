//! The listening socket: made from a URL, and removed again.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use rumpsp::url::Url;

/// Connections the system keeps until they are accepted; it may set a lower bound of its own.
const BACKLOG: i32 = 4096;

/// The time that the system may take to close the sockets of a process that was killed. It closes those
/// of an io_uring later, in the background: until then such a socket looks alive, and its port is in use.
const LETTING_GO: Duration = Duration::from_secs(1);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// The time that another process may keep the directory locked. A server keeps it for less than a
/// millisecond.
const LOCKED: Duration = Duration::from_secs(10);

/// The time that a server which ends waits for the lock. After it, the socket file stays, and the next
/// server replaces it.
const LOCKED_AT_END: Duration = Duration::from_secs(1);

/// The reason why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another server listens there.
    #[error("{0}: a server is already listening there; stop it or take another path")]
    Live(Url),
    /// The path is a file that is no socket.
    #[error("{0}: there is a file at that path that is no socket; remove it or take another path")]
    NotASocket(Url),
    /// Nothing says who may connect.
    #[error(
        "{0}: whoever reaches that address could connect, and be root in the kernel; say who may with \
         --allow-from NETWORK (0.0.0.0/0 or ::/0 for everybody), or listen on 127.0.0.1"
    )]
    Open(Url),
    /// The system refused an operation.
    #[error("cannot listen on {url}: {what}: {source}")]
    System { url: Url, what: &'static str, source: io::Error },
}

/// The settings of the listening socket: whom the socket file of a unix URL lets in, and how TCP finds
/// out that a host has died. A setting that is `None` stays as the system makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode {
    /// The permissions of the socket file: whoever may write to it may connect.
    pub mode: Option<u32>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    /// The time that a TCP connection may be silent before the system asks its host whether it is still
    /// there.
    pub keepalive: Option<Duration>,
}

impl Default for SocketMode {
    fn default() -> SocketMode {
        SocketMode { mode: None, user: None, group: None, keepalive: Some(KEEPALIVE) }
    }
}

/// The silence after which a host is asked, by default.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The number of times that a host is asked before the connection is given up. These take as long as the
/// silence before them.
const PROBES: u32 = 4;

/// A bound and listening socket, before the ring has it.
pub struct Bound {
    /// The socket file, at a unix URL.
    pub file: Option<SocketFile>,
    pub fd: OwnedFd,
    /// The URL where the socket listens. If the system chose the port, this has that port.
    pub url: Url,
}

/// A socket file. Dropping this removes the file; that has to be before the socket is closed, because
/// until then no other file can have the same identity.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    directory: Directory,
    /// The identity of the file, so that the file of a later server is left alone.
    identity: Identity,
}

/// The device and the inode of a file.
type Identity = (u64, u64);

/// Listens at a URL. Replaces a socket file that a dead server left behind.
///
/// # Errors
///
/// Fails if a live server listens there, if the path is a file that is no socket, or if the system
/// refuses.
pub fn listen(url: &Url, mode: SocketMode) -> Result<Bound, ListenError> {
    match url {
        Url::Unix(path) => listen_unix(url, path, mode),
        Url::Tcp(addr) => listen_tcp(url, (*addr).into(), mode),
        Url::Tcp6(addr) => listen_tcp(url, (*addr).into(), mode),
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
    let directory = Directory::of(url, path)?;
    let end = Instant::now() + LETTING_GO;
    let mut seen_dead = None;
    loop {
        directory.lock(LOCKED).map_err(failed(url, "locking its directory"))?;
        match look(url, &directory, &addr)? {
            Found::Nothing => return bind_unix(url, path, &addr, mode, directory),
            // A socket that is bound and about to listen looks dead too, if its server takes no lock.
            Found::Dead(file) if seen_dead != Some(file) && Instant::now() < end => {
                seen_dead = Some(file);
                directory.unlock();
            }
            Found::Dead(_) => {
                tracing::info!("removing the socket file that a dead server left at {url}");
                directory.remove().map_err(failed(url, "removing the old socket file"))?;
                return bind_unix(url, path, &addr, mode, directory);
            }
            Found::Alive(probe) => {
                directory.unlock();
                if Instant::now() >= end || probe.is_none_or(|probe| is_greeted(&probe, end)) {
                    return Err(ListenError::Live(url.clone()));
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Makes the socket file, with the directory locked. Unlocks it once other servers can see that this one
/// is alive.
fn bind_unix(
    url: &Url,
    path: &Path,
    addr: &SocketAddrUnix,
    mode: SocketMode,
    directory: Directory,
) -> Result<Bound, ListenError> {
    let fd = socket(url, AddressFamily::UNIX)?;
    net::bind(&fd, addr).map_err(failed(url, "bind"))?;
    let identity = directory.identity().map_err(failed(url, "stat"))?;
    let file = SocketFile { path: path.into(), directory, identity };
    // Nobody can connect before the socket listens, so nobody gets in by the wrong permissions.
    mode.set(path).map_err(failed(url, "owner and mode of the socket file"))?;
    net::listen(&fd, BACKLOG).map_err(failed(url, "listen"))?;
    file.directory.unlock();
    Ok(Bound { file: Some(file), fd, url: url.clone() })
}

/// The directory of a socket file. A server locks it (flock(2)) while it makes, replaces or removes its
/// socket file. So a file that is seen under the lock has a server that listens or one that is dead, and
/// this stays true until the lock is released. The lock needs no file of its own, and ends with the
/// process that has it.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    /// The socket file's name in the directory.
    name: OsString,
}

impl Directory {
    fn of(url: &Url, path: &Path) -> Result<Directory, ListenError> {
        let Some(name) = path.file_name() else {
            return Err(ListenError::NotASocket(url.clone()));
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(parent, flags, Mode::empty())
            .map_err(failed(url, "opening its directory, to lock it"))?;
        Ok(Directory { fd, name: name.into() })
    }

    /// Locks the directory. Fails if another process keeps it locked for longer than `most`.
    fn lock(&self, most: Duration) -> rustix::io::Result<()> {
        let end = Instant::now() + most;
        loop {
            match fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN) if Instant::now() < end => std::thread::sleep(PAUSE),
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn unlock(&self) {
        // A lock that is held can always be released.
        let _ = fs::flock(&self.fd, FlockOperation::Unlock);
    }

    fn stat(&self) -> rustix::io::Result<Stat> {
        fs::statat(&self.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn identity(&self) -> rustix::io::Result<Identity> {
        self.stat().map(|stat| (stat.st_dev, stat.st_ino))
    }

    fn remove(&self) -> rustix::io::Result<()> {
        fs::unlinkat(&self.fd, &self.name, AtFlags::empty())
    }
}

impl SocketMode {
    fn set(self, path: &Path) -> rustix::io::Result<()> {
        use rustix::fs::{CWD, Gid, Uid, chmod, chownat};
        if self.user.is_some() || self.group.is_some() {
            let (user, group) = (self.user.map(Uid::from_raw), self.group.map(Gid::from_raw));
            chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.mode.map_or(Ok(()), |mode| chmod(path, Mode::from_raw_mode(mode)))
    }
}

/// The state of the path where a socket file is to be.
enum Found {
    Nothing,
    /// A socket file at which nobody listens.
    Dead(Identity),
    /// A live server, and a connection to it; `None` if its queue of connections is full.
    Alive(Option<OwnedFd>),
}

fn look(url: &Url, directory: &Directory, addr: &SocketAddrUnix) -> Result<Found, ListenError> {
    let stat = match directory.stat() {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        stat => stat.map_err(failed(url, "stat"))?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(ListenError::NotASocket(url.clone()));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed(url, "socket"))?;
    match net::connect(&probe, addr) {
        Ok(()) => Ok(Found::Alive(Some(probe))),
        Err(Errno::AGAIN) => Ok(Found::Alive(None)),
        Err(Errno::CONNREFUSED) => Ok(Found::Dead((stat.st_dev, stat.st_ino))),
        // Somebody who takes no lock has just removed the file.
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(errno) => Err(failed(url, "asking whether a server is there")(errno)),
    }
}

/// Returns `true` if the peer sends a banner before `end`, or at least does not end the connection.
fn is_greeted(probe: &OwnedFd, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    let _ = poll(&mut [PollFd::new(probe, PollFlags::IN)], Some(&left));
    !matches!(
        net::recv(probe, &mut [0; 1], RecvFlags::DONTWAIT),
        Ok((_, 0)) | Err(Errno::CONNRESET)
    )
}

fn listen_tcp(url: &Url, addr: SocketAddr, mode: SocketMode) -> Result<Bound, ListenError> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(url, family)?;
    sockopt::set_socket_reuseaddr(&fd, true).map_err(failed(url, "SO_REUSEADDR"))?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true).map_err(failed(url, "IPV6_V6ONLY"))?;
    }
    // Accepted sockets inherit these.
    sockopt::set_tcp_nodelay(&fd, true).map_err(failed(url, "TCP_NODELAY"))?;
    if let Some(silence) = mode.keepalive {
        keep_alive(&fd, silence).map_err(failed(url, "TCP keepalive"))?;
    }
    bind_tcp(&fd, &addr).map_err(failed(url, "bind"))?;
    net::listen(&fd, BACKLOG).map_err(failed(url, "listen"))?;
    let bound = net::getsockname(&fd).map_err(failed(url, "getsockname"))?;
    let bound = SocketAddr::try_from(bound).map_err(failed(url, "getsockname"))?;
    Ok(Bound { fd, url: Url::from_socket_addr(bound), file: None })
}

/// Has the system ask a silent peer's host whether it is still there, and end the connection if the host
/// does not answer for as long again. Without the user timeout, the system would send data to a dead host
/// for a quarter of an hour and meanwhile not ask. See tcp(7).
fn keep_alive(fd: &OwnedFd, silence: Duration) -> rustix::io::Result<()> {
    let patience = u32::try_from(2 * silence.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, silence)?;
    sockopt::set_tcp_keepintvl(fd, (silence / PROBES).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(fd, PROBES)?;
    sockopt::set_tcp_user_timeout(fd, patience)
}

/// Binds the socket. Tries again for a while if the port is in use: a server that was killed needs time
/// to release it.
fn bind_tcp(fd: &OwnedFd, addr: &SocketAddr) -> rustix::io::Result<()> {
    let end = Instant::now() + LETTING_GO;
    loop {
        match net::bind(fd, addr) {
            Err(Errno::ADDRINUSE) if Instant::now() < end => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.directory.lock(LOCKED_AT_END) {
            return tracing::warn!(
                "cannot remove {}: its directory is locked: {error}",
                self.path.display()
            );
        }
        let is_ours = self.directory.identity() == Ok(self.identity);
        if is_ours && let Err(error) = self.directory.remove() {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
        self.directory.unlock();
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
        // As if the server were killed.
        std::mem::forget(file);
        drop(fd);
        let again = listen(&url, SocketMode::default()).expect("a stale file is replaced");
        drop(again);
        assert!(!dir.path().join("s").exists(), "its own file goes with it");
    }

    #[test]
    fn a_server_takes_only_its_own_file_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let url = url_in(&dir);
        let first = listen(&url, SocketMode::default()).unwrap();
        std::fs::remove_file(dir.path().join("s")).unwrap();
        let second = listen(&url, SocketMode::default()).unwrap();
        drop(first);
        assert!(dir.path().join("s").exists(), "the second's is left alone");
        drop(second);
        assert!(!dir.path().join("s").exists(), "the second takes it");
    }

    #[test]
    fn of_many_at_once_one_listens_also_where_a_dead_one_was() {
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let url = url_in(&dir);
            if round % 2 == 0 {
                let Bound { file, .. } = listen(&url, SocketMode::default()).unwrap();
                std::mem::forget(file);
            }
            let all: Vec<_> = std::thread::scope(|scope| {
                let start = || scope.spawn(|| listen(&url, SocketMode::default()));
                let all: Vec<_> = (0..8).map(|_| start()).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let listening = all.iter().filter(|one| one.is_ok()).count();
            assert_eq!(listening, 1, "of 8 in round {round}");
            for error in all.iter().filter_map(|one| one.as_ref().err()) {
                assert!(matches!(error, ListenError::Live(_)), "{error}");
            }
            assert!(dir.path().join("s").exists());
        }
    }

    #[test]
    fn who_meddles_with_the_file_has_its_directory_locked() {
        let dir = tempfile::tempdir().unwrap();
        let url = url_in(&dir);
        let path = dir.path().join("s");
        let other = Directory::of(&url, &path).unwrap();
        other.lock(LOCKED).unwrap();
        let waiting = std::thread::spawn({
            let url = url.clone();
            move || listen(&url, SocketMode::default())
        });
        // The thread has time to make a mistake in.
        std::thread::sleep(PAUSE * 10);
        assert!(!path.exists() && !waiting.is_finished(), "it waits for the lock");
        other.unlock();
        let bound = waiting.join().unwrap().expect("nobody has it locked any more");
        other.lock(Duration::ZERO).expect("who listens has let go of it");
        let ending = std::thread::spawn(move || drop(bound));
        ending.join().unwrap();
        assert!(path.exists(), "who cannot lock it leaves the file to the next server");
        other.unlock();
        listen(&url, SocketMode::default()).expect("which replaces it");
    }

    #[test]
    fn a_server_with_as_many_waiting_as_may_is_alive() {
        let dir = tempfile::tempdir().unwrap();
        let url = url_in(&dir);
        let addr = SocketAddrUnix::new(dir.path().join("s")).unwrap();
        let fd = socket(&url, AddressFamily::UNIX).unwrap();
        net::bind(&fd, &addr).unwrap();
        net::listen(&fd, 0).unwrap();
        let probe = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
        };
        let waiting: Vec<_> = (0..4).map(|_| probe()).collect();
        let connected = waiting.iter().map(|one| net::connect(one, &addr));
        assert!(
            connected.collect::<Vec<_>>().contains(&Err(Errno::AGAIN)),
            "there is no more room"
        );
        assert!(matches!(listen(&url, SocketMode::default()), Err(ListenError::Live(_))));
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

    /// Returns nodelay, keepalive and its idle time, interval and count, and the user timeout.
    fn tcp_options(fd: &OwnedFd) -> (bool, bool, [u64; 2], u32, u32) {
        let seconds = |time: rustix::io::Result<Duration>| time.unwrap().as_secs();
        (
            sockopt::tcp_nodelay(fd).unwrap(),
            sockopt::socket_keepalive(fd).unwrap(),
            [seconds(sockopt::tcp_keepidle(fd)), seconds(sockopt::tcp_keepintvl(fd))],
            sockopt::tcp_keepcnt(fd).unwrap(),
            sockopt::tcp_user_timeout(fd).unwrap(),
        )
    }

    #[test]
    fn accepted_connections_find_out_that_a_host_has_died() {
        for url in ["tcp://127.0.0.1:0", "tcp6://[::1]:0"] {
            for (silence, keepalive) in [
                (Some(Duration::from_secs(80)), Some(([80, 20], PROBES, 160_000))),
                (Some(Duration::from_secs(1)), Some(([1, 1], PROBES, 2000))),
                (Some(Duration::from_secs(32_767)), Some(([32_767, 8192], PROBES, 65_534_000))),
                (None, None),
            ] {
                let mode = SocketMode { keepalive: silence, ..SocketMode::default() };
                let bound = listen(&url.parse().unwrap(), mode).unwrap();
                let to = bound.url.socket_addr().unwrap();
                let _client = std::net::TcpStream::connect(to).unwrap();
                let (nodelay, is_on, times, count, timeout) =
                    tcp_options(&net::accept(&bound.fd).unwrap());
                assert!(nodelay);
                assert_eq!(is_on, silence.is_some());
                match keepalive {
                    Some(expected) => assert_eq!((times, count, timeout), expected),
                    None => assert_eq!(timeout, 0),
                }
            }
        }
    }
}
