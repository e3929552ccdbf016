//! The steps of a sequence: an actor, a call, and arguments, which may name values that only a running
//! server knows: descriptors, process ids, addresses.

use std::fmt;

use embedded::Entry;

/// One line of a sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// The process that makes the step. It connects when it is first named.
    pub actor: String,
    pub act: Act,
    /// The line as it was written.
    pub text: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Step {
    /// Returns the name of the step's action: for a call, its name as C knows it.
    pub fn name(&self) -> &'static str {
        match &self.act {
            Act::Call(call) => call.entry.alias,
            Act::Fork(_) => "fork",
            Act::Exec => "exec",
            Act::Exit => "exit",
        }
    }
}

/// The action of an actor.
#[derive(Clone, Debug)]
pub enum Act {
    Call(Call),
    /// Forks by prefork: the child is the actor of that name.
    Fork(String),
    Exec,
    /// Hangs up.
    Exit,
}

/// A system call.
#[derive(Clone, Debug)]
pub struct Call {
    pub entry: &'static Entry,
    pub args: Vec<Arg>,
    /// The names that the results get.
    pub slots: Slots,
}

/// The source of the values to be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slots {
    /// The call's return values.
    Values(Vec<String>),
    /// The ints in the last thing an argument points to.
    Memory(Vec<String>),
}

/// An argument.
#[derive(Clone, Debug)]
pub enum Arg {
    Value(Value),
    Pointer(Target),
}

/// A number, or a name that stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    /// A value that an earlier step has named.
    Slot(String),
    /// The process id of an actor, or the negative of it, which means the process group.
    Pid {
        actor: String,
        is_negative: bool,
    },
    /// A port of this sequence's own.
    Port(u16),
}

/// The target of a pointer.
#[derive(Clone, Debug)]
pub enum Target {
    Null,
    /// An address where no memory is.
    Nowhere,
    Block(Block),
}

/// Memory of the client, compared after the call.
#[derive(Clone, Debug)]
pub struct Block {
    pub parts: Vec<Part>,
    pub layout: Layout,
}

/// A piece of a block.
#[derive(Clone, Debug)]
pub enum Part {
    /// An integer of `width` bytes.
    Int {
        value: Value,
        width: usize,
    },
    /// A port: two bytes, the high one first.
    NetworkPort(Value),
    Bytes(Vec<u8>),
    /// The sequence's own directory.
    Directory,
    /// A `fd_set` of 256 bits.
    Descriptors(Vec<Value>),
    /// Room for a result, filled with [`UNTOUCHED`].
    Room(usize),
    Pointer(Box<Target>),
}

/// The byte that fills room for results, so that it shows how much of the room a call has written.
pub const UNTOUCHED: u8 = 0xa5;

/// The structure of a block in which not all bytes can be equal: see [`crate::mask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Plain,
    /// `struct stat`
    Stat,
    /// `struct statvfs`
    Statvfs,
    /// `struct dirent`s
    Dirents,
    /// A time near now: two words of eight bytes.
    Now,
    /// `struct timeval`s
    Timeval,
    /// `struct itimerval` or `struct itimerspec`: only the minutes of the value are compared.
    Left,
    /// `struct rusage`
    Rusage,
    /// `struct sockaddr`
    Sockaddr,
    /// `struct kevent`s
    Kevents,
    /// `struct flock`
    Flock,
    /// A process id
    Pid,
    /// A control message
    Control,
    /// The data of `net.route.rtable` about an interface and its addresses.
    Interfaces,
}

impl Part {
    /// Returns the bytes the part takes, given the length of the directory's name.
    pub fn len(&self, directory: usize) -> usize {
        match self {
            Part::Int { width, .. } => *width,
            Part::NetworkPort(_) => 2,
            Part::Bytes(bytes) => bytes.len(),
            Part::Directory => directory,
            Part::Room(len) => *len,
            Part::Descriptors(_) => 32,
            Part::Pointer(_) => 8,
        }
    }
}

impl Block {
    pub fn plain(parts: Vec<Part>) -> Block {
        Block { parts, layout: Layout::Plain }
    }

    /// Returns the bytes the block takes, if the directory had no name.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len(0)).sum()
    }

    /// Returns `true` if the block has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
