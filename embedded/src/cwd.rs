//! Where a process is: its current directory, its root and its umask.
//!
//! Source: NetBSD `sys/sys/filedesc.h` (`struct cwdinfo`).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::memfs::Inode;
use super::sync::lock;
use kernel::Errno;

/// Where a process is (`struct cwdinfo`).
pub(super) struct CwdInfo {
    places: Mutex<Arc<Cwd>>,
    umask: AtomicU32,
}

/// The two directories paths begin at. One is shared by all processes that are where others were when
/// they were made.
pub(super) struct Cwd {
    /// Where relative paths begin.
    pub current: Arc<Inode>,
    /// Where absolute ones do: nothing for the root of the file system itself.
    pub root: Option<Arc<Inode>>,
}

impl Cwd {
    /// Where processes begin that come from nowhere.
    pub fn first(root: Arc<Inode>) -> Arc<Cwd> {
        Arc::new(Cwd { current: root, root: None })
    }
}

impl CwdInfo {
    pub fn new(places: &Arc<Cwd>) -> Self {
        CwdInfo { places: Mutex::new(places.clone()), umask: AtomicU32::new(0o022) }
    }

    /// A copy for a child. NetBSD: `cwdinit`.
    pub fn copy(&self) -> Self {
        CwdInfo { places: Mutex::new(self.places()), umask: AtomicU32::new(self.umask()) }
    }

    pub fn places(&self) -> Arc<Cwd> {
        lock(&self.places).clone()
    }

    /// The permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Relaxed)
    }

    /// Takes another umask, and returns the one before.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o7777, Relaxed)
    }

    /// Makes `dir` the current directory.
    pub fn change(&self, dir: &Arc<Inode>) {
        self.replace(|now| Cwd { current: dir.clone(), root: now.root.clone() });
    }

    /// Makes `dir` the root, and the current directory too if that would be outside of it. NetBSD:
    /// `change_root`.
    pub fn change_root(&self, dir: &Arc<Inode>) -> Result<(), Errno> {
        // To look may take long: no lock is held meanwhile.
        let seen = self.places();
        let inside = seen.current.is_inside(dir)?;
        self.replace(|now| {
            // Another thread that has moved at once did so before.
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
