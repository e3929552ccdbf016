//! `kern.file2`: the open files, as sockstat(1) and fstat(1) read them.
//!
//! Kernel addresses are not disclosed; a socket's number stands for its address, as in the lists of
//! sockets. The user who opened a file is not known.
//!
//! Source: NetBSD `sys/kern/kern_descrip.c` (`sysctl_kern_file2`, `fill_file`), `sys/sys/sysctl.h`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::System;
use super::super::abi::mode;
use super::super::call::{Result, SyscallContext};
use super::super::file::OpenFile;
use super::super::process::Proc;
use super::elements::elements;
use super::{Request, generic, query};
use kernel::Errno;

/// The size of `struct kinfo_file`.
const ENTRY: usize = 120;
/// The entries to have room for beyond the present number, when the client asks for the size
/// (`KERN_FILESLOP`).
const SLOP: u64 = 10;

/// `KERN_FILE_BYFILE`, `KERN_FILE_BYPID`
const BY_FILE: i32 = 1;
const BY_PID: i32 = 2;

/// A descriptor of a process.
struct Descriptor {
    pid: i32,
    fd: i32,
    closes_on_exec: bool,
    file: Arc<OpenFile>,
}

/// `kern.file2.OP.ARG.SIZE.COUNT`: lists each file once, or each descriptor of a process or of all.
pub(super) fn list(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    at: usize,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let &[op, arg, size, count] = match &name[at..] {
        [generic::QUERY] => return query(run, &[], request, needed),
        rest => <&[i32; 4]>::try_from(rest).map_err(|_| Errno::EINVAL)?,
    };
    // A size is a size_t, so a negative one is very large.
    let size = size as i64 as u64;
    if size == 0 || count < 0 {
        return Err(Errno::EINVAL.into());
    }
    match (op, arg) {
        (BY_FILE, 0) | (BY_PID, -1..) => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    let mut found = descriptors(run.system());
    let mut counts: HashMap<*const OpenFile, u32> = HashMap::new();
    for descriptor in &found {
        *counts.entry(Arc::as_ptr(&descriptor.file)).or_default() += 1;
    }
    let mut seen = HashSet::new();
    match op {
        BY_FILE => found.retain(|descriptor| seen.insert(Arc::as_ptr(&descriptor.file))),
        _ => found.retain(|descriptor| arg <= 0 || descriptor.pid == arg),
    }
    elements(run, request, needed, &found, (size, count, SLOP), |descriptor| {
        entry(descriptor, counts[&Arc::as_ptr(&descriptor.file)])
    })
}

/// Returns the descriptors of all processes, in order.
fn descriptors(system: &System) -> Vec<Descriptor> {
    let mut tasks: Vec<_> = system.processes.all().collect();
    tasks.sort_unstable_by_key(|proc| proc.pid);
    let of = |proc: &Arc<Proc>| {
        let pid = proc.pid;
        proc.files.listed().into_iter().map(move |(fd, file, closes_on_exec)| Descriptor {
            pid,
            fd,
            closes_on_exec,
            file,
        })
    };
    tasks.iter().flat_map(of).collect()
}

/// `DTYPE_*`
mod kind {
    pub const VNODE: u32 = 1;
    pub const SOCKET: u32 = 2;
    pub const PIPE: u32 = 3;
    pub const KQUEUE: u32 = 4;
    pub const OTHER: u32 = 5;
}

/// Encodes a `struct kinfo_file`, as far as this kernel knows the values. NetBSD: `fill_file`.
fn entry(descriptor: &Descriptor, count: u32) -> [u8; ENTRY] {
    let mut out = [0; ENTRY];
    let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
    let Descriptor { pid, fd, closes_on_exec, file } = descriptor;
    let stat = file.ops.stat().unwrap_or_default();
    let (kind, data) = match (file.ops.inode(), file.ops.socket()) {
        (Some(_), _) => (kind::VNODE, 0),
        (_, Some(socket)) => (kind::SOCKET, socket.number()),
        _ if file.ops.kqueue().is_some() => (kind::KQUEUE, 0),
        _ if stat.mode & mode::TYPE == mode::FIFO => (kind::PIPE, 0),
        _ => (kind::OTHER, 0),
    };
    put(8, &file.flags().to_le_bytes());
    put(16, &kind.to_le_bytes());
    put(20, &count.to_le_bytes());
    put(56, &file.offset.get().to_le_bytes());
    put(64, &data.to_le_bytes());
    if kind == kind::VNODE {
        put(80, &stat.size.to_le_bytes());
        put(88, &vnode_type(stat.mode).to_le_bytes());
    }
    put(104, &pid.to_le_bytes());
    put(108, &fd.to_le_bytes());
    put(112, &u32::from(*closes_on_exec).to_le_bytes());
    out
}

/// `enum vtype`
fn vnode_type(file: u32) -> u32 {
    match file & mode::TYPE {
        mode::REGULAR => 1,
        mode::DIRECTORY => 2,
        mode::BLOCK => 3,
        mode::CHARACTER => 4,
        mode::LINK => 5,
        mode::SOCKET => 6,
        mode::FIFO => 7,
        _ => 0,
    }
}
