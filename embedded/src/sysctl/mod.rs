//! The sysctl tree: values of the kernel, a few of which can be set. Programs find nodes by number, or by
//! name through CTL_QUERY as `sysctlbyname(3)` and `sysctl(8)` do.
//!
//! `user.*` is empty, as in NetBSD's kernel: the C library answers for it.
//!
//! Sources: NetBSD `sys/kern/kern_sysctl.c`, `sys/sys/sysctl.h`; sysctl(3), sysctl(7).

mod elements;
mod files;
mod pcbs;
mod processes;
mod routes;
mod tree;

use std::sync::RwLock;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::System;
use super::abi::{i32_at, u64_at};
use super::call::{Answer, Result, Stop, SyscallContext};
use super::listed::{Listed, Runs, partly};
use super::process::Proc;
use super::sync::{read, write};
use super::work;
use kernel::{Errno, sys};
use tree::TOP;

pub(super) const CALLS: &[Listed] = &[partly(
    sys::SYSCTL,
    Runs::Inline,
    sysctl,
    "kern, hw, net, proc and security as far as uname(3), hostname(1), sysconf(3), getifaddrs(3), \
     ps(1), netstat(1), sockstat(1) and sysctl(8) need, without counts of packets, memory or load; \
     bounds cannot be changed; nobody can make or destroy nodes, where the superuser may at \
     the top and in vendor",
)];

const NAME_PARTS: u32 = 12;
/// The size of `struct sysctlnode`.
const NODE_SIZE: usize = 96;
const VERSION: u32 = 0x0100_0000;
const VERSION_MASK: u32 = 0xff00_0000;
const READ_WRITE: u32 = 0x70;
const ANY_WRITE: u32 = 0x80;
const PERMANENT: u32 = 0x200;
const IMMEDIATE: u32 = 0x800;
const ANY_NUMBER: u32 = 0x4000;
/// The version of every node: the tree never changes.
const TREE: u32 = 1;
/// The longest host and domain name, NUL included (`MAXHOSTNAMELEN`).
const HOST_NAME_MAX: usize = 256;

/// `sysctl.h`: the requests that every inner node answers.
mod generic {
    pub const QUERY: i32 = -2;
    pub const CREATE: i32 = -3;
    pub const DESTROY: i32 = -5;
    pub const MAP: i32 = -6;
    pub const DESCRIBE: i32 = -7;
}

const TYPE_NODE: u32 = 1;
const TYPE_INT: u32 = 2;
const TYPE_STRING: u32 = 3;
const TYPE_QUAD: u32 = 4;
const TYPE_STRUCT: u32 = 5;

/// A node of the tree.
struct Node {
    number: i32,
    name: &'static str,
    /// The description, for CTL_DESCRIBE.
    what: &'static str,
    value: Value,
}

enum Value {
    Node(&'static [Node]),
    /// A subtree to which every number but a negative one leads.
    Anybody(&'static [Node]),
    Int(i32),
    Number(fn(&Proc) -> i32),
    Quad(fn(&Proc) -> u64),
    Text(fn(&System) -> &str),
    /// A string that can be set.
    Variable(fn(&Variables) -> &RwLock<Vec<u8>>),
    /// A number that can be set.
    Setting(fn(&Variables) -> &AtomicI32),
    /// Bytes of this type and size, from a function that is also given the client's room.
    Bytes(u32, usize, fn(&Proc, usize) -> Result<Vec<u8>, Errno>),
    /// A value of this type, with these flags and size, that only its own function can answer.
    Asked(u32, usize, Ask),
}

/// The function that answers for a node, given the whole name and the number of parts that led to the node.
type Ask = fn(&mut SyscallContext<'_, '_>, &[i32], usize, &Request, &mut u64) -> Result<()>;

/// The values that can be set.
pub(super) struct Variables {
    hostname: RwLock<Vec<u8>>,
    domainname: RwLock<Vec<u8>>,
    host_id: AtomicI32,
}

impl Variables {
    pub fn new(hostname: &str) -> Self {
        let hostname = &hostname.as_bytes()[..hostname.len().min(HOST_NAME_MAX - 1)];
        Variables {
            hostname: RwLock::new(hostname.into()),
            domainname: RwLock::default(),
            host_id: AtomicI32::new(0),
        }
    }
}

/// The arguments of the client, except the name.
struct Request {
    /// The address for the value, and the room there.
    old: u64,
    room: u64,
    /// The address and length of the new value, none if `new_len` is 0.
    new: u64,
    new_len: u64,
}

impl Request {
    fn sets(&self) -> bool {
        self.new != 0 && self.new_len != 0
    }
}

/// `int __sysctl(const int *name, u_int namelen, void *oldv, size_t *oldlenp, const void *newv,
/// size_t newlen)`
fn sysctl(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (name, parts, old_len) = (run.word(0), run.uint(1), run.word(3));
    let room = match old_len {
        0 => 0,
        addr => u64::from_le_bytes(run.copyin(addr)?),
    };
    let request = Request { old: run.word(2), room, new: run.word(4), new_len: run.word(5) };
    if !(1..=NAME_PARTS).contains(&parts) {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = [0; 4 * NAME_PARTS as usize];
    let bytes = &mut bytes[..4 * parts as usize];
    run.memory().copyin(name, bytes)?;
    let name: Vec<i32> = bytes.chunks_exact(4).map(|part| i32_at(part, 0)).collect();

    let mut needed = room;
    let mut result = dispatch(run, &name, &request, &mut needed);
    if old_len != 0 && !matches!(result, Err(Stop::Asked | Stop::Flush | Stop::Elsewhere)) {
        // The length is copied out whatever else happened.
        run.copyout(&needed.to_le_bytes(), old_len)?;
    }
    if result.is_ok() && request.old != 0 && room < needed {
        result = Err(Errno::ENOMEM.into());
    }
    result.map(|()| [0, 0])
}

/// NetBSD: `sysctl_dispatch`, `sysctl_locate`.
fn dispatch(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let mut parent = &TOP;
    for (at, &number) in name.iter().enumerate() {
        let last = at + 1 == name.len();
        let Some(node) = parent.child(number) else {
            return match last && number < 0 {
                true => ask_of(run, parent, number, request, needed),
                false => Err(Errno::ENOENT.into()),
            };
        };
        match &node.value {
            Value::Node(_) | Value::Anybody(_) if last => return Err(Errno::EINVAL.into()),
            Value::Node(_) | Value::Anybody(_) => parent = node,
            // Most of these nodes are lists, which may be very long.
            Value::Asked(_, _, ask) => {
                work::elsewhere()?;
                return ask(run, name, at + 1, request, needed);
            }
            _ if last => return lookup(run, node, request, needed),
            _ if node.value.has_function() => return Err(Errno::EINVAL.into()),
            _ => return Err(Errno::ENOTDIR.into()),
        }
    }
    Err(Errno::EINVAL.into())
}

/// Answers a request to an inner node.
fn ask_of(
    run: &mut SyscallContext<'_, '_>,
    parent: &Node,
    what: i32,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    match what {
        generic::QUERY => query(run, parent.children(), request, needed),
        generic::DESCRIBE => describe(run, parent.children(), request, needed),
        generic::CREATE | generic::DESTROY if request.new == 0 => Err(Errno::EINVAL.into()),
        generic::CREATE | generic::DESTROY => Err(Errno::EPERM.into()),
        generic::MAP => map(run, parent, request),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// Copies out a value, and sets it if the client passes a new one.
fn lookup(
    run: &mut SyscallContext<'_, '_>,
    node: &Node,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let room = usize::try_from(request.room).unwrap_or(usize::MAX);
    let value = node.value.bytes(run.proc, room)?;
    let (kind, size) = node.kind(run.proc);
    let new = exchange(run, kind, size, &value, request, needed)?;
    let variables = &run.system().variables;
    match (&node.value, new) {
        (Value::Variable(which), Some(new)) => {
            let end = new.iter().position(|&byte| byte == 0).unwrap_or(new.len());
            *write(which(variables)) = new[..end].into();
        }
        (Value::Setting(which), Some(new)) => which(variables).store(i32_at(&new, 0), Relaxed),
        _ => {}
    }
    Ok(())
}

/// Copies out a value, and copies in a new one if the client passes one and may. NetBSD: `sysctl_lookup`.
fn exchange(
    run: &mut SyscallContext<'_, '_>,
    kind: u32,
    size: usize,
    value: &[u8],
    request: &Request,
    needed: &mut u64,
) -> Result<Option<Vec<u8>>> {
    let mut new = Ok(None);
    if request.sets() {
        if kind & ANY_WRITE == 0 {
            run.proc.credentials().check_superuser()?;
        }
        if kind & READ_WRITE == 0 {
            return Err(Errno::EPERM.into());
        }
        new = new_value(run, kind & 0xf, size, request).map(Some);
        if new == Err(Stop::Asked) {
            return new;
        }
    }
    if request.old != 0 {
        let part = &value[..value.len().min(usize::try_from(request.room).unwrap_or(usize::MAX))];
        if !part.is_empty() {
            run.copyout(part, request.old)?;
        }
    }
    *needed = value.len() as u64;
    new
}

/// Copies in a new value. It has the length of the old one, except for a string, whose NUL may be missing
/// if there is room for one.
fn new_value(
    run: &mut SyscallContext<'_, '_>,
    kind: u32,
    size: usize,
    request: &Request,
) -> Result<Vec<u8>> {
    let text = kind == TYPE_STRING;
    let len = usize::try_from(request.new_len).ok();
    let len = len.filter(|&len| if text { len <= size } else { len == size });
    let mut new = vec![0; len.ok_or(Errno::EINVAL)?];
    run.memory().copyin(request.new, &mut new)?;
    if text && new.len() == size && new.last() != Some(&0) {
        return Err(Errno::EINVAL.into());
    }
    Ok(new)
}

/// Copies in the client's `struct sysctlnode`. NetBSD: `sysctl_cvt_in`.
fn node_in(run: &mut SyscallContext<'_, '_>, request: &Request) -> Result<[u8; NODE_SIZE]> {
    if request.new == 0 || request.new_len < 4 {
        return Err(Errno::EINVAL.into());
    }
    let version = u32::from_le_bytes(run.copyin(request.new)?) & VERSION_MASK;
    if request.new_len != NODE_SIZE as u64 || version != VERSION {
        return Err(Errno::EINVAL.into());
    }
    run.copyin(request.new)
}

/// Lists the children of a node. NetBSD: `sysctl_query`.
fn query(
    run: &mut SyscallContext<'_, '_>,
    children: &[Node],
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let asked = node_in(run, request)?;
    let version = i32_at(&asked, 40) as u32;
    if version != 0 && version != TREE {
        return Err(Errno::EINVAL.into());
    }
    if request.old != 0 {
        let fits = (request.room / NODE_SIZE as u64).min(children.len() as u64) as usize;
        let nodes: Vec<u8> = children[..fits].iter().flat_map(|node| node.encode(run)).collect();
        if !nodes.is_empty() {
            run.copyout(&nodes, request.old)?;
        }
    }
    *needed = (children.len() * NODE_SIZE) as u64;
    Ok(())
}

/// Returns the descriptions of nodes: of all, or of the one asked for. A description is a `struct
/// sysctldesc`: number, version, length and text. NetBSD: `sysctl_describe`.
fn describe(
    run: &mut SyscallContext<'_, '_>,
    children: &[Node],
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let mut only = None;
    if request.new != 0 {
        let asked = node_in(run, request)?;
        let number = i32_at(&asked, 4);
        if u64_at(&asked, 88) != 0 {
            run.proc.credentials().check_superuser()?;
            let known = children.iter().any(|node| node.number == number);
            return Err(if known { Errno::EPERM } else { Errno::ENOENT }.into());
        }
        only = Some(number);
    }
    let meant = |node: &&Node| only.is_none_or(|number| node.number == number);
    let (mut out, mut total) = (Vec::new(), 0);
    for node in children.iter().filter(meant) {
        let text = [node.what.as_bytes(), b"\0"].concat();
        let mut one = [node.number.to_le_bytes(), TREE.to_le_bytes()].concat();
        one.extend((text.len() as u32).to_le_bytes());
        one.extend(text);
        one.resize(one.len().next_multiple_of(4), 0);
        total += one.len() as u64;
        if total <= request.room {
            out.extend(one);
        }
    }
    if only.is_some() && total == 0 {
        return Err(Errno::ENOENT.into());
    }
    if request.old != 0 && !out.is_empty() {
        run.copyout(&out, request.old)?;
    }
    *needed = total;
    Ok(())
}

/// Refuses to map a node. NetBSD: `sysctl_mmap`.
fn map(run: &mut SyscallContext<'_, '_>, parent: &Node, request: &Request) -> Result<()> {
    if request.new == 0 || request.new_len != NODE_SIZE as u64 {
        return Err(Errno::EINVAL.into());
    }
    let asked = run.copyin::<NODE_SIZE>(request.new)?;
    let known = parent.child(i32_at(&asked, 4)).is_some();
    Err(if known { Errno::EOPNOTSUPP } else { Errno::ENOENT }.into())
}

impl Value {
    /// Returns the value as it is copied out, given `room` bytes.
    fn bytes(&self, proc: &Proc, room: usize) -> Result<Vec<u8>, Errno> {
        let variables = &proc.system.variables;
        let mut text = match self {
            Value::Node(_) | Value::Anybody(_) | Value::Asked(..) => return Err(Errno::EINVAL),
            Value::Int(value) => return Ok(value.to_le_bytes().into()),
            Value::Number(value) => return Ok(value(proc).to_le_bytes().into()),
            Value::Setting(which) => {
                return Ok(which(variables).load(Relaxed).to_le_bytes().into());
            }
            Value::Quad(value) => return Ok(value(proc).to_le_bytes().into()),
            Value::Bytes(_, _, value) => return value(proc, room),
            Value::Text(value) => value(&proc.system).as_bytes().to_vec(),
            Value::Variable(which) => read(which(variables)).clone(),
        };
        text.push(0);
        Ok(text)
    }

    /// Returns `true` if NetBSD has a function for the node, which is then asked what a longer name means.
    fn has_function(&self) -> bool {
        matches!(self, Value::Bytes(..) | Value::Variable(_) | Value::Setting(_))
    }
}

impl Node {
    fn children(&self) -> &'static [Node] {
        match self.value {
            Value::Node(children) | Value::Anybody(children) => children,
            _ => &[],
        }
    }

    fn child(&self, number: i32) -> Option<&'static Node> {
        let fits = |node: &&Node| {
            node.number == number || number >= 0 && matches!(node.value, Value::Anybody(_))
        };
        self.children().iter().find(fits)
    }

    /// Returns the type and flags, and the size of the value.
    fn kind(&self, proc: &Proc) -> (u32, usize) {
        match &self.value {
            Value::Node(_) => (TYPE_NODE, NODE_SIZE),
            Value::Anybody(_) => (TYPE_NODE | ANY_NUMBER, NODE_SIZE),
            Value::Int(_) => (TYPE_INT | IMMEDIATE, 4),
            Value::Number(_) => (TYPE_INT, 4),
            Value::Setting(_) => (TYPE_INT | READ_WRITE, 4),
            Value::Quad(_) => (TYPE_QUAD, 8),
            Value::Text(value) => (TYPE_STRING, value(&proc.system).len() + 1),
            Value::Variable(_) => (TYPE_STRING | READ_WRITE, HOST_NAME_MAX),
            Value::Bytes(kind, size, _) | Value::Asked(kind, size, _) => (*kind, *size),
        }
    }

    /// Encodes a `struct sysctlnode`, without the kernel's own pointers.
    fn encode(&self, run: &SyscallContext<'_, '_>) -> [u8; NODE_SIZE] {
        let (kind, size) = self.kind(run.proc);
        let mut out = [0; NODE_SIZE];
        let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
        put(0, &(VERSION | PERMANENT | kind).to_le_bytes());
        put(4, &self.number.to_le_bytes());
        put(8, self.name.as_bytes());
        put(40, &TREE.to_le_bytes());
        match self.value {
            Value::Int(value) => put(48, &value.to_le_bytes()),
            Value::Node(children) | Value::Anybody(children) => {
                let count = (children.len() as u32).to_le_bytes();
                put(48, &count);
                put(52, &count);
            }
            _ => {}
        }
        put(64, &(size as u64).to_le_bytes());
        out
    }
}
