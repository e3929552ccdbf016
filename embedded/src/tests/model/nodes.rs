//! The nodes of the model: the names that directories have for them, the contents of files, and their
//! costs. Nothing is counted on the way; every count is computed when it is asked for.

use std::collections::{BTreeMap, BTreeSet};

/// A node, by its index among all there ever were.
pub type Id = usize;

/// The root of the file system.
pub const ROOT: Id = 0;

/// The bytes that one more name of a file costs.
const NAME: u64 = 512;

/// The size of the pieces of a file, and the smallest room for a piece.
const PIECE: u64 = 64 * 1024;
const LEAST: u64 = 512;

/// The types that `stat` reports.
pub const DIRECTORY: u32 = 0o040_000;
pub const FILE: u32 = 0o100_000;
pub const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

pub struct Node {
    pub what: What,
    /// The permission bits only.
    pub mode: u32,
    pub uid: u32,
    /// The family that pays for the contents.
    pub family: usize,
}

pub enum What {
    File(Bytes),
    Directory(Directory),
    Link(String),
    /// A device of `/dev`.
    Device,
}

#[derive(Default)]
pub struct Directory {
    /// The entries, in the order in which they came.
    pub entries: Vec<Entry>,
    pub parent: Id,
    pub removed: bool,
}

#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub node: Id,
    /// The family that pays for the name; `None` for the first name of a file.
    pub paid: Option<usize>,
}

/// The contents of a file: all writes, in order, over zeros.
#[derive(Default)]
pub struct Bytes {
    pub size: u64,
    written: Vec<(u64, Vec<u8>)>,
    /// The room that each piece takes.
    rooms: BTreeMap<u64, u64>,
}

/// Returns the room for so many bytes of a piece.
fn room(bytes: u64) -> u64 {
    let mut room = LEAST;
    while room < bytes {
        room *= 2;
    }
    room
}

impl Bytes {
    pub fn get(&self, from: u64, len: u64) -> Vec<u8> {
        let end = from.saturating_add(len).min(self.size);
        let mut out = vec![0; end.saturating_sub(from) as usize];
        for (at, data) in &self.written {
            let (first, last) = (from.max(*at), end.min(at + data.len() as u64));
            if first < last {
                let there = &data[(first - at) as usize..(last - at) as usize];
                out[(first - from) as usize..(last - from) as usize].copy_from_slice(there);
            }
        }
        out
    }

    /// Returns the rooms of all pieces with `len` bytes at `from`.
    fn rooms_with(&self, from: u64, len: u64) -> BTreeMap<u64, u64> {
        let mut rooms = self.rooms.clone();
        let mut at = from;
        while at < from + len {
            let piece = at / PIECE;
            let end = (from + len).min((piece + 1) * PIECE);
            let needed = room(end - piece * PIECE);
            let there = rooms.entry(piece).or_default();
            *there = needed.max(*there);
            at = end;
        }
        rooms
    }

    /// Returns the additional room for `len` bytes at `from`.
    pub fn grows(&self, from: u64, len: u64) -> u64 {
        self.rooms_with(from, len).values().sum::<u64>() - self.held()
    }

    pub fn put(&mut self, from: u64, data: &[u8]) {
        self.rooms = self.rooms_with(from, data.len() as u64);
        self.written.push((from, data.to_vec()));
        self.size = self.size.max(from + data.len() as u64);
    }

    pub fn cut(&mut self, size: u64) {
        self.size = size;
        for (at, data) in &mut self.written {
            data.truncate(size.saturating_sub(*at) as usize);
        }
        self.rooms.retain(|piece, _| piece * PIECE < size);
        if let Some((piece, there)) = self.rooms.last_key_value() {
            let (piece, left) = (*piece, room((size - piece * PIECE).min(PIECE)));
            self.rooms.insert(piece, left.min(*there));
        }
    }

    fn held(&self) -> u64 {
        self.rooms.values().sum()
    }
}

/// All nodes there ever were.
pub struct Nodes(Vec<Node>);

impl Nodes {
    /// Returns the nodes that a kernel begins with.
    pub fn new() -> Nodes {
        let mut nodes = Nodes(Vec::new());
        let root = nodes.add(What::Directory(Directory::default()), 0o755, 0, 0);
        let make = |nodes: &mut Nodes, dir, name: &str, what, mode| {
            let node = nodes.add(what, mode, 0, 0);
            nodes.enter(dir, name, node, None);
            node
        };
        let directory = || What::Directory(Directory::default());
        make(&mut nodes, root, "tmp", directory(), 0o1777);
        let dev = make(&mut nodes, root, "dev", directory(), 0o755);
        for name in ["null", "zero", "random", "urandom"] {
            make(&mut nodes, dev, name, What::Device, 0o666);
        }
        nodes
    }

    pub fn get(&self, id: Id) -> &Node {
        &self.0[id]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.0[id]
    }

    pub fn add(&mut self, what: What, mode: u32, uid: u32, family: usize) -> Id {
        self.0.push(Node { what, mode, uid, family });
        self.0.len() - 1
    }

    pub fn directory(&self, id: Id) -> Option<&Directory> {
        match &self.0[id].what {
            What::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub fn directory_mut(&mut self, id: Id) -> &mut Directory {
        match &mut self.0[id].what {
            What::Directory(directory) => directory,
            _ => panic!("node {id} is no directory"),
        }
    }

    pub fn is_directory(&self, id: Id) -> bool {
        self.directory(id).is_some()
    }

    pub fn is_removed(&self, id: Id) -> bool {
        self.directory(id).is_some_and(|directory| directory.removed)
    }

    pub fn is_empty(&self, id: Id) -> bool {
        self.directory(id).is_none_or(|directory| directory.entries.is_empty())
    }

    pub fn named(&self, dir: Id, name: &str) -> Option<Id> {
        let entries = &self.directory(dir)?.entries;
        entries.iter().find(|entry| entry.name == name).map(|entry| entry.node)
    }

    /// Gives a node a name.
    pub fn enter(&mut self, dir: Id, name: &str, node: Id, paid: Option<usize>) {
        if let What::Directory(directory) = &mut self.0[node].what {
            directory.parent = dir;
        }
        let entry = Entry { name: name.into(), node, paid };
        self.directory_mut(dir).entries.push(entry);
    }

    /// Removes a name; a directory that has lost its name takes no entries any more.
    pub fn leave(&mut self, dir: Id, name: &str) -> Option<Entry> {
        let entries = &mut self.directory_mut(dir).entries;
        let at = entries.iter().position(|entry| entry.name == name)?;
        Some(entries.remove(at))
    }

    /// Returns `true` if `dir` is `other` or below it.
    pub fn is_inside(&self, mut dir: Id, other: Id) -> bool {
        while dir != other {
            if dir == ROOT || self.is_removed(dir) {
                return false;
            }
            dir = self.directory(dir).expect("a directory is in one").parent;
        }
        true
    }

    /// Returns the number of links of a node: the names that lead to it; for a directory, `.` and the `..`
    /// in its subdirectories included.
    pub fn links(&self, id: Id) -> u64 {
        let named = |entry: &&Entry| match self.directory(id) {
            Some(_) => false,
            None => entry.node == id,
        };
        let Some(directory) = self.directory(id) else {
            let all = self.0.iter().filter_map(|node| match &node.what {
                What::Directory(directory) => Some(&directory.entries),
                _ => None,
            });
            return all.flatten().filter(named).count() as u64;
        };
        if directory.removed {
            return 0;
        }
        let below = directory.entries.iter().filter(|entry| self.is_directory(entry.node));
        2 + below.count() as u64
    }

    /// Returns the type of a node.
    pub fn kind(&self, id: Id) -> u32 {
        match self.0[id].what {
            What::File(_) => FILE,
            What::Directory(_) => DIRECTORY,
            What::Link(_) => LINK,
            What::Device => CHARACTER,
        }
    }

    pub fn size(&self, id: Id) -> u64 {
        match &self.0[id].what {
            What::File(bytes) => bytes.size,
            What::Directory(directory) => 48 * directory.entries.len() as u64,
            What::Link(target) => target.len() as u64,
            What::Device => 0,
        }
    }

    /// Returns all nodes that can be reached from the root and from what is held open.
    pub fn alive(&self, held: impl Iterator<Item = Id>) -> BTreeSet<Id> {
        let mut left: Vec<Id> = held.chain([ROOT]).collect();
        let mut alive = BTreeSet::new();
        while let Some(id) = left.pop() {
            if alive.insert(id)
                && let Some(directory) = self.directory(id)
            {
                left.extend(directory.entries.iter().map(|entry| entry.node));
            }
        }
        alive
    }

    /// Returns the bytes these nodes take, only those of one family if given.
    pub fn bytes(&self, alive: &BTreeSet<Id>, family: Option<usize>) -> u64 {
        let pays = |who: usize| family.is_none_or(|family| family == who);
        let mut sum = 0;
        for &id in alive {
            let node = &self.0[id];
            sum += match &node.what {
                What::File(bytes) if pays(node.family) => bytes.held(),
                What::Link(target) if pays(node.family) => target.len() as u64,
                What::Directory(directory) => {
                    let paid = directory.entries.iter().filter_map(|entry| entry.paid);
                    NAME * paid.filter(|&who| pays(who)).count() as u64
                }
                _ => 0,
            };
        }
        sum
    }
}
