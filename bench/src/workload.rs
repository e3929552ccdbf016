//! What is called: the calls a load can be made of, by name, and how many at once.

use std::fmt;
use std::str::FromStr;

/// The most bytes of one read or write.
pub const MAX_SIZE: u32 = 16 << 20;

/// The call that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Nothing but a way there and back.
    Getpid,
    /// So many bytes from the start of a file of the connection's own: copies out.
    Read(Size),
    /// So many bytes to the start of a file of the connection's own: copies in.
    Pwrite(Size),
}

/// A number of bytes, as in 16, 4k and 1m.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u32);

/// A load of a comparison: a call, and what it is called with if that is not left to the lists.
///
/// `CALL[@CONNECTIONS[xIN_FLIGHT]]`, as in `getpid`, `pwrite:64k@16` and `getpid@64x16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub call: Call,
    pub connections: Option<u32>,
    pub in_flight: Option<u32>,
}

impl Call {
    /// Bytes that each call moves.
    pub fn size(self) -> u32 {
        match self {
            Call::Getpid => 0,
            Call::Read(Size(size)) | Call::Pwrite(Size(size)) => size,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (digits, unit) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
            Some(b'k') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let size = digits.parse().ok().filter(|_| is_number).and_then(|n: u32| n.checked_mul(unit));
        match size {
            Some(size @ 1..=MAX_SIZE) => Ok(Size(size)),
            _ => Err(format!("{text:?} is no size from 1 to 16m, as 16, 4k or 1m are")),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            size if size % (1 << 20) == 0 => write!(f, "{}m", size >> 20),
            size if size % (1 << 10) == 0 => write!(f, "{}k", size >> 10),
            size => write!(f, "{size}"),
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Call, String> {
        match text.split_once(':') {
            None if text == "getpid" => Ok(Call::Getpid),
            Some(("read", size)) => Ok(Call::Read(size.parse()?)),
            Some(("pwrite", size)) => Ok(Call::Pwrite(size.parse()?)),
            _ => Err(format!("{text:?} is none of getpid, read:SIZE and pwrite:SIZE")),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Getpid => f.write_str("getpid"),
            Call::Read(size) => write!(f, "read:{size}"),
            Call::Pwrite(size) => write!(f, "pwrite:{size}"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let Some((call, with)) = text.split_once('@') else {
            return Ok(Case { call: text.parse()?, connections: None, in_flight: None });
        };
        let (connections, in_flight) = match with.split_once('x') {
            Some((connections, in_flight)) => (connections, Some(in_flight)),
            None => (with, None),
        };
        Ok(Case {
            call: call.parse()?,
            connections: Some(connections_from(connections)?),
            in_flight: in_flight.map(in_flight_from).transpose()?,
        })
    }
}

/// A number of connections.
pub fn connections_from(text: &str) -> Result<u32, String> {
    number(text, 20_000)
}

/// A number of calls in flight on one connection.
pub fn in_flight_from(text: &str) -> Result<u32, String> {
    number(text, 1024)
}

fn number(text: &str, most: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("16", 16),
            ("4k", 4096),
            ("64K", 65_536),
            ("1m", 1 << 20),
            ("16M", 16 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "k", "0", "0k", "-1", "+1", "4kk", "1g", "4 k", "17m", "9999999999", "9999m"]
        {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn calls_are_written_as_they_are_read() {
        for text in ["getpid", "read:4k", "pwrite:16", "pwrite:1m", "read:1500"] {
            assert_eq!(text.parse::<Call>().unwrap().to_string(), text);
        }
        for text in ["", "getpid:1", "read", "read:", "write:4k", "pwrite:4x"] {
            assert!(text.parse::<Call>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_case_may_say_with_what() {
        let case = |connections, in_flight| Case { call: Call::Getpid, connections, in_flight };
        assert_eq!("getpid".parse(), Ok(case(None, None)));
        assert_eq!("getpid@64".parse(), Ok(case(Some(64), None)));
        assert_eq!("getpid@64x16".parse(), Ok(case(Some(64), Some(16))));
        for text in ["getpid@", "getpid@0", "getpid@x16", "getpid@1x", "getpid@1x0", "@1"] {
            assert!(text.parse::<Case>().is_err(), "{text:?}");
        }
    }
}
