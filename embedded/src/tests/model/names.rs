//! The model's calls on names, and on current directories.

use super::kernel::{Answer, DONE, Guest, Model, READS, check_length};
use super::nodes::{Entry, Id, ROOT, What};
use super::paths::{Person, Place, Want};
use super::steps::{At, here};
use kernel::Errno;

impl Model {
    pub fn make(&mut self, who: usize, place: &Place, what: What, mode: u32) -> Result<Id, Errno> {
        let (Some(name), None) = (&place.name, place.node) else { return Err(Errno::EEXIST) };
        if self.alive().len() as u64 >= self.limits.inodes {
            return Err(Errno::ENOSPC);
        }
        let Guest { person, family, umask, .. } = self.guest(who);
        let (uid, family, mode) = (person.uid, *family, mode & !umask);
        if let What::Link(target) = &what {
            self.pay(family, target.len() as u64)?;
        }
        let node = self.nodes.add(what, mode, uid, family);
        self.nodes.enter(place.dir, name, node, None);
        Ok(node)
    }

    pub fn remove(&mut self, who: usize, at: &At, directory: bool) -> Result<Answer, Errno> {
        let place = self.find(who, at, Want::Gone, false)?;
        let node = place.node.ok_or(Errno::ENOENT)?;
        if node == ROOT {
            return Err(Errno::EBUSY);
        }
        if node == place.dir {
            return Err(Errno::EINVAL);
        }
        match (self.nodes.is_directory(node), directory) {
            (true, false) => return Err(Errno::EPERM),
            (false, true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        // `..` is a directory that is not empty.
        let Some(name) = &place.name else { return Err(Errno::ENOTEMPTY) };
        self.take(place.dir, name, node)?;
        DONE
    }

    /// Removes a name; a directory must be empty, and takes no entries from then on.
    fn take(&mut self, dir: Id, name: &str, node: Id) -> Result<(), Errno> {
        if !self.nodes.is_empty(node) {
            return Err(Errno::ENOTEMPTY);
        }
        self.nodes.leave(dir, name);
        if self.nodes.is_directory(node) {
            self.nodes.directory_mut(node).removed = true;
        }
        Ok(())
    }

    pub fn link(&mut self, who: usize, old: &At, new: &At, follow: bool) -> Result<Answer, Errno> {
        // link(2) always follows; linkat(2) does if it is told to.
        let follow = follow || old.dir.is_none() && new.dir.is_none();
        // For the linked file, the descriptor is checked before the path is copied in.
        if let Some(fd) = old.dir {
            self.on_node(who, fd)?;
        }
        let node = self.there(who, old, follow)?;
        let place = self.find(who, new, Want::New, false)?;
        let (Some(name), None) = (&place.name, place.node) else { return Err(Errno::EEXIST) };
        if self.nodes.is_directory(node) {
            return Err(Errno::EPERM);
        }
        let family = self.guest(who).family;
        self.pay(family, 512)?;
        self.nodes.enter(place.dir, name, node, Some(family));
        DONE
    }

    pub fn rename(&mut self, who: usize, old: &At, new: &At, keep: bool) -> Result<Answer, Errno> {
        check_length(old)?;
        check_length(new)?;
        let from = self.find(who, old, Want::Gone, false)?;
        let (Some(node), Some(name)) = (from.node, &from.name) else { return Err(Errno::EINVAL) };
        let is_directory = self.nodes.is_directory(node);
        let want = if is_directory { Want::OverDirectory } else { Want::Over };
        let to = self.find(who, new, want, false)?;
        let new_name = to.name.as_ref().ok_or(Errno::EINVAL)?;
        if let Some(over) = to.node {
            match (is_directory, self.nodes.is_directory(over)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        if is_directory && self.nodes.is_inside(to.dir, node) {
            return Err(Errno::EINVAL);
        }
        if to.node == Some(node) {
            if !keep && (from.dir, name) != (to.dir, new_name) {
                self.take(from.dir, name, node)?;
            }
            return DONE;
        }
        if to.node.is_some_and(|over| !self.nodes.is_empty(over)) {
            return Err(Errno::ENOTEMPTY);
        }
        if is_directory && from.dir != to.dir {
            self.nodes.may_write(&self.guest(who).person, node)?;
        }
        if let Some(over) = to.node {
            self.take(to.dir, new_name, over)?;
        }
        self.put_under(&from, name, to.dir, new_name);
        DONE
    }

    /// Moves a name: within a directory it keeps its place, in another it comes last.
    fn put_under(&mut self, from: &Place, name: &str, dir: Id, new: &str) {
        if from.dir == dir {
            let entries = &mut self.nodes.directory_mut(dir).entries;
            let entry = entries.iter_mut().find(|entry| entry.name == name);
            entry.expect("it was found").name = new.to_string();
            return;
        }
        if let Some(Entry { node, paid, .. }) = self.nodes.leave(from.dir, name) {
            self.nodes.enter(dir, new, node, paid);
        }
    }

    pub fn list(&mut self, who: usize, fd: u64) -> Result<Answer, Errno> {
        let (open, node) = match self.on_node(who, fd) {
            Err(Errno::EINVAL) => return Err(Errno::ESPIPE),
            found => found?,
        };
        self.open[open].offset = 0;
        if self.open[open].flags & READS == 0 {
            return Err(Errno::EBADF);
        }
        if !self.nodes.is_directory(node) {
            return Err(Errno::EINVAL);
        }
        Ok(Answer::Names(self.names(node)))
    }

    /// Returns the entries of a directory.
    pub fn names(&self, node: Id) -> Vec<(String, u32, u64)> {
        let Some(directory) = self.nodes.directory(node).filter(|it| !it.removed) else {
            return Vec::new();
        };
        let kind = |id: Id| self.nodes.kind(id);
        let up = if node == ROOT { ROOT } else { directory.parent };
        let dots = [(".", node), ("..", up)].map(|(name, id)| (name.into(), kind(id), id as u64));
        let entries = directory.entries.iter();
        let entries =
            entries.map(|entry| (entry.name.clone(), kind(entry.node), entry.node as u64));
        dots.into_iter().chain(entries).collect()
    }

    pub fn directory_at(&self, who: usize, path: &str) -> Result<Id, Errno> {
        let node = self.there(who, &here(path), true)?;
        self.check_place(who, node)?;
        Ok(node)
    }

    fn check_place(&self, who: usize, node: Id) -> Result<(), Errno> {
        if !self.nodes.is_directory(node) {
            return Err(Errno::ENOTDIR);
        }
        self.nodes.may_search(&self.guest(who).person, node)
    }

    pub fn chdir_open(&mut self, who: usize, fd: u64) -> Result<Answer, Errno> {
        let (_, node) = self.on_node(who, fd)?;
        self.check_place(who, node)?;
        let Person { root, rooted, .. } = self.guest(who).person;
        if rooted && !self.nodes.is_inside(node, root) {
            return Err(Errno::EPERM);
        }
        self.guest_mut(who).person.current = node;
        DONE
    }

    pub fn chroot(&mut self, who: usize, path: &str) -> Result<Answer, Errno> {
        if self.guest(who).person.uid != 0 {
            return Err(Errno::EPERM);
        }
        let node = self.directory_at(who, path)?;
        if !self.nodes.is_inside(self.guest(who).person.current, node) {
            self.guest_mut(who).person.current = node;
        }
        let person = &mut self.guest_mut(who).person;
        (person.root, person.rooted) = (node, true);
        DONE
    }

    /// Returns the path of the current directory. The caller must be able to search that directory, and to
    /// read and search those above it.
    pub fn where_am_i(&self, who: usize) -> Result<Answer, Errno> {
        let person = &self.guest(who).person;
        let (mut at, mut path) = (person.current, String::new());
        while at != person.root {
            self.nodes.may_search(person, at)?;
            if !path.is_empty() {
                self.nodes.may_read(person, at)?;
            }
            if at == ROOT || self.nodes.is_removed(at) {
                return Err(Errno::ENOENT);
            }
            let up = self.nodes.directory(at).expect("a directory is in one").parent;
            let entries = &self.nodes.directory(up).expect("it is in a directory").entries;
            let name = entries.iter().find(|entry| entry.node == at).expect("it has a name");
            path = format!("/{}{path}", name.name);
            at = up;
        }
        let path = if path.is_empty() { "/".into() } else { path };
        Ok(Answer::Bytes(path.into_bytes()))
    }

    pub fn chmod(&mut self, who: usize, path: &str, mode: u32) -> Result<Answer, Errno> {
        let node = self.there(who, &here(path), true)?;
        let person = &self.guest(who).person;
        if person.uid != 0 {
            if person.uid != self.nodes.get(node).uid {
                return Err(Errno::EPERM);
            }
            if !self.nodes.is_directory(node) && mode & 0o1000 != 0 {
                return Err(Errno::EFTYPE);
            }
        }
        self.nodes.get_mut(node).mode = mode;
        DONE
    }
}
