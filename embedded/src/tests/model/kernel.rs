//! The model of a kernel: guests, their open files, and the result of each step.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::{Limits, Usage};
use super::nodes::{Directory, Id, Nodes, ROOT, What};
use super::paths::{Person, Place, Want};
use super::steps::{At, Op, Step, here, pattern};
use kernel::Errno;

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Number(i64),
    Bytes(Vec<u8>),
    Stat(Stat),
    /// The entries of a directory: name, type and node of each.
    Names(Vec<(String, u32, u64)>),
}

/// The result of `stat`. The node is a place in the model or a kernel's inode number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub node: u64,
    pub mode: u32,
    pub links: u64,
    pub uid: u32,
    pub size: u64,
}

pub const DONE: Result<Answer, Errno> = Ok(Answer::Number(0));

pub struct Guest {
    pub person: Person,
    pub family: usize,
    pub umask: u32,
    /// The indices of open files, by descriptor.
    pub descriptors: BTreeMap<u64, usize>,
}

/// An open file; the console has no node.
pub struct Open {
    pub node: Option<Id>,
    pub offset: i64,
    pub flags: u64,
}

pub const READS: u64 = 1;
pub const WRITES: u64 = 2;
pub const APPENDS: u64 = 8;

pub struct Model {
    pub nodes: Nodes,
    pub limits: Limits,
    guests: Vec<Option<Guest>>,
    pub open: Vec<Open>,
}

impl Model {
    /// Makes a kernel with so many guests, each a family, that have used their console.
    pub fn new(limits: &Limits, guests: usize) -> Model {
        let mut model = Model {
            nodes: Nodes::new(),
            limits: limits.clone(),
            guests: Vec::new(),
            open: Vec::new(),
        };
        for family in 0..guests {
            model.open.push(Open { node: None, offset: 0, flags: WRITES });
            let console = model.open.len() - 1;
            model.guests.push(Some(Guest {
                person: Person { uid: 0, gid: 0, current: ROOT, root: ROOT, rooted: false },
                // Family 0 is the system.
                family: family + 1,
                umask: 0o022,
                descriptors: (0..3).map(|fd| (fd, console)).collect(),
            }));
        }
        model
    }

    /// Returns `true` if this guest exists.
    pub fn has(&self, who: usize) -> bool {
        self.guests.get(who).is_some_and(Option::is_some)
    }

    /// Returns the number of guests there ever were.
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    pub fn guest(&self, who: usize) -> &Guest {
        self.guests[who].as_ref().expect("a guest that is there")
    }

    pub fn guest_mut(&mut self, who: usize) -> &mut Guest {
        self.guests[who].as_mut().expect("a guest that is there")
    }

    /// Returns the descriptors of a guest on the file system.
    pub fn descriptors(&self, who: usize) -> Vec<u64> {
        let on_node = |open: &usize| self.open[*open].node.is_some();
        let all = self.guest(who).descriptors.iter();
        all.filter(|(_, open)| on_node(open)).map(|(fd, _)| *fd).collect()
    }

    /// Returns what the kernel should hold.
    pub fn usage(&self) -> Usage {
        let alive = self.alive();
        Usage {
            processes: self.guests.iter().flatten().count() as u64,
            files: self.files(),
            inodes: alive.len() as u64,
            bytes: self.nodes.bytes(&alive, None),
            ports: 0,
            flights: 0,
        }
    }

    pub fn alive(&self) -> BTreeSet<Id> {
        let guests = || self.guests.iter().flatten();
        let places = guests().flat_map(|guest| [guest.person.current, guest.person.root]);
        let open = guests().flat_map(|guest| guest.descriptors.values());
        self.nodes.alive(places.chain(open.filter_map(|&open| self.open[open].node)))
    }

    /// Returns the number of open files that have a descriptor.
    pub fn files(&self) -> u64 {
        let all = self.guests.iter().flatten().flat_map(|guest| guest.descriptors.values());
        all.collect::<BTreeSet<_>>().len() as u64
    }

    /// Returns ENOSPC if a family may not have so many bytes more.
    pub fn pay(&self, family: usize, bytes: u64) -> Result<(), Errno> {
        let alive = self.alive();
        let own = self.nodes.bytes(&alive, Some(family)) + bytes;
        let all = self.nodes.bytes(&alive, None) + bytes;
        let Limits { bytes: limit, bytes_per_family: most, .. } = self.limits;
        // A family gets only a little of the last quarter.
        let fits = own <= most
            && all <= limit
            && (most >= limit || all <= limit - limit / 4 || own <= 1 + (limit - all) / 256);
        if fits { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Returns the result of a step of an existing guest.
    pub fn step(&mut self, step: &Step) -> Result<Answer, Errno> {
        let who = step.who;
        match &step.op {
            Op::Open { at, flags, mode } => self.open_path(who, at, *flags, *mode as u32),
            Op::Close(fd) => {
                self.guest_mut(who).descriptors.remove(fd).ok_or(Errno::EBADF)?;
                DONE
            }
            Op::Dup(fd) => {
                let open = self.open_of(who, *fd)?;
                self.hand_out(who, open)
            }
            Op::Dup2(from, to) => self.dup2(who, *from, *to),
            Op::Read { fd, len, at } => self.read(who, *fd, *len, *at),
            Op::Write { fd, len, fill, at } => self.write(who, *fd, &pattern(*fill, *len), *at),
            Op::Seek { fd, by, whence } => self.seek(who, *fd, *by, *whence),
            Op::Append(fd, on) => {
                let open = self.open_of(who, *fd)?;
                let flags = &mut self.open[open].flags;
                *flags = if *on { *flags | APPENDS } else { *flags & !APPENDS };
                DONE
            }
            Op::Truncate { path, len } => self.truncate(who, path, *len),
            Op::CutOpen { fd, len } => self.cut_open(who, *fd, *len),
            Op::MakeDirectory(at, mode) => {
                let place = self.find(who, at, Want::NewDirectory, false)?;
                let what = What::Directory(Directory::default());
                self.make(who, &place, what, *mode as u32 & 0o777)?;
                DONE
            }
            Op::RemoveDirectory(at) => self.remove(who, at, true),
            Op::Unlink(at) => self.remove(who, at, false),
            Op::Link { old, new, follow } => self.link(who, old, new, *follow),
            Op::Symlink { target, at } => {
                check_length(&here(target))?;
                let place = self.find(who, at, Want::New, false)?;
                self.make(who, &place, What::Link(target.clone()), 0o777)?;
                DONE
            }
            Op::ReadLink(at) => {
                let node = self.there(who, at, false)?;
                let What::Link(target) = &self.nodes.get(node).what else {
                    return Err(Errno::EINVAL);
                };
                Ok(Answer::Bytes(target.clone().into_bytes()))
            }
            Op::Rename { old, new } => self.rename(who, old, new, false),
            Op::PosixRename { old, new } => self.rename(who, &here(old), &here(new), true),
            Op::Stat { at, follow } => {
                let node = self.there(who, at, *follow)?;
                Ok(Answer::Stat(self.stat(node)))
            }
            Op::StatOpen(fd) => {
                let open = self.open_of(who, *fd)?;
                self.open[open].node.map_or(DONE, |node| Ok(Answer::Stat(self.stat(node))))
            }
            Op::List(fd) => self.list(who, *fd),
            Op::Chdir(path) => {
                let node = self.directory_at(who, path)?;
                self.guest_mut(who).person.current = node;
                DONE
            }
            Op::ChdirOpen(fd) => self.chdir_open(who, *fd),
            Op::Chroot(path) => self.chroot(who, path),
            Op::WhereAmI => self.where_am_i(who),
            Op::Chmod(path, mode) => self.chmod(who, path, *mode as u32),
            Op::Umask(mask) => {
                let before = std::mem::replace(&mut self.guest_mut(who).umask, *mask as u32);
                Ok(Answer::Number(before.into()))
            }
            Op::Fork => {
                let Guest { person, family, umask, descriptors } = self.guest(who);
                let (person, descriptors) = (person.clone(), descriptors.clone());
                let child = Guest { person, family: *family, umask: *umask, descriptors };
                self.guests.push(Some(child));
                DONE
            }
            Op::Become { uid, gid } => {
                let person = &mut self.guest_mut(who).person;
                match person.uid {
                    0 => (person.uid, person.gid) = (*uid, *gid),
                    // Becoming the present user changes nothing.
                    own if own == *uid => {}
                    _ => return Err(Errno::EPERM),
                }
                DONE
            }
            Op::Exit => {
                self.guests[who] = None;
                DONE
            }
        }
    }

    pub fn open_of(&self, who: usize, fd: u64) -> Result<usize, Errno> {
        self.guest(who).descriptors.get(&fd).copied().ok_or(Errno::EBADF)
    }

    /// Returns the open file of a descriptor, which must be on the file system.
    pub fn on_node(&self, who: usize, fd: u64) -> Result<(usize, Id), Errno> {
        let open = self.open_of(who, fd)?;
        Ok((open, self.open[open].node.ok_or(Errno::EINVAL)?))
    }

    pub fn free_descriptor(&self, who: usize) -> Result<u64, Errno> {
        let taken = &self.guest(who).descriptors;
        let free = (0..self.limits.files_per_process as u64).find(|fd| !taken.contains_key(fd));
        free.ok_or(Errno::EMFILE)
    }

    pub fn hand_out(&mut self, who: usize, open: usize) -> Result<Answer, Errno> {
        let fd = self.free_descriptor(who)?;
        self.guest_mut(who).descriptors.insert(fd, open);
        Ok(Answer::Number(fd as i64))
    }

    pub fn find(&self, who: usize, at: &At, want: Want, follow: bool) -> Result<Place, Errno> {
        check_length(at)?;
        let person = &self.guest(who).person;
        let base = match at.dir {
            Some(fd) => self.on_node(who, fd)?.1,
            None => person.current,
        };
        self.nodes.find(person, base, &at.path, want, follow)
    }

    pub fn there(&self, who: usize, at: &At, follow: bool) -> Result<Id, Errno> {
        self.find(who, at, Want::There, follow)?.node.ok_or(Errno::ENOENT)
    }

    pub fn stat(&self, node: Id) -> Stat {
        Stat {
            node: node as u64,
            mode: self.nodes.kind(node) | self.nodes.get(node).mode,
            links: self.nodes.links(node),
            uid: self.nodes.get(node).uid,
            size: self.nodes.size(node),
        }
    }
}

/// Checks the length of a path, which is copied in before anything else is checked.
pub fn check_length(at: &At) -> Result<(), Errno> {
    if at.path.len() < 1024 { Ok(()) } else { Err(Errno::ENAMETOOLONG) }
}
