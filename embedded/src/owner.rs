//! The owner of a file, who gets its signals: a process, a process group, or nobody.
//!
//! The owner is kept by reference, not by its number, which may be reused once it has ended: a late signal
//! then reaches nobody.

use std::sync::{Arc, Mutex, Weak};

use super::System;
use super::groups::Group;
use super::process::Proc;
use super::sync::lock;

/// The owner of a pipe's end or a socket. Boxed, as few have one.
#[derive(Default)]
pub(super) struct Owner(Mutex<Option<Box<Of>>>);

#[derive(Clone)]
struct Of {
    /// The owner as the client sees it: a pid, the negative ID of a process group, or 0.
    id: i32,
    whom: Whom,
}

/// The process or process group of an owner.
#[derive(Clone)]
pub(super) enum Whom {
    Nobody,
    Process(Weak<Proc>),
    Group(Weak<Group>),
}

impl Owner {
    pub fn id(&self) -> i32 {
        lock(&self.0).as_ref().map_or(0, |of| of.id)
    }

    pub fn set(&self, id: i32, whom: Whom) {
        *lock(&self.0) = Some(Box::new(Of { id, whom }));
    }

    /// Takes over the owner of another file.
    pub fn inherit(&self, from: &Owner) {
        let of = lock(&from.0).clone();
        *lock(&self.0) = of;
    }

    /// Sends the owner a signal, if it still exists.
    pub fn send(&self, system: &System, signo: i32) {
        let Some(of) = lock(&self.0).clone() else { return };
        match of.whom {
            Whom::Nobody => {}
            Whom::Process(proc) => {
                let Some(proc) = proc.upgrade() else { return };
                let now = system.processes.find(proc.pid);
                if now.is_some_and(|now| Arc::ptr_eq(&now, &proc)) {
                    proc.send(signo);
                }
            }
            Whom::Group(group) => {
                for proc in group.upgrade().iter().flat_map(|group| group.members(system)) {
                    proc.send(signo);
                }
            }
        }
    }
}
