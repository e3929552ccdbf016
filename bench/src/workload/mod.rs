//! The calls that a load can be made of, by name, and the numbers of connections and calls in flight.
//!
//! - [`getpid`], [`transfer`], [`copyinstr`], [`pipe`], [`fork`], [`connect`]: one kind of call each,
//!   with its request and the check of its answer; [`mix`]: several kinds, chosen by [`random`]
//!   numbers; [`fair`]: many busy connections and one that is not.
//! - [`op`]: one call of any of these; [`case`]: a load of a comparison; [`size`]: a number of bytes.

mod case;
pub mod connect;
pub mod copyinstr;
pub mod fair;
pub mod fork;
pub mod getpid;
mod mix;
mod op;
pub mod pipe;
mod random;
mod size;
pub mod transfer;

pub use case::Case;
pub use mix::Mix;
pub use op::{Answer, Names, Op};
pub use random::Random;
pub use size::{MAX_SIZE, Size};

use std::fmt;
use std::str::FromStr;

/// The names that `--call` takes, for its help.
pub const NAMES: &str = "getpid, read:SIZE, pwrite:SIZE, copyinstr, pipe, fork, connect, mixed, \
                         mixed:CALL=WEIGHT+... and fair";

/// The call that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// getpid, which measures only the round trip.
    Getpid,
    /// Reads this many bytes from the start of a file of the connection's own: copies out.
    Read(Size),
    /// Writes this many bytes to the start of a file of the connection's own: copies in.
    Pwrite(Size),
    /// Opens and closes a file of the connection's own: copies in a string. Each of the two is a call.
    Copyinstr,
    /// Two connections pass a byte to and fro over two pipes: calls that sleep.
    Pipe,
    /// Forks: a prefork, and a connection of the child, which hangs up.
    Fork,
    /// Connects, shakes hands and hangs up.
    Connect,
    /// Several calls, each by its weight.
    Mixed(Mix),
    /// getpid, by busy connections and by a slow one.
    Fair,
}

impl Call {
    /// Returns the most bytes that one call moves.
    pub fn size(self) -> u32 {
        match self {
            Call::Read(Size(size)) | Call::Pwrite(Size(size)) => size,
            Call::Mixed(mix) => mix.parts().map(|(call, _)| call.size()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Returns `true` if the call reads or writes a file without a name.
    pub fn needs_file(self) -> bool {
        self.size() > 0
    }

    /// Returns `true` if the call opens a file by its name.
    pub fn needs_path(self) -> bool {
        match self {
            Call::Copyinstr => true,
            Call::Mixed(mix) => mix.parts().any(|(call, _)| call.needs_path()),
            _ => false,
        }
    }

    /// Returns `true` if the call's connections go in pairs.
    pub fn is_in_pairs(self) -> bool {
        self == Call::Pipe
    }

    /// Returns `true` if the call's connections stay: those of [`Call::Connect`] do not.
    pub fn stays(self) -> bool {
        self != Call::Connect
    }

    /// Returns `true` if each call has a connection of its own for a while.
    pub fn has_children(self) -> bool {
        matches!(self, Call::Fork | Call::Connect)
    }

    /// Returns the names of the parts that are counted apart, or nothing if all calls are the same.
    pub fn parts(self) -> Vec<String> {
        match self {
            Call::Mixed(mix) => mix.parts().map(|(call, _)| call.to_string()).collect(),
            Call::Fair => fair::PARTS.map(String::from).to_vec(),
            _ => Vec::new(),
        }
    }

    /// Returns `true` if the call is getpid and nothing else.
    pub fn is_getpid(self) -> bool {
        matches!(self, Call::Getpid | Call::Fair)
    }

    /// Checks that the call can be made at a given rate.
    pub fn check_rate(self) -> Result<(), String> {
        match self {
            Call::Fair => Err(format!("{self} has a pace of its own: it takes no rate")),
            _ => Ok(()),
        }
    }

    /// Checks that the call can have this number of connections.
    pub fn check(self, connections: u32) -> Result<(), String> {
        if self.is_in_pairs() && connections % 2 == 1 {
            return Err(format!(
                "{self} takes its connections in pairs: {connections} is not an even number"
            ));
        }
        if self == Call::Fair && connections < 2 {
            return Err(format!("{self} takes 2 connections at least, a busy and a slow one"));
        }
        Ok(())
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Call, String> {
        match text.split_once(':') {
            None => match text {
                "getpid" => Ok(Call::Getpid),
                "copyinstr" => Ok(Call::Copyinstr),
                "pipe" => Ok(Call::Pipe),
                "fork" => Ok(Call::Fork),
                "connect" => Ok(Call::Connect),
                "fair" => Ok(Call::Fair),
                "mixed" => Ok(Call::Mixed(Mix::usual())),
                _ => Err(format!("{text:?} is none of {NAMES}")),
            },
            Some(("read", size)) => Ok(Call::Read(size.parse()?)),
            Some(("pwrite", size)) => Ok(Call::Pwrite(size.parse()?)),
            Some(("mixed", parts)) => Ok(Call::Mixed(parts.parse()?)),
            Some(_) => Err(format!("{text:?} is none of {NAMES}")),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Getpid => f.write_str("getpid"),
            Call::Read(size) => write!(f, "read:{size}"),
            Call::Pwrite(size) => write!(f, "pwrite:{size}"),
            Call::Copyinstr => f.write_str("copyinstr"),
            Call::Pipe => f.write_str("pipe"),
            Call::Fork => f.write_str("fork"),
            Call::Connect => f.write_str("connect"),
            Call::Fair => f.write_str("fair"),
            Call::Mixed(mix) if *mix == Mix::usual() => f.write_str("mixed"),
            Call::Mixed(mix) => write!(f, "mixed:{mix}"),
        }
    }
}

/// Parses a number of connections.
pub fn connections_from(text: &str) -> Result<u32, String> {
    number(text, 1_000_000)
}

/// Parses a number of calls in flight on one connection.
pub fn in_flight_from(text: &str) -> Result<u32, String> {
    number(text, 1024)
}

/// Parses a number from 1 to `most`.
pub fn number(text: &str, most: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_written_as_they_are_read() {
        for text in [
            "getpid",
            "read:4k",
            "pwrite:16",
            "pwrite:1m",
            "read:1500",
            "copyinstr",
            "pipe",
            "fork",
            "connect",
            "fair",
            "mixed",
            "mixed:getpid=60+read:4k=20",
            "mixed:copyinstr=1",
        ] {
            assert_eq!(text.parse::<Call>().unwrap().to_string(), text);
        }
        for text in
            ["", "getpid:1", "read", "read:", "write:4k", "pwrite:4x", "pipe:1", "fair:1", "Fork"]
        {
            assert!(text.parse::<Call>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mix_has_the_needs_of_its_parts() {
        let call = |text: &str| text.parse::<Call>().unwrap();
        let mix = call("mixed:read:4k=1+pwrite:64k=2+copyinstr=3");
        assert_eq!((mix.size(), mix.needs_file(), mix.needs_path()), (65_536, true, true));
        let mix = call("mixed:getpid=1");
        assert_eq!((mix.size(), mix.needs_file(), mix.needs_path()), (0, false, false));
        assert_eq!(mix.parts(), ["getpid"]);
        assert!(Call::Getpid.parts().is_empty());
    }

    #[test]
    fn pipes_go_in_pairs() {
        assert!(Call::Pipe.check(3).unwrap_err().contains("even number"));
        assert_eq!((Call::Pipe.check(4), Call::Getpid.check(3)), (Ok(()), Ok(())));
    }

    #[test]
    fn fairness_is_between_two_and_has_its_own_pace() {
        assert!(Call::Fair.check(1).unwrap_err().contains("2 connections at least"));
        assert_eq!((Call::Fair.check(2), Call::Getpid.check_rate()), (Ok(()), Ok(())));
        assert!(Call::Fair.check_rate().unwrap_err().contains("pace of its own"));
    }
}
