//! Path lookup in the model, as in namei(9), and the access checks on the way.

use super::nodes::{Id, Nodes, ROOT, What};
use kernel::Errno;

/// The caller: its credentials and directories.
#[derive(Clone)]
pub struct Person {
    pub uid: u32,
    pub gid: u32,
    pub current: Id,
    pub root: Id,
    /// True once the root was set, even to the same directory: from then on it is checked.
    pub rooted: bool,
}

/// The purpose of a lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Find an existing node.
    There,
    /// Find a name for something new.
    New,
    NewDirectory,
    /// Find a name to remove.
    Gone,
    /// Find a name to move a node to.
    Over,
    OverDirectory,
}

/// The result of a lookup.
pub struct Place {
    pub dir: Id,
    /// The last name; `None` for the root, `.` and `..`.
    pub name: Option<String>,
    pub node: Option<Id>,
}

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// The most links that one path may lead through, the longest path with its NUL, and the longest name.
const LINKS: u32 = 32;
const PATH: usize = 1024;
const NAME: usize = 255;

impl Nodes {
    /// Returns EACCES unless the node's mode lets this person do all of `wanted`, bits as in a mode.
    pub fn may(&self, who: &Person, id: Id, wanted: u32) -> Result<(), Errno> {
        let node = self.get(id);
        let class = match () {
            () if who.uid == 0 => return Ok(()),
            () if who.uid == node.uid => node.mode >> 6,
            // Every new node has its directory's group, so all have the root's.
            () if who.gid == 0 => node.mode >> 3,
            () => node.mode,
        };
        if class & wanted == wanted { Ok(()) } else { Err(Errno::EACCES) }
    }

    pub fn may_read(&self, who: &Person, id: Id) -> Result<(), Errno> {
        self.may(who, id, READ)
    }

    pub fn may_write(&self, who: &Person, id: Id) -> Result<(), Errno> {
        self.may(who, id, WRITE)
    }

    pub fn may_search(&self, who: &Person, id: Id) -> Result<(), Errno> {
        self.may(who, id, SEARCH)
    }

    /// Returns EPERM if, in a sticky directory, this person owns neither it nor the node, and so may not
    /// remove the node's name.
    pub fn may_take(&self, who: &Person, dir: Id, node: Id) -> Result<(), Errno> {
        let is_sticky = self.get(dir).mode & 0o1000 != 0;
        let owns = |id: Id| self.get(id).uid == who.uid;
        if who.uid != 0 && is_sticky && !owns(dir) && !owns(node) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Follows `path` from `base`.
    pub fn find(
        &self,
        who: &Person,
        base: Id,
        path: &str,
        want: Want,
        follow: bool,
    ) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut dir = if path.starts_with('/') { who.root } else { base };
        if !self.is_directory(dir) {
            return Err(Errno::ENOTDIR);
        }
        let (mut left, mut links) = (path.to_string(), 0);
        loop {
            let from = left.trim_start_matches('/').to_string();
            if from.is_empty() {
                return match want {
                    Want::There => Ok(Place { dir, name: None, node: Some(dir) }),
                    Want::New | Want::NewDirectory => Err(Errno::EEXIST),
                    Want::Gone | Want::Over | Want::OverDirectory => Err(Errno::EBUSY),
                };
            }
            let (name, after) = from.split_at(from.find('/').unwrap_or(from.len()));
            let has_slash = !after.is_empty();
            let is_last = after.bytes().all(|byte| byte == b'/');
            let node = self.component(who, &mut dir, name, is_last.then_some(want), has_slash)?;
            let place = |node| {
                let name = Some(name).filter(|&name| name != "." && name != "..");
                Ok(Place { dir, name: name.map(str::to_string), node })
            };
            let Some(node) = node else { return place(None) };
            if let What::Link(target) = &self.get(node).what
                && (has_slash || follow)
            {
                links += 1;
                if links > LINKS {
                    return Err(Errno::ELOOP);
                }
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if target.len() + after.len() + 1 >= PATH {
                    return Err(Errno::ENAMETOOLONG);
                }
                if target.starts_with('/') {
                    dir = who.root;
                }
                left = format!("{target}{after}");
                continue;
            }
            if has_slash && !self.is_directory(node) {
                return Err(Errno::ENOTDIR);
            }
            if is_last {
                return place(Some(node));
            }
            dir = node;
            left = after.to_string();
        }
    }

    /// Follows one name in `dir`; `last` is the purpose if it is the last of its path.
    fn component(
        &self,
        who: &Person,
        dir: &mut Id,
        name: &str,
        last: Option<Want>,
        has_slash: bool,
    ) -> Result<Option<Id>, Errno> {
        if name.len() > NAME {
            return Err(Errno::ENAMETOOLONG);
        }
        if name == ".." {
            if who.root != ROOT && !self.is_inside(*dir, who.root) {
                *dir = who.root;
            }
            if *dir == who.root || *dir == ROOT {
                return Ok(Some(*dir));
            }
        }
        self.may_search(who, *dir)?;
        if self.is_removed(*dir) {
            return Err(Errno::ENOENT);
        }
        let renames = matches!(last, Some(Want::Over | Want::OverDirectory));
        if name == ".." {
            let parent = self.directory(*dir).expect("it was searched").parent;
            return if renames { Err(Errno::EINVAL) } else { Ok(Some(parent)) };
        }
        if name == "." {
            return if renames { Err(Errno::EISDIR) } else { Ok(Some(*dir)) };
        }
        let node = self.named(*dir, name);
        match (last, node) {
            (Some(Want::Gone | Want::Over | Want::OverDirectory), Some(node)) => {
                self.may_write(who, *dir)?;
                self.may_take(who, *dir, node)?;
            }
            (None | Some(Want::There | Want::Gone), None) => return Err(Errno::ENOENT),
            (Some(want), None) => {
                self.may_write(who, *dir)?;
                let of_directory = matches!(want, Want::NewDirectory | Want::OverDirectory);
                if has_slash && !of_directory {
                    return Err(Errno::ENOENT);
                }
            }
            _ => {}
        }
        Ok(node)
    }
}
