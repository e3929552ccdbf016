//! The numbers that the kernel is given as the owners of processes, in place of pointers.
//!
//! The kernel keeps the number with the process, and hands it back with each copy and each signal, even
//! after the process has gone: a timer that still runs knows it, and so does memory that the kernel
//! freed. So the number is looked up, never followed. Each number is given only once in the life of the
//! server, so those of processes that have gone name nobody for ever.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::{Client, Errno};

/// The bits of a number for the slot. The bits above count the lives of the slot.
const SLOT_BITS: u32 = usize::BITS / 2;

/// The last life of a slot, after which the slot is not used again.
const LAST_LIFE: usize = usize::MAX >> SLOT_BITS;

/// The owners of this program's kernel.
static OWNERS: Owners = Owners::new();

/// The number of an owner, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerId(usize);

impl OwnerId {
    /// Returns the number that the kernel handed back, whatever it is.
    pub fn from_kernel(pointer: *mut c_void) -> OwnerId {
        OwnerId(pointer as usize)
    }

    /// Returns the pointer for the kernel. It is never null, and must never be followed.
    pub fn for_kernel(self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.0)
    }
}

/// The owner of a process. Its number names nobody once this is dropped.
#[derive(Debug)]
pub struct Owner(OwnerId);

impl Owner {
    /// Creates an owner. `client` is `None` for a process whose client has yet to come.
    pub fn new(client: Option<Arc<dyn Client>>) -> Result<Owner, Errno> {
        OWNERS.add(client).map(Owner).ok_or(Errno::EAGAIN)
    }

    pub fn id(&self) -> OwnerId {
        self.0
    }

    /// Makes the number name nobody from here on. The process may take a while to end.
    pub fn forget(&self) {
        OWNERS.remove(self.0);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Delivers a signal to an owner's client, if the kernel's number still names one.
pub fn raise(owner: OwnerId, signo: i32) {
    if let Some(client) = OWNERS.client(owner) {
        client.raise(signo);
    }
}

/// The owners, by number.
struct Owners(Mutex<Slots>);

struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// The life of the slot, counted from 1 so that no number is null.
    life: usize,
    holder: Holder,
}

enum Holder {
    Nobody,
    /// A process whose client has yet to come.
    Process,
    Client(Arc<dyn Client>),
}

impl Owners {
    const fn new() -> Owners {
        Owners(Mutex::new(Slots { all: Vec::new(), free: Vec::new() }))
    }

    /// Returns a number that was never given before. Returns `None` if there are too many.
    fn add(&self, client: Option<Arc<dyn Client>>) -> Option<OwnerId> {
        let holder = client.map_or(Holder::Process, Holder::Client);
        let mut slots = self.lock();
        let at = match slots.free.pop() {
            Some(at) => at,
            None => {
                let at = slots.all.len();
                if at >> SLOT_BITS != 0 {
                    return None;
                }
                slots.all.push(Slot { life: 1, holder: Holder::Nobody });
                at
            }
        };
        let slot = &mut slots.all[at];
        slot.holder = holder;
        Some(OwnerId(slot.life << SLOT_BITS | at))
    }

    /// Makes the number name nobody. Does nothing if it names nobody already.
    fn remove(&self, owner: OwnerId) {
        let mut slots = self.lock();
        let Some(slot) = slots.find(owner) else {
            return;
        };
        let holder = std::mem::replace(&mut slot.holder, Holder::Nobody);
        if slot.life < LAST_LIFE {
            slot.life += 1;
            slots.free.push(owner.slot());
        }
        drop(slots);
        // This is without the lock, because it may be the last reference to the client.
        drop(holder);
    }

    fn client(&self, owner: OwnerId) -> Option<Arc<dyn Client>> {
        match &self.lock().find(owner)?.holder {
            Holder::Client(client) => Some(client.clone()),
            Holder::Process | Holder::Nobody => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Returns the slot of a number, if the slot is still in that number's life.
    fn find(&mut self, owner: OwnerId) -> Option<&mut Slot> {
        let slot = self.all.get_mut(owner.slot())?;
        let is_it = slot.life == owner.0 >> SLOT_BITS && !matches!(slot.holder, Holder::Nobody);
        is_it.then_some(slot)
    }
}

impl OwnerId {
    fn slot(self) -> usize {
        self.0 & (usize::MAX >> (usize::BITS - SLOT_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that keeps the signals that it is sent.
    #[derive(Default)]
    struct Heard(Mutex<Vec<i32>>);

    impl Client for Heard {
        fn raise(&self, signo: i32) {
            self.0.lock().unwrap().push(signo);
        }
    }

    fn client() -> Arc<Heard> {
        Arc::default()
    }

    impl Owners {
        fn raise(&self, owner: OwnerId, signo: i32) {
            if let Some(client) = self.client(owner) {
                client.raise(signo);
            }
        }
    }

    #[test]
    fn a_signal_reaches_the_client_of_that_number() {
        let owners = Owners::new();
        let [one, other] = [client(), client()];
        let ids = [&one, &other].map(|client| owners.add(Some(client.clone())).unwrap());
        assert!(ids.iter().all(|id| !id.for_kernel().is_null()));
        owners.raise(OwnerId::from_kernel(ids[1].for_kernel()), 14);
        assert_eq!((&**one.0.lock().unwrap(), &**other.0.lock().unwrap()), (&[][..], &[14][..]));
    }

    #[test]
    fn a_number_of_one_that_has_gone_names_nobody_and_not_the_next() {
        let owners = Owners::new();
        let mut stale = Vec::new();
        for _ in 0..1000 {
            let gone = owners.add(Some(client())).unwrap();
            owners.remove(gone);
            stale.push(gone);
        }
        assert_eq!(owners.lock().all.len(), 1, "a slot is used again");
        let next = client();
        let id = owners.add(Some(next.clone())).unwrap();
        for &old in &stale {
            assert_ne!(old, id);
            owners.raise(old, 14);
            // A client that goes twice cannot take the next one's place, either.
            owners.remove(old);
        }
        assert!(next.0.lock().unwrap().is_empty(), "a late signal reached the next client");
        owners.raise(id, 15);
        assert_eq!(*next.0.lock().unwrap(), [15]);
    }

    #[test]
    fn whatever_the_kernel_hands_back_is_harmless() {
        let owners = Owners::new();
        let id = owners.add(Some(client())).unwrap();
        let process = owners.add(None).unwrap();
        for number in [0, 1, usize::MAX, id.0 + 2, id.0 ^ (1 << SLOT_BITS), 0x7f12_3456_7890] {
            assert!(owners.client(OwnerId(number)).is_none(), "{number:#x}");
        }
        assert!(owners.client(process).is_none(), "its client has yet to come");
    }

    #[test]
    fn a_slot_ends_with_its_last_life() {
        let owners = Owners::new();
        let first = owners.add(None).unwrap();
        owners.remove(first);
        owners.lock().all[0].life = LAST_LIFE;
        let last = owners.add(None).unwrap();
        assert_eq!(last.0 >> SLOT_BITS, LAST_LIFE);
        owners.remove(last);
        let other = owners.add(None).unwrap();
        assert_eq!(other.slot(), 1, "the first would begin again");
        assert!(owners.client(first).is_none() && owners.client(last).is_none());
    }

    #[test]
    fn the_client_is_let_go_with_its_number() {
        let heard = client();
        let owner = Owner::new(Some(heard.clone())).unwrap();
        let id = owner.id();
        raise(id, 14);
        owner.forget();
        assert_eq!(Arc::strong_count(&heard), 1);
        raise(id, 15);
        drop(owner);
        assert_eq!(*heard.0.lock().unwrap(), [14]);
    }
}
