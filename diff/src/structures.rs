//! NetBSD/amd64's structures by name, as sequences are written with them.
//!
//! Sources: NetBSD `sys/sys/{event,fcntl,poll,resource,socket,time,uio,un}.h`, `sys/netinet/in.h`,
//! `sys/netinet6/in6.h`.

use crate::step::{Arg, Block, Layout, Part, Target, Value};

/// An argument between the parentheses.
pub enum Piece {
    Arg(Arg),
    Layout(Layout),
}

/// The most bytes of room for a result.
const MOST_ROOM: i64 = 1 << 20;

/// The layouts: word, layout, and length unless another is given.
const LAYOUTS: &[(&str, Layout, usize)] = &[
    ("statvfs", Layout::Statvfs, 2256),
    ("stat", Layout::Stat, 152),
    ("dirents", Layout::Dirents, 4096),
    ("now", Layout::Now, 16),
    ("timeval", Layout::Timeval, 16),
    ("left", Layout::Left, 32),
    ("rusage", Layout::Rusage, 144),
    ("sockaddr", Layout::Sockaddr, 128),
    ("kevents", Layout::Kevents, 160),
    ("pid", Layout::Pid, 4),
    ("control", Layout::Control, 40),
    ("interfaces", Layout::Interfaces, 1024),
];

/// Returns the layout whose word `text` begins with, and the rest of the text.
pub fn layout(text: &str) -> Option<(Layout, &str)> {
    let (_, layout, rest) = LAYOUTS.iter().find_map(|&(word, layout, _)| {
        let rest = text.strip_prefix(word)?;
        let is_word = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "_(:".contains(c));
        is_word.then_some((word, layout, rest))
    })?;
    Some((layout, rest))
}

type Built = Result<Block, String>;

/// Builds the structure `name` of these arguments.
pub fn build(name: &str, args: Vec<Piece>) -> Built {
    if name == "out" {
        return out(args);
    }
    let args: Vec<Arg> = args
        .into_iter()
        .map(|piece| match piece {
            Piece::Arg(arg) => Ok(arg),
            Piece::Layout(_) => Err(format!("only out() has a layout, not {name}()")),
        })
        .collect::<Result<_, _>>()?;
    match name {
        "join" => join(args),
        "sun" => sun(args),
        "iov" => iov(args),
        "msg" => msg(args),
        _ => of_values(name, values(args)?),
    }
}

/// Builds room for a result: `out(16)`, `out(stat)`, `out(sockaddr, 16)`.
fn out(args: Vec<Piece>) -> Built {
    let mut layout = Layout::Plain;
    let mut room = None;
    for piece in args {
        match piece {
            Piece::Layout(of) => layout = of,
            Piece::Arg(Arg::Value(Value::Number(len @ 0..=MOST_ROOM))) => room = Some(len as usize),
            Piece::Arg(_) => return Err("no room for a result".into()),
        }
    }
    let usual = LAYOUTS.iter().find(|of| of.1 == layout).map(|of| of.2);
    let room = room.or(usual).ok_or("out() needs a length")?;
    Ok(Block { parts: vec![Part::Room(room)], layout })
}

fn values(args: Vec<Arg>) -> Result<Vec<Value>, String> {
    let values = args.into_iter().map(|arg| match arg {
        Arg::Value(value) => Ok(value),
        Arg::Pointer(_) => Err("a number is wanted, not a pointer".to_string()),
    });
    values.collect()
}

fn int(value: Value, width: usize) -> Part {
    Part::Int { value, width }
}

fn number(number: i64, width: usize) -> Part {
    int(Value::Number(number), width)
}

/// Builds structures that are made of numbers only.
fn of_values(name: &str, values: Vec<Value>) -> Built {
    let count = values.len();
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or(Value::Number(0));
    let mut layout = Layout::Plain;
    let parts = match (name, count) {
        ("int", 1) => {
            let value = next();
            if let Value::Pid { .. } = value {
                layout = Layout::Pid;
            }
            vec![int(value, 4)]
        }
        ("long", 1) => vec![int(next(), 8)],
        ("timespec" | "timeval" | "rlimit", 2) => vec![int(next(), 8), int(next(), 8)],
        // Two times: of access and of modification.
        ("times", 4) => (0..4).map(|_| int(next(), 8)).collect(),
        ("linger", 2) => vec![int(next(), 4), int(next(), 4)],
        ("flock", 4) => {
            layout = Layout::Flock;
            let (kind, whence, start, len) = (next(), next(), next(), next());
            vec![int(start, 8), int(len, 8), number(0, 4), int(kind, 2), int(whence, 2)]
        }
        ("sin", 1 | 2) => {
            let (port, host) = (next(), if count == 2 { next() } else { LOOPBACK });
            let Value::Number(host) = host else { return Err("a host is a number".into()) };
            let host = (host as u32).to_be_bytes().to_vec();
            let head = vec![number(16, 1), number(2, 1), Part::NetworkPort(port)];
            [head, vec![Part::Bytes(host), number(0, 8)]].concat()
        }
        ("sin6", 1 | 2) => {
            let (port, host) = (next(), if count == 2 { next() } else { Value::Number(1) });
            let Value::Number(host) = host else { return Err("a host is a number".into()) };
            let host = u128::from(host as u64).to_be_bytes().to_vec();
            let head = vec![number(28, 1), number(24, 1), Part::NetworkPort(port), number(0, 4)];
            [head, vec![Part::Bytes(host), number(0, 4)]].concat()
        }
        ("pollfd", _) if count > 0 && count.is_multiple_of(2) => {
            (0..count / 2).flat_map(|_| [int(next(), 4), int(next(), 2), SEEN]).collect()
        }
        ("kevent", 3..=6) => {
            layout = Layout::Kevents;
            let head = vec![int(next(), 8), int(next(), 4), int(next(), 4), int(next(), 4)];
            [head, vec![number(0, 4), int(next(), 8), int(next(), 8)]].concat()
        }
        ("fdset", _) => vec![Part::Descriptors((0..count).map(|_| next()).collect())],
        ("rights", 1..) => {
            let head = vec![number(16 + 4 * count as i64, 4), number(0xffff, 4), number(1, 8)];
            let pad = Part::Bytes(vec![0; count % 2 * 4]);
            [head, (0..count).map(|_| int(next(), 4)).collect(), vec![pad]].concat()
        }
        _ => return Err(format!("no structure {name} of {count} numbers")),
    };
    Ok(Block { parts, layout })
}

/// 127.0.0.1
const LOOPBACK: Value = Value::Number(0x7f00_0001);

/// The value of `revents` before the call, which no call returns.
const SEEN: Part = Part::Int { value: Value::Number(0x5a5a), width: 2 };

fn blocks(args: Vec<Arg>) -> Result<Vec<Block>, String> {
    let blocks = args.into_iter().map(|arg| match arg {
        Arg::Pointer(Target::Block(block)) => Ok(block),
        other => Err(format!("memory is wanted, not {other:?}")),
    });
    blocks.collect()
}

/// Joins several structures, one behind the other.
fn join(args: Vec<Arg>) -> Built {
    let blocks = blocks(args)?;
    let layout = blocks.first().map_or(Layout::Plain, |first| first.layout);
    Ok(Block { parts: blocks.into_iter().flat_map(|block| block.parts).collect(), layout })
}

/// Builds a `struct sockaddr_un`, as long as its path. The path's NUL is not part of it.
fn sun(args: Vec<Arg>) -> Built {
    let mut path = match <[Block; 1]>::try_from(blocks(args)?) {
        Ok([block]) => block.parts,
        Err(_) => return Err("sun() has one path".into()),
    };
    if let Some(Part::Bytes(bytes)) = path.last_mut() {
        bytes.pop();
    }
    let len = 2 + path.iter().map(|part| part.len(0)).sum::<usize>();
    let head = vec![number(len as i64, 1), number(1, 1)];
    Ok(Block::plain([head, path].concat()))
}

/// Builds `struct iovec`s, one for each pointer, with the length of the pointer's target.
fn iov(args: Vec<Arg>) -> Built {
    let pair = |arg| match arg {
        Arg::Pointer(target) => {
            let len = length(&target).unwrap_or(8);
            Ok([Part::Pointer(Box::new(target)), number(len as i64, 8)])
        }
        Arg::Value(_) => Err("iov() has pointers".to_string()),
    };
    let pairs: Vec<_> = args.into_iter().map(pair).collect::<Result<_, _>>()?;
    Ok(Block::plain(pairs.into_iter().flatten().collect()))
}

/// Builds a `struct msghdr` of a name, `iov()` and control messages; each may be null.
fn msg(args: Vec<Arg>) -> Built {
    let targets: Vec<Target> = args
        .into_iter()
        .map(|arg| match arg {
            Arg::Pointer(target) => Ok(target),
            Arg::Value(_) => Err("msg() has pointers".to_string()),
        })
        .collect::<Result<_, _>>()?;
    let [name, iov, control] =
        <[Target; 3]>::try_from(targets).map_err(|_| "msg(name, iov, control)".to_string())?;
    let [name_len, iov_len, control_len] =
        [&name, &iov, &control].map(|target| length(target).unwrap_or(0) as i64);
    Ok(Block::plain(vec![
        Part::Pointer(Box::new(name)),
        number(name_len, 8),
        Part::Pointer(Box::new(iov)),
        number(iov_len / 16, 8),
        Part::Pointer(Box::new(control)),
        number(control_len, 4),
        number(0, 4),
    ]))
}

fn length(target: &Target) -> Option<usize> {
    match target {
        Target::Block(block) => Some(block.len()),
        Target::Null | Target::Nowhere => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::parse::step;
    use crate::step::{Act, Arg, Target};

    /// Returns the length of the memory that a line's last argument points to.
    fn length(argument: &str) -> usize {
        let step = step(&format!("a ioctl 0 0 {argument}")).expect("a step");
        let Act::Call(call) = step.act else { panic!("a call") };
        match call.args.last() {
            Some(Arg::Pointer(Target::Block(block))) => block.len(),
            other => panic!("a block, not {other:?}"),
        }
    }

    #[test]
    fn structures_are_as_long_as_netbsd_s() {
        for (argument, len) in [
            ("out(7)", 7),
            ("out(stat)", 152),
            ("out(sockaddr, 16)", 16),
            ("int(4)", 4),
            ("timespec(1, 2)", 16),
            ("times(1, 2, 3, 4)", 32),
            ("flock(F_WRLCK, SEEK_SET, 0, 5)", 24),
            ("sin(port:1)", 16),
            ("sin6(port:1)", 28),
            ("sun(\"abc\")", 5),
            ("pollfd($a, POLLIN, 3, 0)", 16),
            ("kevent($a, EVFILT_READ, EV_ADD)", 40),
            ("join(kevent($a, 0, 1), kevent($a, 1, 1))", 80),
            ("fdset($a, 3)", 32),
            ("rights($a)", 24),
            ("rights($a, $b)", 24),
            ("iov('abc', out(5))", 32),
            ("msg(null, iov('a'), rights(0))", 48),
            ("linger(1, 0)", 8),
        ] {
            assert_eq!(length(argument), len, "{argument}");
        }
    }
}
