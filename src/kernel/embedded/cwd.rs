//! Where a process is: its current directory, its root and its umask.
//!
//! Source: NetBSD `sys/sys/filedesc.h` (`struct cwdinfo`).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::memfs::Inode;
use super::sync::lock;

/// Where a process is (`struct cwdinfo`).
pub(super) struct CwdInfo {
    places: Mutex<Places>,
    umask: AtomicU32,
}

/// The two directories paths begin at.
#[derive(Clone)]
pub(super) struct Places {
    /// Where relative paths begin.
    pub current: Arc<Inode>,
    /// Where absolute ones do: nothing for the root of the file system itself.
    pub root: Option<Arc<Inode>>,
}

impl CwdInfo {
    /// A process that begins at the root.
    pub fn new(root: Arc<Inode>) -> Self {
        let places = Places { current: root, root: None };
        CwdInfo { places: Mutex::new(places), umask: AtomicU32::new(0o022) }
    }

    /// A copy for a child. NetBSD: `cwdinit`.
    pub fn copy(&self) -> Self {
        CwdInfo { places: Mutex::new(self.places()), umask: AtomicU32::new(self.umask()) }
    }

    pub fn places(&self) -> Places {
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
        let before = std::mem::replace(&mut lock(&self.places).current, dir.clone());
        drop(before);
    }

    /// Makes `dir` the root, and the current directory too if that would be outside of it. NetBSD:
    /// `change_root`.
    pub fn change_root(&self, dir: &Arc<Inode>) {
        let before = {
            let mut places = lock(&self.places);
            let inside = places.current.is_inside(dir);
            let current = if inside { places.current.clone() } else { dir.clone() };
            std::mem::replace(&mut *places, Places { current, root: Some(dir.clone()) })
        };
        drop(before);
    }
}
