//! The URLs of servers, as in `$RUMP_SERVER`, for the listener and for clients.
//!
//! Source: NetBSD `lib/librumpuser/sp_common.c`, `parseurl`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::{self, AddressFamily, SocketType};

/// Longest path a Unix socket can have (`sun_path`, less its NUL).
pub const MAX_PATH: usize = 107;

/// The address of a server.
///
/// ```
/// use rumpring_rumpsp::url::Url;
///
/// let url: Url = "tcp://*:7000".parse()?;
/// assert!(url.is_wildcard()); // a server may listen there, a client cannot go there
/// assert_eq!("unix:///run/rump.sock".parse::<Url>()?.to_string(), "unix:///run/rump.sock");
/// # Ok::<(), rumpring_rumpsp::url::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Url {
    /// `unix://PATH`; a path that does not start with `/` begins in the working directory.
    Unix(PathBuf),
    /// `tcp://A.B.C.D:PORT`; `*` or `0` is every interface, for servers.
    Tcp(SocketAddrV4),
    /// `tcp6://[ADDR]:PORT`; `*` is every interface, for servers. An address may be followed by a `%`
    /// and its interface, by name or number: a link-local address means nothing without. The interface
    /// is kept, and shown, as a number.
    Tcp6(SocketAddrV6),
}

/// An error in a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}`: {problem}")]
pub struct UrlError {
    /// The text that was given.
    pub url: String,
    /// The error itself.
    pub problem: UrlProblem,
}

/// The part of a URL that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// No `://`, or not one of the three schemes.
    #[error("no known scheme; write unix://PATH, tcp://A.B.C.D:PORT or tcp6://[ADDR]:PORT")]
    Scheme,
    /// `unix://` with nothing behind it.
    #[error("no path; write unix:// and the path of the server's socket")]
    NoPath,
    /// A NUL in the path.
    #[error("a NUL byte in the path; leave it out")]
    Nul,
    /// The path does not fit into a socket address.
    #[error("a path of {0} bytes; a socket's path has at most {MAX_PATH}, take a shorter one")]
    PathTooLong(usize),
    /// No port behind the address.
    #[error("no port; write it after the address, as in tcp://127.0.0.1:7000")]
    NoPort,
    /// A port that is not a number of 0 to 65535.
    #[error("port `{0}` is not a number from 0 to 65535")]
    Port(String),
    /// An interface behind the `%` of an IPv6 address that is not here.
    #[error("no network interface is called `{0}`; `ip link` lists them")]
    Interface(String),
    /// An address that is not of the scheme's kind.
    #[error("`{0}` is not an address; names are not looked up, write numbers")]
    Address(String),
}

impl Url {
    /// Returns `true` if the URL stands for every interface, which only a server can use.
    pub fn is_wildcard(&self) -> bool {
        self.socket_addr().is_some_and(|addr| addr.ip().is_unspecified())
    }

    /// Returns the address of a TCP URL, or `None`.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Url::Unix(_) => None,
            Url::Tcp(addr) => Some((*addr).into()),
            Url::Tcp6(addr) => Some((*addr).into()),
        }
    }

    /// Returns the path of a Unix socket's URL, or `None`.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Url::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the URL of a listener's address, as `local_addr` reports it after binding port 0.
    pub fn from_socket_addr(addr: SocketAddr) -> Url {
        match addr {
            SocketAddr::V4(addr) => Url::Tcp(addr),
            SocketAddr::V6(addr) => Url::Tcp6(addr),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Unix(path) => write!(f, "unix://{}", path.display()),
            Url::Tcp(addr) => write!(f, "tcp://{addr}"),
            Url::Tcp6(addr) => write!(f, "tcp6://{addr}"),
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Url, UrlError> {
        parse(url).map_err(|problem| UrlError { url: url.to_string(), problem })
    }
}

fn parse(url: &str) -> Result<Url, UrlProblem> {
    match url.split_once("://") {
        Some(("unix", path)) => parse_path(path),
        Some(("tcp", rest)) => parse_tcp(rest),
        Some(("tcp6", rest)) => parse_tcp6(rest),
        _ => Err(UrlProblem::Scheme),
    }
}

fn parse_path(path: &str) -> Result<Url, UrlProblem> {
    if path.is_empty() {
        return Err(UrlProblem::NoPath);
    }
    if path.contains('\0') {
        return Err(UrlProblem::Nul);
    }
    if path.len() > MAX_PATH {
        return Err(UrlProblem::PathTooLong(path.len()));
    }
    Ok(Url::Unix(path.into()))
}

fn parse_tcp(rest: &str) -> Result<Url, UrlProblem> {
    let (host, port) = rest.split_once(':').ok_or(UrlProblem::NoPort)?;
    let addr = match host {
        "*" | "0" => Ipv4Addr::UNSPECIFIED,
        _ => host.parse().map_err(|_| UrlProblem::Address(host.to_string()))?,
    };
    Ok(Url::Tcp(SocketAddrV4::new(addr, parse_port(port)?)))
}

fn parse_tcp6(rest: &str) -> Result<Url, UrlProblem> {
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once("]:"),
        None => rest.split_once(':').filter(|(host, _)| *host == "*"),
    }
    .ok_or(UrlProblem::NoPort)?;
    let port = parse_port(port)?;
    if host == "*" {
        return Ok(Url::Tcp6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)));
    }
    let (address, scope) = match host.split_once('%') {
        Some((address, interface)) => (address, interface_index(interface)?),
        None => (host, 0),
    };
    let address = address.parse().map_err(|_| UrlProblem::Address(host.to_string()))?;
    Ok(Url::Tcp6(SocketAddrV6::new(address, port, 0, scope)))
}

/// Returns the number of a network interface, given by number or by name. Numbers are not looked up:
/// whether there is such an interface shows where it is used.
fn interface_index(interface: &str) -> Result<u32, UrlProblem> {
    if interface.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(index @ 1..) = interface.parse()
    {
        return Ok(index);
    }
    let unknown = |_| UrlProblem::Interface(interface.to_string());
    let socket = net::socket(AddressFamily::INET6, SocketType::DGRAM, None)
        .or_else(|_| net::socket(AddressFamily::UNIX, SocketType::DGRAM, None));
    socket.and_then(|socket| net::netdevice::name_to_index(socket, interface)).map_err(unknown)
}

/// Parses a port; text behind a slash is ignored, as stock clients do.
fn parse_port(text: &str) -> Result<u16, UrlProblem> {
    let digits = text.split_once('/').map_or(text, |(digits, _)| digits);
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    number.flatten().ok_or_else(|| UrlProblem::Port(digits.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_print_as_they_were_written() {
        for url in [
            "unix:///tmp/sock",
            "unix://relative/sock",
            "tcp://127.0.0.1:7000",
            "tcp6://[::1]:65535",
            "tcp6://[fe80::1%2]:1",
        ] {
            assert_eq!(url.parse::<Url>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn an_interface_has_a_name_and_a_number() {
        let by_name: Url = "tcp6://[fe80::1%lo]:7".parse().unwrap();
        let Url::Tcp6(addr) = &by_name else { panic!("{by_name}") };
        assert_ne!(addr.scope_id(), 0);
        assert_eq!(by_name.to_string(), format!("tcp6://[fe80::1%{}]:7", addr.scope_id()));
        assert_eq!(by_name.to_string().parse::<Url>().unwrap(), by_name);
    }

    #[test]
    fn wildcards() {
        for url in ["tcp://*:1", "tcp://0:1", "tcp://0.0.0.0:1", "tcp6://*:1", "tcp6://[::]:1"] {
            assert!(url.parse::<Url>().unwrap().is_wildcard(), "{url}");
        }
        assert!(!"tcp://127.0.0.1:0".parse::<Url>().unwrap().is_wildcard());
        assert!(!"unix://x".parse::<Url>().unwrap().is_wildcard());
    }

    #[test]
    fn a_path_behind_the_port_is_ignored() {
        let url: Url = "tcp://127.0.0.1:80/x".parse().unwrap();
        assert_eq!(url.to_string(), "tcp://127.0.0.1:80");
    }

    #[test]
    fn bad_urls_say_what_to_do() {
        let long = format!("unix://{}", "x".repeat(108));
        for (url, says) in [
            ("", "no known scheme"),
            ("/tmp/sock", "no known scheme"),
            ("http://a", "no known scheme"),
            ("unix://", "no path"),
            ("unix://a\0b", "NUL"),
            (&long, "a path of 108 bytes"),
            ("tcp://1.2.3.4", "no port"),
            ("tcp://1.2.3.4:", "port ``"),
            ("tcp://1.2.3.4:+5", "port `+5`"),
            ("tcp://1.2.3.4:70000", "port `70000`"),
            ("tcp://localhost:1", "`localhost` is not an address"),
            ("tcp6://::1:5", "no port"),
            ("tcp6://[::1]", "no port"),
            ("tcp6://[1.2.3.4]:5", "`1.2.3.4` is not an address"),
            ("tcp6://[fe80::1%nosuch]:5", "no network interface is called `nosuch`"),
            ("tcp6://[fe80::1%]:5", "no network interface is called ``"),
            ("tcp6://[fe80::1%0]:5", "no network interface is called `0`"),
            ("tcp6://[fe80::1%4294967296]:5", "called `4294967296`"),
            ("tcp6://[fe80::1%a name longer than any]:5", "no network interface"),
            ("tcp6://[fe80::1%lo%lo]:5", "called `lo%lo`"),
            ("tcp6://[fe80%lo]:5", "`fe80%lo` is not an address"),
        ] {
            let error = url.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_path_of_the_longest_length_is_taken() {
        let url = format!("unix://{}", "x".repeat(MAX_PATH));
        assert_eq!(url.parse::<Url>().unwrap().path().unwrap().as_os_str().len(), MAX_PATH);
    }
}
