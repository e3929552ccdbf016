//! Copies files of the host into the file system, for clients to read or to start from.
//!
//! The files are copied when the kernel boots. After that the kernel does not look at the host: changes on
//! the host have no effect here, no call waits for a disk, a sandbox may be closed after boot, and clients
//! cannot reach the host through these files. The price is memory, charged like that of clients' files;
//! holes are free.
//!
//! Only directories, regular files and symbolic links are copied, and no link is followed.
//!
//! Source: NetBSD `sys/rump/librump/rumpvfs/rumpfs.c`; rump_etfs(3).

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat,
};

use super::call::{PATH_MAX, PIECE};
use super::limits::ResourceGroup;
use super::memfs::{Inode, Make, NAME_MAX};
use super::process::Credentials;
use super::{Embedded, System};
use kernel::Errno;

/// The most directories inside each other that are copied: a path of the kernel has no more components.
const DEPTH: usize = 512;

/// The most skipped files that one mount names in the log.
const NAMED: u64 = 10;

/// A file or directory of the host, and the path it is copied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etfs {
    /// An absolute path in the kernel's file system. Missing parent directories are made.
    pub key: Vec<u8>,
    /// The path on the host.
    pub hostpath: PathBuf,
    /// True if clients may change the copy; otherwise they get EROFS.
    pub writable: bool,
}

/// The error of copying a file of the host.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct EtfsError {
    /// The path on the host, or in the kernel if the error is there.
    pub path: PathBuf,
    pub why: Why,
}

/// See [`EtfsError`].
#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error(transparent)]
    Host(#[from] io::Error),
    #[error("is neither a file nor a directory")]
    Special,
    #[error("directories inside each other, more than {DEPTH}")]
    Deep,
    #[error("is no absolute path without `.` and `..`, of names up to {NAME_MAX} bytes")]
    Key,
    #[error("is there already")]
    Exists,
    #[error("is in something that is no directory")]
    NotInDirectory,
    #[error("is one more than the inodes there may be")]
    Inodes,
    #[error("is more than the bytes there may be")]
    Bytes,
}

impl From<rustix::io::Errno> for Why {
    fn from(errno: rustix::io::Errno) -> Self {
        Why::Host(errno.into())
    }
}

type Result<T, E = EtfsError> = std::result::Result<T, E>;

fn at<E: Into<Why>>(path: &Path) -> impl FnOnce(E) -> EtfsError {
    let path = path.to_path_buf();
    |why| EtfsError { path, why: why.into() }
}

impl Embedded {
    /// Copies files of the host into the file system. Call it before there are clients, which would see the
    /// copy half done.
    pub fn etfs(&self, mounts: &[Etfs]) -> Result<()> {
        let system = &*self.system;
        // While copying, only the bound on all files together applies. Later the copies may grow as a
        // family's files.
        let resource_group = ResourceGroup::of_the_system(&system.counters);
        for mount in mounts {
            let mut copy = Copy {
                system,
                rootly: Credentials::default(),
                resource_group: &resource_group,
                writable: mount.writable,
                directories: 0,
                files: 0,
                bytes: 0,
                left_out: 0,
            };
            copy.mount(mount)?;
            copy.tell(mount);
        }
        resource_group.settle();
        Ok(())
    }
}

/// The copying of one mount.
struct Copy<'s> {
    system: &'s System,
    rootly: Credentials,
    resource_group: &'s Arc<ResourceGroup>,
    writable: bool,
    directories: u64,
    files: u64,
    bytes: u64,
    /// The number of files left out: special files, and links longer than a path.
    left_out: u64,
}

/// A directory that is being copied, and the names in it that are not copied yet.
struct Directory {
    from: OwnedFd,
    stat: Stat,
    to: Arc<Inode>,
    path: PathBuf,
    names: std::vec::IntoIter<CString>,
}

impl Copy<'_> {
    fn mount(&mut self, mount: &Etfs) -> Result<()> {
        let key = Path::new(OsStr::from_bytes(&mount.key));
        let host = &mount.hostpath;
        let there = open(CWD, host.as_os_str(), OFlags::empty()).map_err(at(host))?;
        let stat = fstat(&there).map_err(at(host))?;
        let (dir, name) = self.parent(&mount.key).map_err(at(key))?;
        let make = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Make::File,
            FileType::Directory => Make::Directory,
            _ => return Err(at(host)(Why::Special)),
        };
        let inode = self.make(&dir, name, make, stat.st_mode).map_err(at(key))?;
        match make {
            Make::Directory => self.tree(there, stat, inode, host.clone()),
            _ => self.file(there, &stat, &inode, host),
        }
    }

    /// Returns the parent directory of the key, made if it is missing, and the last component of the key.
    fn parent<'k>(&self, key: &'k [u8]) -> Result<(Arc<Inode>, &'k [u8]), Why> {
        let names: Vec<&[u8]> =
            key.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
        let is_fine = |name: &&[u8]| {
            name.len() <= NAME_MAX && !name.contains(&0) && *name != b"." && *name != b".."
        };
        let Some((last, dirs)) = names.split_last() else { return Err(Why::Key) };
        if key[0] != b'/' || !names.iter().all(is_fine) {
            return Err(Why::Key);
        }
        let mut dir = self.system.fs.root();
        for name in dirs {
            dir = match dir.lookup(name).map_err(|_| Why::NotInDirectory)? {
                Some(there) => there,
                None => self.make(&dir, name, Make::Directory, 0o755)?,
            };
        }
        Ok((dir, last))
    }

    fn make(
        &self,
        dir: &Arc<Inode>,
        name: &[u8],
        what: Make<'_>,
        mode: u32,
    ) -> Result<Arc<Inode>, Why> {
        let made = self.system.fs.make(dir, name, what, mode, &self.rootly, self.resource_group);
        made.map_err(|errno| match errno {
            Errno::EEXIST => Why::Exists,
            Errno::ENOTDIR => Why::NotInDirectory,
            Errno::EROFS => Why::Host(io::ErrorKind::ReadOnlyFilesystem.into()),
            _ if self.system.counters.inodes.get() < self.system.limits.inodes => Why::Bytes,
            _ => Why::Inodes,
        })
    }

    /// Copies a directory and its contents, in the order of names. `path` is for messages.
    fn tree(&mut self, from: OwnedFd, stat: Stat, to: Arc<Inode>, path: PathBuf) -> Result<()> {
        let mut under_way = vec![self.directory(from, stat, to, path)?];
        while let Some(directory) = under_way.last_mut() {
            let Some(name) = directory.names.next() else {
                self.directories += 1;
                self.finish(&directory.to, &directory.stat);
                under_way.pop();
                continue;
            };
            if let Some(inside) = self.entry(directory, &name)? {
                if under_way.len() == DEPTH {
                    return Err(at(&inside.path)(Why::Deep));
                }
                under_way.push(inside);
            }
        }
        Ok(())
    }

    fn directory(
        &self,
        from: OwnedFd,
        stat: Stat,
        to: Arc<Inode>,
        path: PathBuf,
    ) -> Result<Directory> {
        let names = self.names(&from).map_err(at(&path))?.into_iter();
        Ok(Directory { from, stat, to, path, names })
    }

    /// Copies the file called `name` in a directory. For a directory, returns it with its contents still to
    /// be copied.
    fn entry(&mut self, within: &Directory, name: &CStr) -> Result<Option<Directory>> {
        let path = within.path.join(OsStr::from_bytes(name.to_bytes()));
        let stat = statat(&within.from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(&path))?;
        let (make, flags) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (Make::File, OFlags::empty()),
            FileType::Directory => (Make::Directory, OFlags::DIRECTORY),
            FileType::Symlink => {
                self.symlink(&within.from, name, &stat, &within.to, &path)?;
                return Ok(None);
            }
            _ => {
                self.leave_out(&path);
                return Ok(None);
            }
        };
        // The file may have become another one in the meantime, but not one behind a link.
        let there = open(&within.from, name, flags | OFlags::NOFOLLOW).map_err(at(&path))?;
        let stat = fstat(&there).map_err(at(&path))?;
        let inode =
            self.make(&within.to, name.to_bytes(), make, stat.st_mode).map_err(at(&path))?;
        match make {
            Make::Directory => self.directory(there, stat, inode, path).map(Some),
            _ => self.file(there, &stat, &inode, &path).map(|()| None),
        }
    }

    /// Copies a symbolic link, not its target: in the kernel the link leads to that path in the kernel.
    fn symlink(
        &mut self,
        from: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        to: &Arc<Inode>,
        path: &Path,
    ) -> Result<()> {
        let target = readlinkat(from, name, Vec::new()).map_err(at(path))?;
        if target.as_bytes_with_nul().len() > PATH_MAX {
            self.leave_out(path);
            return Ok(());
        }
        let make = Make::Symlink(target.to_bytes());
        let inode = self.make(to, name.to_bytes(), make, stat.st_mode).map_err(at(path))?;
        self.finish(&inode, stat);
        Ok(())
    }

    /// Returns the names in a directory, at most as many as there may be inodes.
    fn names(&self, from: &OwnedFd) -> Result<Vec<CString>, Why> {
        let most = self.system.limits.inodes as usize;
        let mut names = Vec::new();
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if names.len() >= most {
                return Err(Why::Inodes);
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Copies a regular file, with the length it had when it was opened.
    fn file(&mut self, from: OwnedFd, stat: &Stat, to: &Inode, path: &Path) -> Result<()> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(at(path)(Why::Special));
        }
        let content = to.content().map_err(|_| at(path)(Why::Special))?;
        let mut from = File::from(from).take(stat.st_size as u64);
        let mut piece = vec![0; PIECE];
        let mut size = 0;
        loop {
            let len = fill(&mut from, &mut piece).map_err(at(path))?;
            let data = &piece[..len];
            if data.iter().any(|&byte| byte != 0) {
                content.write(size as i64, data).map_err(|_| at(path)(Why::Bytes))?;
            }
            size += len as u64;
            if len < PIECE {
                break;
            }
        }
        if size != content.size() {
            content.truncate(size).map_err(|_| at(path)(Why::Bytes))?;
        }
        self.files += 1;
        self.bytes += size;
        self.finish(to, stat);
        Ok(())
    }

    /// Sets the times as on the host, and makes the inode read-only unless the mount is writable. Called
    /// once the contents are copied.
    fn finish(&self, inode: &Inode, stat: &Stat) {
        let time = |seconds: i64, nanoseconds: i64| {
            seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
        };
        let accessed = time(stat.st_atime, stat.st_atime_nsec as i64);
        let modified = time(stat.st_mtime, stat.st_mtime_nsec as i64);
        let changed = time(stat.st_ctime, stat.st_ctime_nsec as i64);
        inode.imported([accessed, modified, changed], !self.writable);
    }

    fn leave_out(&mut self, path: &Path) {
        self.left_out += 1;
        if self.left_out <= NAMED {
            let path = path.display();
            tracing::warn!("--etfs: {path} is nothing that can be copied, and left out");
        }
    }

    fn tell(&self, mount: &Etfs) {
        let (key, host) = (String::from_utf8_lossy(&mount.key), mount.hostpath.display());
        let Copy { files, directories, bytes, left_out, .. } = self;
        tracing::info!(
            "--etfs: {key} is {host}: {files} files, {directories} directories, {bytes} bytes; \
             {left_out} left out"
        );
    }
}

/// Opens a file for reading, without waiting for a process at its other end.
fn open<P: rustix::path::Arg>(
    dir: impl AsFd,
    name: P,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Reads until the buffer is full or the file ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
