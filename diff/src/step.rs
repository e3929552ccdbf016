//! What a step of a sequence is: who makes which call, with arguments that name what only a running
//! server knows: descriptors, process ids, addresses.

use std::fmt;

use embedded::Entry;

/// One line of a sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// The process that makes it. It connects when it is first named.
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
    /// What is done, in a word: the call's name as C knows it.
    pub fn name(&self) -> &'static str {
        match &self.act {
            Act::Call(call) => call.entry.alias,
            Act::Fork(_) => "fork",
            Act::Exec => "exec",
            Act::Exit => "exit",
        }
    }
}

/// What an actor does.
#[derive(Clone, Debug)]
pub enum Act {
    Call(Call),
    /// By prefork: the child is the actor of that name.
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
    /// The names its results get.
    pub slots: Slots,
}

/// Where the values to be named come from.
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

/// A number, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    /// What an earlier step was given.
    Slot(String),
    /// The process id of an actor, perhaps negative: its group.
    Pid {
        actor: String,
        is_negative: bool,
    },
    /// A port of this sequence's own.
    Port(u16),
}

/// What a pointer points to.
#[derive(Clone, Debug)]
pub enum Target {
    Null,
    /// An address where nothing is.
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
    /// An integer of so many bytes.
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

/// What results are put over, so that it shows how much of it a call has written.
pub const UNTOUCHED: u8 = 0xa5;

/// What is in a block, as far as not all of it can be equal: see [`crate::mask`].
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
    /// `struct itimerval` or `struct itimerspec`: of the value, minutes.
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
    /// What `net.route.rtable` says of an interface and of its addresses.
    Interfaces,
}

impl Part {
    /// Bytes it takes, given how long the directory's name is.
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

    /// Bytes it takes, if the directory had no name.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len(0)).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
