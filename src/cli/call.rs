//! `rumpring call` and `rumpring halt`: a system call from the command line, at `$RUMP_SERVER`.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};

use super::Failure;
use crate::output;
use client::{AddressSpace, CallError, Client};
use embedded;
use rumpsp::url::Url;

/// NetBSD's number of reboot(2).
const SYS_REBOOT: i32 = 208;

/// Make one system call at the server in RUMP_SERVER.
///
/// Each call is made by a process of its own, which ends with it. NAME is a NetBSD name (open,
/// __stat50 or stat) or a number. An argument is a number (7, -1, 0x1ff, 0o644); or @N, a buffer of N
/// bytes that is printed afterwards; or anything else, a string. A string that looks like a number or
/// a buffer is written with a colon before it (:42).
#[derive(Args)]
#[command(after_help = "\
Examples:
    rumpring call getpid
    rumpring call mkdir /tmp/dir 0o755
    rumpring call open /dev/zero 0
    rumpring call clock_gettime 0 @16")]
pub struct Call {
    /// The call.
    #[arg(value_name = "NAME")]
    name: String,

    /// Its arguments.
    #[arg(value_name = "ARGS", allow_hyphen_values = true)]
    args: Vec<String>,

    #[command(flatten)]
    server: ServerArg,
}

/// Halt the server in RUMP_SERVER: its kernel stops, and it ends.
#[derive(Args)]
pub struct Halt {
    #[command(flatten)]
    server: ServerArg,
}

#[derive(Args)]
struct ServerArg {
    /// The server's URL.
    #[arg(long, env = "RUMP_SERVER", value_name = "URL")]
    server: Option<Url>,
}

impl ServerArg {
    /// Returns the URL. Without one, prints what to do about it, and ends the program.
    fn url(&self) -> &Url {
        self.server.as_ref().unwrap_or_else(|| {
            let message = "no server: RUMP_SERVER is not set. Set it to the server's URL, as in \
                           RUMP_SERVER=unix:///tmp/rump.sock, or use --server URL";
            super::Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit()
        })
    }

    fn connect(&self, name: &str) -> Result<Client, Failure> {
        Ok(Client::builder().name(name).connect(self.url())?)
    }
}

/// An argument as it was written.
#[derive(Debug, PartialEq, Eq)]
enum Argument<'a> {
    Number(u64),
    Buffer(usize),
    Text(&'a str),
}

/// The longest buffer that an argument may be.
const MAX_BUFFER: usize = 1 << 20;

impl Call {
    pub fn run(self) -> Result<(), Failure> {
        let number = number_of(&self.name)?;
        if self.args.len() > kernel::MAX_ARGS {
            return Err(format!("{}: at most {} arguments", self.name, kernel::MAX_ARGS).into());
        }
        let client = self.server.connect("rumpring call")?;
        let space = client.space();
        let mut values = Vec::new();
        let mut buffers = Vec::new();
        for argument in self.args.iter().map(|text| parse(text)) {
            values.push(match argument? {
                Argument::Number(value) => value,
                Argument::Text(text) => space.alloc_str(text)?,
                Argument::Buffer(len) => {
                    let addr = space.alloc(len)?;
                    buffers.push((addr, len));
                    addr
                }
            });
        }
        let retval = client.call(number, &values).map_err(|error| match error {
            CallError::Errno(errno) => format!("{}: {errno}", self.name),
            error => format!("{}: {}: {error}", self.server.url(), self.name),
        })?;
        print(&self.name, retval, space, &buffers)?;
        Ok(())
    }
}

impl Halt {
    pub fn run(self) -> Result<(), Failure> {
        let client = self.server.connect("rumpring halt")?;
        client
            .call(SYS_REBOOT, &[0, 0])
            .map_err(|error| format!("{}: {error}", self.server.url()))?;
        Ok(())
    }
}

/// Returns NetBSD's number of a call.
fn number_of(name: &str) -> Result<i32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    embedded::by_name(name)
        .or_else(|| embedded::table().find(|entry| entry.name.trim_start_matches('_') == name))
        .map(|entry| entry.number)
        .ok_or_else(|| format!("{name}: no NetBSD system call has that name"))
}

fn parse(text: &str) -> Result<Argument<'_>, String> {
    if let Some(rest) = text.strip_prefix(':') {
        return Ok(Argument::Text(rest));
    }
    if let Some(len) = text.strip_prefix('@')
        && let Ok(len) = len.parse()
    {
        if len > MAX_BUFFER {
            return Err(format!("{text}: a buffer has at most {MAX_BUFFER} bytes"));
        }
        return Ok(Argument::Buffer(len));
    }
    Ok(number(text).map_or(Argument::Text(text), Argument::Number))
}

/// Parses a number in the notation of Rust: 7, -1, 0x1ff, 0o644.
fn number(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let value = match digits.get(..2) {
        Some("0x") => u64::from_str_radix(&digits[2..], 16),
        Some("0o") => u64::from_str_radix(&digits[2..], 8),
        _ => digits.parse(),
    };
    value.ok().map(|value| if negative { value.wrapping_neg() } else { value })
}

/// Prints `name = value`, then the buffers as hexadecimal and text.
fn print(
    name: &str,
    retval: [i64; 2],
    space: &AddressSpace,
    buffers: &[(u64, usize)],
) -> Result<(), Failure> {
    let mut out = match retval {
        [value, 0] => format!("{name} = {value}\n"),
        [value, second] => format!("{name} = {value}, {second}\n"),
    };
    for &(addr, len) in buffers {
        for (line, bytes) in space.read(addr, len as u64)?.chunks(16).enumerate() {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
            let text: String = bytes.iter().map(|&byte| printable(byte)).collect();
            out += &format!("  {:6x}  {hex:48} {text}\n", line * 16);
        }
    }
    Ok(output::print(out)?)
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_what_they_look_like() {
        let cases = [
            ("7", Argument::Number(7)),
            ("-1", Argument::Number(u64::MAX)),
            ("0x1ff", Argument::Number(0x1ff)),
            ("0o644", Argument::Number(0o644)),
            ("@16", Argument::Buffer(16)),
            ("@here", Argument::Text("@here")),
            (":42", Argument::Text("42")),
            ("/tmp", Argument::Text("/tmp")),
            ("", Argument::Text("")),
            ("é", Argument::Text("é")),
        ];
        for (text, argument) in cases {
            assert_eq!(parse(text), Ok(argument), "{text:?}");
        }
        assert!(parse("@1048577").is_err(), "a buffer over its bound");
        assert!(parse("@1048576").is_ok());
    }
}
