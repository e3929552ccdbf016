//! The directories of a process: its current directory, its root and its umask.
//!
//! Source: NetBSD `sys/sys/filedesc.h` (`struct cwdinfo`).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::memfs::Inode;
use super::sync::lock;
use kernel::Errno;

/// The current directory, root and umask of a process (`struct cwdinfo`).
pub(super) struct CwdInfo {
    places: Mutex<Arc<Cwd>>,
    umask: AtomicU32,
}

/// The two directories at which paths begin. A child shares its parent's value until one of them changes
/// it.
pub(super) struct Cwd {
    /// The directory at which relative paths begin.
    pub current: Arc<Inode>,
    /// The directory at which absolute paths begin, or `None` for the root of the file system itself.
    pub root: Option<Arc<Inode>>,
}

impl Cwd {
    /// Returns the directories of a process without a parent: both are `root`.
    pub fn first(root: Arc<Inode>) -> Arc<Cwd> {
        Arc::new(Cwd { current: root, root: None })
    }
}

impl CwdInfo {
    pub fn new(places: &Arc<Cwd>) -> Self {
        CwdInfo { places: Mutex::new(places.clone()), umask: AtomicU32::new(0o022) }
    }

    /// Returns a copy for a child. NetBSD: `cwdinit`.
    pub fn copy(&self) -> Self {
        CwdInfo { places: Mutex::new(self.places()), umask: AtomicU32::new(self.umask()) }
    }

    pub fn places(&self) -> Arc<Cwd> {
        lock(&self.places).clone()
    }

    /// Returns the permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Relaxed)
    }

    /// Sets the umask, and returns the previous one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o7777, Relaxed)
    }

    /// Makes `dir` the current directory.
    pub fn change(&self, dir: &Arc<Inode>) {
        self.replace(|now| Cwd { current: dir.clone(), root: now.root.clone() });
    }

    /// Makes `dir` the root, and also the current directory if that would lie outside of it. NetBSD:
    /// `change_root`.
    pub fn change_root(&self, dir: &Arc<Inode>) -> Result<(), Errno> {
        // The check may take long, so no lock is held during it.
        let seen = self.places();
        let inside = seen.current.is_inside(dir)?;
        self.replace(|now| {
            // Another thread that moved at the same time is taken to have moved before.
            let stays = inside && Arc::ptr_eq(&now.current, &seen.current);
            let current = if stays { &now.current } else { dir };
            Cwd { current: current.clone(), root: Some(dir.clone()) }
        });
        Ok(())
    }

    fn replace(&self, change: impl FnOnce(&Cwd) -> Cwd) {
        let mut places = lock(&self.places);
        let new = Arc::new(change(&places));
        let before = std::mem::replace(&mut *places, new);
        drop(places);
        drop(before);
    }
}
