//! The nodes of the sysctl tree.
//!
//! Sources: NetBSD `sys/kern/{init_sysctl_base,init_sysctl,subr_cprng,kern_uidinfo}.c`,
//! `sys/uvm/uvm_meter.c`, `sys/secmodel/suser/secmodel_suser.c`; sysctl(7).

use super::super::abi::{IOV_MAX, timespec};
use super::super::call::Result;
use super::super::credentials::GROUPS_MAX;
use super::super::pipe::MOST_LARGE;
use super::super::process::Proc;
use super::super::sockets::spaces;
use super::{Node, TYPE_INT, TYPE_NODE, TYPE_STRING, TYPE_STRUCT, Value};
use super::{files, pcbs, processes, routes};
use kernel::Errno;

/// The root of the tree.
pub(super) static TOP: Node = node(0, "", "", Value::Node(TREE));

pub(super) const fn node(
    number: i32,
    name: &'static str,
    what: &'static str,
    value: Value,
) -> Node {
    assert!(name.len() < 32, "a name and its NUL have 32 bytes");
    Node { number, name, what, value }
}

/// The first of the numbers that NetBSD assigns as nodes are made (`CREATE_BASE`): clients use the names.
const MADE: i32 = 1024;

static TREE: &[Node] = &[
    node(1, "kern", "The kernel", Value::Node(KERN)),
    node(2, "vm", "Memory", Value::Node(&[])),
    node(3, "vfs", "File systems", Value::Node(VFS)),
    node(4, "net", "Networks", Value::Node(NET)),
    node(5, "debug", "For debugging", Value::Node(&[])),
    node(6, "hw", "The machine", Value::Node(HW)),
    node(7, "machdep", "What only this kind of machine has", Value::Node(&[])),
    node(8, "user", "For the C library to answer", Value::Node(&[])),
    node(9, "ddb", "The kernel's debugger", Value::Node(&[])),
    node(10, "proc", "Processes", Value::Node(PROC)),
    node(11, "vendor", "For vendors", Value::Node(&[])),
    node(12, "emul", "Emulations", Value::Node(&[])),
    node(13, "security", "Security", Value::Node(SECURITY)),
];

static KERN: &[Node] = &[
    node(1, "ostype", "What system it is", Value::Text(|system| &system.identity.ostype)),
    node(2, "osrelease", "Its release", Value::Text(|system| &system.identity.osrelease)),
    node(3, "osrevision", "Its release as a number", Value::Int(super::super::OSREVISION)),
    node(4, "version", "What kernel it is", Value::Text(|system| &system.version)),
    node(
        5,
        "maxvnodes",
        "Files there may be",
        Value::Number(|proc| int(proc.system.limits.inodes)),
    ),
    node(
        6,
        "maxproc",
        "Processes there may be",
        Value::Number(|proc| int(proc.system.limits.processes)),
    ),
    node(
        7,
        "maxfiles",
        "Files that may be open",
        Value::Number(|proc| int(proc.system.limits.files)),
    ),
    node(8, "argmax", "Bytes of arguments for execve(2)", Value::Int(256 * 1024)),
    node(9, "securelevel", "What is held back from the superuser: nothing", Value::Int(-1)),
    node(10, "hostname", "Name of this host", Value::Variable(|set| &set.hostname)),
    node(11, "hostid", "Number of this host", Value::Setting(|set| &set.host_id)),
    node(
        12,
        "clockrate",
        "How often clocks tick",
        Value::Bytes(TYPE_STRUCT, 20, |_, _| Ok(clock_rate())),
    ),
    node(17, "posix1version", "The POSIX.1 it is made for", Value::Int(200_112)),
    node(18, "ngroups", "Groups beside the effective one", Value::Int(GROUPS_MAX as i32)),
    node(19, "job_control", "There are process groups", Value::Int(1)),
    node(20, "saved_ids", "There are saved users and groups", Value::Int(1)),
    node(22, "domainname", "Domain of this host for YP", Value::Variable(|set| &set.domainname)),
    node(23, "maxpartitions", "Partitions a disk may have", Value::Int(16)),
    node(24, "rawpartition", "The partition that is the whole disk", Value::Int(3)),
    node(32, "fsync", "There is fsync(2)", Value::Int(1)),
    node(37, "synchronized_io", "There is fdatasync(2)", Value::Int(1)),
    node(38, "iov_max", "Buffers a call may have", Value::Int(IOV_MAX as i32)),
    node(44, "login_name_max", "Bytes of a login name, its NUL included", Value::Int(17)),
    node(47, "proc2", "Processes", Value::Asked(super::TYPE_NODE, 0, processes::list)),
    node(
        48,
        "proc_args",
        "Arguments of a process",
        Value::Asked(super::TYPE_NODE, 0, processes::arguments),
    ),
    node(
        56,
        "pipe",
        "Pipes",
        Value::Node(&[
            node(3, "maxbigpipes", "Pipes that may hold more", Value::Int(MOST_LARGE as i32)),
            node(
                4,
                "nbigpipes",
                "Pipes that do",
                Value::Number(|proc| int(proc.system.counters.large_pipes.get())),
            ),
        ]),
    ),
    node(
        58,
        "sbmax",
        "Bytes a socket's buffer may have",
        Value::Bytes(TYPE_INT, 4, |_, _| Ok((256 * 1024i32).to_le_bytes().into())),
    ),
    node(60, "monotonic_clock", "The POSIX.1 of the monotonic clock", Value::Int(200_112)),
    node(61, "urandom", "A random number", Value::Bytes(TYPE_INT, 4, |_, _| random(4))),
    node(77, "file2", "Open files", Value::Asked(TYPE_STRUCT, 0, files::list)),
    node(
        80,
        "hardclock_ticks",
        "Ticks of the clock since the kernel began",
        Value::Number(|proc| proc.system.tick() as i32),
    ),
    node(81, "arandom", "Random bytes", Value::Bytes(TYPE_INT, 4, |_, room| arandom(room))),
    node(
        83,
        "boottime",
        "When the kernel began",
        Value::Bytes(TYPE_STRUCT, 16, |proc, _| Ok(timespec(proc.system.boot_time).into())),
    ),
    node(MADE, "uidinfo", "What one's user has", Value::Node(USER)),
];

static USER: &[Node] = &[node(
    MADE + 1,
    "proccnt",
    "Processes",
    Value::Quad(|proc| proc.system.uidinfo.count(proc.credentials().uid)),
)];

static HW: &[Node] = &[
    node(1, "machine", "Kind of machine", Value::Text(|system| &system.identity.machine)),
    node(2, "model", "Its model", Value::Text(|_| "rumpring (virtual)")),
    node(3, "ncpu", "Processors", Value::Number(|proc| proc.system.cpus)),
    node(4, "byteorder", "How bytes make up a number", Value::Int(1234)),
    node(5, "physmem", "Bytes of memory", Value::Number(|proc| small(memory(proc)))),
    node(6, "usermem", "Bytes of memory left", Value::Number(|proc| small(left(proc)))),
    node(7, "pagesize", "Bytes of a page", Value::Int(4096)),
    node(8, "disknames", "Disks: none", Value::Bytes(TYPE_STRING, 0, |_, _| Ok(vec![]))),
    node(9, "iostats", "What disks have done", Value::Bytes(TYPE_STRUCT, 0, |_, _| Ok(vec![]))),
    node(10, "machine_arch", "Kind of processor", Value::Text(|_| "x86_64")),
    node(11, "alignbytes", "Low bits of an address that fits all types", Value::Int(7)),
    node(13, "physmem64", "Bytes of memory", Value::Quad(memory)),
    node(14, "usermem64", "Bytes of memory left", Value::Quad(left)),
    node(15, "iostatnames", "Names of those", Value::Bytes(TYPE_STRING, 0, |_, _| Ok(vec![]))),
    node(16, "ncpuonline", "Processors that run", Value::Number(|proc| proc.system.cpus)),
];

static VFS: &[Node] = &[node(
    0,
    "generic",
    "Of any of them",
    Value::Node(&[node(MADE + 12, "fstypes", "Their kinds", Value::Text(|_| "tmpfs"))]),
)];

static IP: &[Node] = &[
    node(1, "forwarding", "Packets are passed on to other hosts", Value::Int(0)),
    node(
        10,
        "anonportmin",
        "The first port that is chosen for a socket",
        Value::Number(|_| spaces::chosen_from().into()),
    ),
    node(11, "anonportmax", "The last", Value::Int(u16::MAX as i32)),
];

static NET: &[Node] = &[
    node(
        1,
        "local",
        "Local sockets",
        Value::Node(&[
            node(1, "stream", "Streams", Value::Node(STREAMS)),
            node(2, "dgram", "Datagrams", Value::Node(DATAGRAMS)),
            node(5, "seqpacket", "Records in sequence", Value::Node(SEQUENCES)),
        ]),
    ),
    node(
        2,
        "inet",
        "IPv4",
        Value::Node(&[
            node(0, "ip", "IP", Value::Node(IP)),
            node(6, "tcp", "TCP", Value::Node(TCP)),
            node(17, "udp", "UDP", Value::Node(UDP)),
        ]),
    ),
    node(
        24,
        "inet6",
        "IPv6",
        Value::Node(&[
            node(6, "tcp6", "TCP", Value::Node(TCP6)),
            node(17, "udp6", "UDP", Value::Node(UDP6)),
        ]),
    ),
    node(
        34,
        "route",
        "Interfaces",
        Value::Node(&[node(
            0,
            "rtable",
            "The interfaces and their addresses",
            Value::Asked(TYPE_NODE, 0, routes::list),
        )]),
    ),
];

const SEND: &str = "Bytes a new socket may have under way";
const RECEIVE: &str = "Bytes that may wait in a new socket";

/// Returns a node for the list of sockets of a kind, with a number of its own.
const fn sockets(number: i32) -> Node {
    node(MADE + 5 + number, "pcblist", "Sockets", Value::Asked(TYPE_STRUCT, 0, pcbs::list))
}

static STREAMS: &[Node] = &[sockets(0)];
static SEQUENCES: &[Node] = &[sockets(1)];
static DATAGRAMS: &[Node] = &[sockets(2)];
static TCP6: &[Node] = &[sockets(3)];

static TCP: &[Node] = &[
    node(2, "sendspace", SEND, Value::Number(|_| spaces::tcp()[0] as i32)),
    node(3, "recvspace", RECEIVE, Value::Number(|_| spaces::tcp()[1] as i32)),
    sockets(4),
];

static UDP: &[Node] = &[
    node(2, "sendspace", SEND, Value::Number(|_| spaces::udp()[0] as i32)),
    node(3, "recvspace", RECEIVE, Value::Number(|_| spaces::udp()[1] as i32)),
    sockets(5),
];

static UDP6: &[Node] = &[
    node(1, "sendspace", SEND, Value::Number(|_| spaces::udp6()[0] as i32)),
    node(2, "recvspace", RECEIVE, Value::Number(|_| spaces::udp6()[1] as i32)),
    sockets(6),
];

static PROC: &[Node] =
    &[node(i32::MAX, "curproc", "One process", Value::Anybody(processes::SETTINGS))];

static SECURITY: &[Node] =
    &[node(MADE + 2, "models", "Who may do what", Value::Node(SECURITY_MODELS))];

static SECURITY_MODELS: &[Node] =
    &[node(MADE + 3, "suser", "The superuser may do all", Value::Node(SUPERUSER))];

static SUPERUSER: &[Node] =
    &[node(MADE + 4, "name", "Its name", Value::Text(|_| "Traditional NetBSD: Superuser"))];

fn int(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Converts a number of bytes to an `unsigned int`.
fn small(bytes: u64) -> i32 {
    bytes.min(u32::MAX.into()) as i32
}

/// Returns what stands in for the size of memory: the most bytes that files may have.
fn memory(proc: &Proc) -> u64 {
    proc.system.limits.bytes
}

fn left(proc: &Proc) -> u64 {
    memory(proc).saturating_sub(proc.system.counters.bytes.get())
}

/// Encodes a `struct clockinfo`: hz, tick, tickadj, stathz, profhz.
fn clock_rate() -> Vec<u8> {
    [100, 10_000, 40, 100, 100].iter().flat_map(|part: &i32| part.to_le_bytes()).collect()
}

fn random(len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).map_err(|_| Errno::EIO)?;
    Ok(bytes)
}

/// Returns as many random bytes as there is room for.
fn arandom(room: usize) -> Result<Vec<u8>, Errno> {
    if room > 256 {
        return Err(Errno::E2BIG);
    }
    random(room)
}
