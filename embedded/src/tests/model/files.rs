//! The model's calls on open files: open, read, write, truncate.

use super::super::super::testing::o;
use super::kernel::{APPENDS, Answer, DONE, Model, Open, READS, WRITES, check_length};
use super::nodes::{Bytes, Id, What};
use super::paths::Want;
use super::steps::{At, NOFOLLOW, here};
use kernel::Errno;

impl Model {
    pub fn open_path(
        &mut self,
        who: usize,
        at: &At,
        flags: u64,
        mode: u32,
    ) -> Result<Answer, Errno> {
        check_length(at)?;
        if let Some(fd) = at.dir {
            self.on_node(who, fd)?;
        }
        if flags & 3 == 3 {
            return Err(Errno::EINVAL);
        }
        self.free_descriptor(who)?;
        if self.files() >= self.limits.files {
            return Err(Errno::ENFILE);
        }
        let creates = flags & o::CREAT != 0;
        if creates && flags & o::DIRECTORY != 0 {
            return Err(Errno::EINVAL);
        }
        let alone = creates && flags & o::EXCL != 0;
        let follow = flags & NOFOLLOW == 0 && !alone;
        let want = if creates { Want::New } else { Want::There };
        let place = self.find(who, at, want, follow)?;
        let node = match place.node {
            Some(_) if alone => return Err(Errno::EEXIST),
            Some(node) => {
                self.check_open(who, node, flags)?;
                node
            }
            None => self.make(who, &place, What::File(Bytes::default()), mode & 0o6777)?,
        };
        if flags & o::TRUNC != 0
            && let What::File(bytes) = &mut self.nodes.get_mut(node).what
        {
            bytes.cut(0);
        }
        let flags = ((flags & 3) + 1) | (flags & o::APPEND);
        self.open.push(Open { node: Some(node), offset: 0, flags });
        self.hand_out(who, self.open.len() - 1)
    }

    fn check_open(&self, who: usize, node: Id, flags: u64) -> Result<(), Errno> {
        let (person, is_directory) = (&self.guest(who).person, self.nodes.is_directory(node));
        if matches!(self.nodes.get(node).what, What::Link(_)) {
            return Err(Errno::EFTYPE);
        }
        if flags & o::DIRECTORY != 0 && !is_directory {
            return Err(Errno::ENOTDIR);
        }
        let reads = flags & 3 != o::WRONLY;
        let writes = flags & 3 != o::RDONLY || flags & o::TRUNC != 0;
        if writes && is_directory {
            return Err(Errno::EISDIR);
        }
        if reads {
            self.nodes.may_read(person, node)?;
        }
        if writes {
            self.nodes.may_write(person, node)?;
        }
        Ok(())
    }

    pub fn dup2(&mut self, who: usize, from: u64, to: u64) -> Result<Answer, Errno> {
        let open = self.open_of(who, from)?;
        if to >= self.limits.files_per_process as u64 {
            return Err(Errno::EBADF);
        }
        self.guest_mut(who).descriptors.insert(to, open);
        Ok(Answer::Number(to as i64))
    }

    /// Returns the open file of a transfer, and the offset at which the transfer begins.
    fn transfer(
        &self,
        who: usize,
        fd: u64,
        access: u64,
        at: Option<i64>,
    ) -> Result<(usize, Option<Id>, i64), Errno> {
        let open = self.open_of(who, fd)?;
        let Open { node, offset, flags } = self.open[open];
        if flags & access == 0 {
            return Err(Errno::EBADF);
        }
        if at.is_some() && node.is_none() {
            return Err(Errno::ESPIPE);
        }
        let from = at.unwrap_or(offset);
        if from < 0 { Err(Errno::EINVAL) } else { Ok((open, node, from)) }
    }

    pub fn read(
        &mut self,
        who: usize,
        fd: u64,
        len: u64,
        at: Option<i64>,
    ) -> Result<Answer, Errno> {
        let (open, node, from) = self.transfer(who, fd, READS, at)?;
        let node = node.expect("the console is not open for reading");
        let What::File(bytes) = &self.nodes.get(node).what else { return Err(Errno::EISDIR) };
        let data = bytes.get(from as u64, len);
        if at.is_none() {
            self.open[open].offset += data.len() as i64;
        }
        Ok(Answer::Bytes(data))
    }

    pub fn write(
        &mut self,
        who: usize,
        fd: u64,
        data: &[u8],
        at: Option<i64>,
    ) -> Result<Answer, Errno> {
        let (open, node, mut from) = self.transfer(who, fd, WRITES, at)?;
        let done = Ok(Answer::Number(data.len() as i64));
        let Some(node) = node else { return done };
        let family = self.nodes.get(node).family;
        let What::File(bytes) = &self.nodes.get(node).what else { return Err(Errno::EISDIR) };
        if self.open[open].flags & APPENDS != 0 {
            from = bytes.size as i64;
        }
        if from.checked_add(data.len() as i64).is_none() {
            return Err(Errno::EFBIG);
        }
        if data.is_empty() {
            return done;
        }
        self.pay(family, bytes.grows(from as u64, data.len() as u64))?;
        if let What::File(bytes) = &mut self.nodes.get_mut(node).what {
            bytes.put(from as u64, data);
        }
        if at.is_none() {
            self.open[open].offset = from + data.len() as i64;
        }
        done
    }

    pub fn seek(&mut self, who: usize, fd: u64, by: i64, whence: u64) -> Result<Answer, Errno> {
        let open = self.open_of(who, fd)?;
        let node = self.open[open].node.ok_or(Errno::ESPIPE)?;
        let from = match whence {
            0 => 0,
            1 => self.open[open].offset,
            2 => self.nodes.size(node) as i64,
            _ => return Err(Errno::EINVAL),
        };
        let to = from.wrapping_add(by);
        if to < 0 {
            return Err(Errno::EINVAL);
        }
        self.open[open].offset = to;
        Ok(Answer::Number(to))
    }

    pub fn truncate(&mut self, who: usize, path: &str, len: i64) -> Result<Answer, Errno> {
        if len < 0 {
            return Err(Errno::EINVAL);
        }
        let node = self.there(who, &here(path), true)?;
        if self.nodes.is_directory(node) {
            return Err(Errno::EISDIR);
        }
        self.nodes.may_write(&self.guest(who).person, node)?;
        self.cut(node, len as u64);
        DONE
    }

    pub fn cut_open(&mut self, who: usize, fd: u64, len: i64) -> Result<Answer, Errno> {
        if len < 0 {
            return Err(Errno::EINVAL);
        }
        let (open, node) = self.on_node(who, fd)?;
        if self.open[open].flags & WRITES == 0 {
            return Err(Errno::EINVAL);
        }
        self.cut(node, len as u64);
        DONE
    }

    fn cut(&mut self, node: Id, size: u64) {
        if let What::File(bytes) = &mut self.nodes.get_mut(node).what {
            bytes.cut(size);
        }
    }
}
