//! The sysctl tree: what the kernel says of itself, and the few things that can be set. Programs find
//! nodes by number, or by name through CTL_QUERY as `sysctlbyname(3)` and `sysctl(8)` do.
//!
//! Sources: NetBSD `sys/kern/{kern_sysctl,init_sysctl_base,init_sysctl,subr_cprng}.c`,
//! `sys/sys/sysctl.h`; sysctl(7), sysctl(3).

use std::sync::RwLock;

use super::System;
use super::abi::{IOV_MAX, i32_at, timespec};
use super::call::{Answer, Result, Run, Stop};
use super::limits::Limits;
use super::sync::{read, write};
use super::table::{Listed, partly};
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[partly(
    202,
    sysctl,
    "kern.*, hw.* as far as uname(3), hostname(1) and sysconf(3) read them; nodes cannot be made, \
     destroyed or described",
)];

const NAME_PARTS: u32 = 12;
/// The size of `struct sysctlnode`.
const NODE_SIZE: usize = 96;
const VERSION: u32 = 0x0100_0000;
const VERSION_MASK: u32 = 0xff00_0000;
const READ_WRITE: u32 = 0x70;
const PERMANENT: u32 = 0x200;
/// "What is in this node?"
const QUERY: i32 = -2;
/// The version of every node: the tree never changes.
const TREE: u32 = 1;
/// The longest host and domain name, NUL included (`MAXHOSTNAMELEN`).
const HOST_NAME_MAX: usize = 256;

const TYPE_NODE: u32 = 1;
const TYPE_INT: u32 = 2;
const TYPE_STRING: u32 = 3;
const TYPE_QUAD: u32 = 4;
const TYPE_STRUCT: u32 = 5;

struct Node {
    number: i32,
    name: &'static str,
    value: Value,
}

enum Value {
    Node(&'static [Node]),
    Int(fn(&System) -> i32),
    Quad(fn(&System) -> u64),
    Text(fn(&System) -> &str),
    /// A string that may be set.
    Variable(fn(&Variables) -> &RwLock<Vec<u8>>),
    /// Bytes, as many as are asked for up to a bound where it says so.
    Bytes(fn(&System, usize) -> Result<Vec<u8>, Errno>),
}

/// What can be set.
pub(super) struct Variables {
    hostname: RwLock<Vec<u8>>,
    domainname: RwLock<Vec<u8>>,
}

impl Variables {
    pub fn new(hostname: &str) -> Self {
        let hostname = &hostname.as_bytes()[..hostname.len().min(HOST_NAME_MAX - 1)];
        Variables { hostname: RwLock::new(hostname.into()), domainname: RwLock::default() }
    }
}

const fn node(number: i32, name: &'static str, value: Value) -> Node {
    Node { number, name, value }
}

static TREE_TOP: &[Node] = &[
    node(1, "kern", Value::Node(KERN)),
    node(2, "vm", Value::Node(&[])),
    node(3, "vfs", Value::Node(&[])),
    node(4, "net", Value::Node(&[])),
    node(5, "debug", Value::Node(&[])),
    node(6, "hw", Value::Node(HW)),
    node(7, "machdep", Value::Node(&[])),
    node(8, "user", Value::Node(&[])),
    node(9, "ddb", Value::Node(&[])),
    node(10, "proc", Value::Node(&[])),
    node(11, "vendor", Value::Node(&[])),
    node(12, "emul", Value::Node(&[])),
    node(13, "security", Value::Node(&[])),
];

static KERN: &[Node] = &[
    node(1, "ostype", Value::Text(|system| &system.identity.ostype)),
    node(2, "osrelease", Value::Text(|system| &system.identity.osrelease)),
    node(3, "osrevision", Value::Int(|_| super::OSREVISION)),
    node(4, "version", Value::Text(|system| &system.version)),
    node(6, "maxproc", Value::Int(|system| int(system.limits.processes))),
    node(7, "maxfiles", Value::Int(|system| int(system.limits.files))),
    node(8, "argmax", Value::Int(|_| 256 * 1024)),
    node(10, "hostname", Value::Variable(|set| &set.hostname)),
    node(11, "hostid", Value::Int(|_| 0)),
    node(12, "clockrate", Value::Bytes(|_, _| Ok(clock_rate()))),
    node(17, "posix1version", Value::Int(|_| 200_112)),
    node(18, "ngroups", Value::Int(|_| 16)),
    node(19, "job_control", Value::Int(|_| 1)),
    node(20, "saved_ids", Value::Int(|_| 1)),
    node(22, "domainname", Value::Variable(|set| &set.domainname)),
    node(24, "rawpartition", Value::Int(|_| 3)),
    node(32, "fsync", Value::Int(|_| 1)),
    node(37, "synchronized_io", Value::Int(|_| 1)),
    node(38, "iov_max", Value::Int(|_| IOV_MAX as i32)),
    node(44, "login_name_max", Value::Int(|_| 17)),
    node(60, "monotonic_clock", Value::Int(|_| 200_112)),
    node(61, "urandom", Value::Bytes(|_, _| random(4))),
    node(81, "arandom", Value::Bytes(|_, len| random(len.min(256)))),
    node(83, "boottime", Value::Bytes(|system, _| Ok(timespec(system.boot_time).to_vec()))),
];

static HW: &[Node] = &[
    node(1, "machine", Value::Text(|system| &system.identity.machine)),
    node(2, "model", Value::Text(|_| "rumpring (virtual)")),
    node(3, "ncpu", Value::Int(|system| system.cpus)),
    node(4, "byteorder", Value::Int(|_| 1234)),
    node(5, "physmem", Value::Int(|system| memory(&system.limits).min(u32::MAX.into()) as i32)),
    node(7, "pagesize", Value::Int(|_| 4096)),
    node(10, "machine_arch", Value::Text(|_| "x86_64")),
    node(11, "alignbytes", Value::Int(|_| 7)),
    node(13, "physmem64", Value::Quad(|system| memory(&system.limits))),
    node(16, "ncpuonline", Value::Int(|system| system.cpus)),
];

fn int(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// What stands in for memory: the bytes files may have.
fn memory(limits: &Limits) -> u64 {
    limits.bytes
}

/// `struct clockinfo`: hz, tick, tickadj, stathz, profhz.
fn clock_rate() -> Vec<u8> {
    [100, 10_000, 40, 100, 100].iter().flat_map(|part: &i32| part.to_le_bytes()).collect()
}

fn random(len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).map_err(|_| Errno::EIO)?;
    Ok(bytes)
}

/// What the client passed, besides the name.
struct Request {
    /// Where the value goes, and how much there is room for.
    old: u64,
    room: u64,
    /// The new value, none if `new_len` is 0.
    new: u64,
    new_len: u64,
}

/// `int __sysctl(const int *name, u_int namelen, void *oldv, size_t *oldlenp, const void *newv,
/// size_t newlen)`
fn sysctl(run: &mut Run<'_, '_>) -> Answer {
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
    if old_len != 0 && !matches!(result, Err(Stop::Asked)) {
        // The length comes back whatever else happened.
        run.copyout(&needed.to_le_bytes(), old_len)?;
    }
    if result.is_ok() && request.old != 0 && room < needed {
        result = Err(Errno::ENOMEM.into());
    }
    result.map(|()| [0, 0])
}

/// NetBSD: `sysctl_dispatch`.
fn dispatch(
    run: &mut Run<'_, '_>,
    name: &[i32],
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let mut children = TREE_TOP;
    for (at, &number) in name.iter().enumerate() {
        let last = at + 1 == name.len();
        let Some(node) = children.iter().find(|node| node.number == number) else {
            return match (last, number) {
                (true, QUERY) => query(run, children, request, needed),
                // Making, destroying, mapping: there is nothing to do it with.
                (true, -5..=-3) => Err(Errno::EPERM.into()),
                (true, ..0) => Err(Errno::EOPNOTSUPP.into()),
                _ => Err(Errno::ENOENT.into()),
            };
        };
        match &node.value {
            Value::Node(_) if last => return Err(Errno::EINVAL.into()),
            Value::Node(below) => children = below,
            _ if last => return lookup(run, node, request, needed),
            _ => return Err(Errno::ENOTDIR.into()),
        }
    }
    Err(Errno::EINVAL.into())
}

/// Reads a value, and sets it. NetBSD: `sysctl_lookup`.
fn lookup(run: &mut Run<'_, '_>, node: &Node, request: &Request, needed: &mut u64) -> Result<()> {
    let setting = request.new != 0 && request.new_len != 0;
    if setting && (run.task.credentials().euid != 0 || !matches!(node.value, Value::Variable(_))) {
        return Err(Errno::EPERM.into());
    }
    let new = match node.value {
        Value::Variable(_) if setting => Some(new_text(run, request)?),
        _ => None,
    };
    let room = usize::try_from(request.room).unwrap_or(usize::MAX);
    let value = node.value.bytes(run.system(), room)?;
    if request.old != 0 {
        let part = &value[..value.len().min(room)];
        if !part.is_empty() {
            run.copyout(part, request.old)?;
        }
    }
    *needed = value.len() as u64;
    if let (Value::Variable(which), Some(new)) = (&node.value, new) {
        *write(which(&run.system().variables)) = new;
    }
    Ok(())
}

/// Copies in the new value of a string: its NUL may be missing where there is room for one.
fn new_text(run: &mut Run<'_, '_>, request: &Request) -> Result<Vec<u8>> {
    if request.new_len > HOST_NAME_MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    let mut text = vec![0; request.new_len as usize];
    run.memory().copyin(request.new, &mut text)?;
    if text.len() == HOST_NAME_MAX && text.last() != Some(&0) {
        return Err(Errno::EINVAL.into());
    }
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    text.truncate(end);
    Ok(text)
}

/// Describes what is in a node. NetBSD: `sysctl_query`.
fn query(
    run: &mut Run<'_, '_>,
    children: &[Node],
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    if request.new == 0 || request.new_len != NODE_SIZE as u64 {
        return Err(Errno::EINVAL.into());
    }
    let asked = run.copyin::<NODE_SIZE>(request.new)?;
    let (flags, version) = (i32_at(&asked, 0) as u32, i32_at(&asked, 40) as u32);
    if flags & VERSION_MASK != VERSION || !(version == 0 || version == TREE) {
        return Err(Errno::EINVAL.into());
    }
    if request.old != 0 {
        let fits = (request.room / NODE_SIZE as u64).min(children.len() as u64) as usize;
        let described: Vec<u8> =
            children[..fits].iter().flat_map(|node| node.describe(run.system())).collect();
        if !described.is_empty() {
            run.copyout(&described, request.old)?;
        }
    }
    *needed = (children.len() * NODE_SIZE) as u64;
    Ok(())
}

impl Value {
    /// The value as it is copied out, if there is room for `room` bytes.
    fn bytes(&self, system: &System, room: usize) -> Result<Vec<u8>, Errno> {
        let mut text = match self {
            Value::Node(_) => return Err(Errno::EINVAL),
            Value::Int(value) => return Ok(value(system).to_le_bytes().to_vec()),
            Value::Quad(value) => return Ok(value(system).to_le_bytes().to_vec()),
            Value::Bytes(value) => return value(system, room),
            Value::Text(value) => value(system).as_bytes().to_vec(),
            Value::Variable(which) => read(which(&system.variables)).clone(),
        };
        text.push(0);
        Ok(text)
    }
}

impl Node {
    /// `struct sysctlnode`, without the kernel's own pointers.
    fn describe(&self, system: &System) -> [u8; NODE_SIZE] {
        let (kind, size) = match &self.value {
            Value::Node(_) => (TYPE_NODE, NODE_SIZE),
            Value::Int(_) => (TYPE_INT, 4),
            Value::Quad(_) => (TYPE_QUAD, 8),
            Value::Text(value) => (TYPE_STRING, value(system).len() + 1),
            Value::Variable(_) => (TYPE_STRING | READ_WRITE, HOST_NAME_MAX),
            Value::Bytes(_) if self.name == "urandom" => (TYPE_INT, 4),
            Value::Bytes(_) => (TYPE_STRUCT, 0),
        };
        let mut out = [0; NODE_SIZE];
        let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
        put(0, &(VERSION | PERMANENT | kind).to_le_bytes());
        put(4, &self.number.to_le_bytes());
        put(8, self.name.as_bytes());
        put(40, &TREE.to_le_bytes());
        if let Value::Node(children) = self.value {
            let count = (children.len() as u32).to_le_bytes();
            put(48, &count);
            put(52, &count);
        }
        put(64, &(size as u64).to_le_bytes());
        out
    }
}
