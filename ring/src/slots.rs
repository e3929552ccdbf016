//! The state the ring keeps for each socket: 16 bytes, at the socket's index in the descriptor table.

use crate::Socket;

/// The value of [`Slot::send`] when no send is in flight.
pub(crate) const NO_SEND: u32 = u32::MAX;

/// State bits of a slot.
pub(crate) mod flag {
    /// A socket lives here, from its accept until its close completed.
    pub const LIVE: u8 = 1 << 0;
    /// `Ring::close` was called: only `Event::Closed` is still reported.
    pub const CLOSING: u8 = 1 << 1;
    /// The close request is on its way; all other requests have completed.
    pub const CLOSE_SENT: u8 = 1 << 2;
    /// The user wants to receive.
    pub const WANTED: u8 = 1 << 3;
    /// A recv request is in flight.
    pub const ARMED: u8 = 1 << 4;
    /// A cancel of that recv is in flight.
    pub const CANCELLING: u8 = 1 << 5;
    /// The socket waits for a receive buffer, or for a pause to end: its recv is not armed.
    pub const STARVED: u8 = 1 << 6;
    /// The stream has ended: nothing more to receive.
    pub const ENDED: u8 = 1 << 7;
}

/// Bits that are rarely set in a socket's life.
pub(crate) mod property {
    /// The socket was never reported to the user: no `Event::Closed`.
    pub const SILENT: u8 = 1 << 0;
    /// The socket's family has zero copy sends.
    pub const ZERO_COPY: u8 = 1 << 1;
    /// A shutdown was asked for.
    pub const SHUT: u8 = 1 << 2;
    /// A poll for the hang-up of the peer is in flight.
    pub const WATCHED: u8 = 1 << 3;
    /// The hang-up was reported to the user.
    pub const HUNG_UP: u8 = 1 << 4;
    /// The socket is among those that the ring looks at once they are quiet.
    pub const RECENT: u8 = 1 << 5;
    /// The socket has received something in this period.
    pub const HEARD: u8 = 1 << 6;
}

/// The state of one socket.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The number of the slot's socket, counted from its first; changes when a socket is closed.
    pub generation: u32,
    /// The number of requests whose (last) completion is still to come.
    pub pending: u16,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Bits of [`property`].
    pub properties: u8,
    /// The send in flight, or [`NO_SEND`].
    pub send: u32,
    /// The number of times that closing tried to cancel.
    pub cancels: u8,
    /// The number of times in a row that the socket's recv, or its close, failed for want of memory.
    pub tries: u8,
}

impl Slot {
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    pub fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    pub fn has(&self, property: u8) -> bool {
        self.properties & property != 0
    }

    /// Returns `true` if requests are in flight that end only when the peer does something.
    pub fn has_cancellable(&self) -> bool {
        self.is(flag::ARMED) || self.has(property::WATCHED) || self.send != NO_SEND
    }
}

/// The party that chooses the table slot of a new socket. The first socket settles it for good: the
/// kernel does not tell at once which slots it has given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocator {
    /// The kernel chooses, for connections that are accepted.
    Kernel,
    /// The ring chooses, for sockets that are adopted.
    Ring,
}

/// All slots. The vector grows to the highest index that was given out, never beyond the table.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    capacity: u32,
    live: u32,
    allocator: Option<Allocator>,
    /// Slots that had a socket and have none, if the ring allocates them.
    vacant: Vec<u32>,
}

impl Slots {
    pub fn new(capacity: u32) -> Slots {
        let slots = Vec::with_capacity(capacity as usize);
        Slots { slots, capacity, live: 0, allocator: None, vacant: Vec::new() }
    }

    /// Returns the number of slots.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Settles the allocator if it is not settled yet. Returns `true` if it is this one.
    pub fn settle_allocator(&mut self, allocator: Allocator) -> bool {
        *self.allocator.get_or_insert(allocator) == allocator
    }

    /// Returns the slot for the next socket, if the ring allocates: the one freed last, so that few are
    /// touched. It is free until a socket is opened there.
    pub fn vacant(&self) -> Option<u32> {
        debug_assert_eq!(self.allocator, Some(Allocator::Ring));
        let fresh = self.slots.len() as u32;
        self.vacant.last().copied().or((fresh < self.capacity).then_some(fresh))
    }

    /// Returns the number of sockets that live.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Returns the number of free slots.
    pub fn free(&self) -> u32 {
        self.capacity - self.live
    }

    /// Returns `true` if every slot is taken.
    pub fn full(&self) -> bool {
        self.free() == 0
    }

    /// Opens a socket at `index`, where none lives. Returns `None` for an index beyond the table.
    pub fn open(&mut self, index: u32, properties: u8) -> Option<Socket> {
        if index >= self.capacity {
            return None;
        }
        while self.slots.len() <= index as usize {
            self.slots.push(Slot {
                generation: 0,
                pending: 0,
                flags: 0,
                properties: 0,
                send: NO_SEND,
                cancels: 0,
                tries: 0,
            });
        }
        let slot = &mut self.slots[index as usize];
        debug_assert!(!slot.is(flag::LIVE));
        if self.vacant.last() == Some(&index) {
            self.vacant.pop();
        }
        slot.flags = flag::LIVE;
        slot.properties = properties;
        (slot.cancels, slot.tries) = (0, 0);
        self.live += 1;
        Some(Socket { index, generation: slot.generation })
    }

    /// Frees the slot of the socket at `index`: handles and completions of that socket are stale from
    /// then on.
    pub fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.is(flag::LIVE) && slot.pending == 0 && slot.send == NO_SEND);
        slot.flags = 0;
        slot.generation = slot.generation.wrapping_add(1);
        self.live -= 1;
        if self.allocator == Some(Allocator::Ring) {
            self.vacant.push(index);
        }
    }

    /// Returns the slot of a socket that lives, closing or not.
    pub fn get(&mut self, socket: Socket) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(socket.index as usize)?;
        (slot.generation == socket.generation && slot.is(flag::LIVE)).then_some(slot)
    }

    /// Returns the slot of a socket that lives and is not being closed.
    pub fn open_slot(&mut self, socket: Socket) -> Option<&mut Slot> {
        self.get(socket).filter(|slot| !slot.is(flag::CLOSING))
    }

    /// Returns the socket that lives at `index`, if any.
    pub fn at(&self, index: u32) -> Option<Socket> {
        let slot = self.slots.get(index as usize)?;
        slot.is(flag::LIVE).then_some(Socket { index, generation: slot.generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 16);
    }

    #[test]
    fn generations_tell_sockets_of_a_slot_apart() {
        let mut slots = Slots::new(2);
        let old = slots.open(1, 0).unwrap();
        assert!(slots.get(old).is_some() && !slots.full());
        slots.release(1);
        assert!(slots.get(old).is_none() && slots.at(1).is_none());
        let new = slots.open(1, 0).unwrap();
        assert!(slots.get(old).is_none() && slots.get(new).is_some());
        assert_eq!((slots.at(1), slots.at(0), slots.at(7)), (Some(new), None, None));
        assert!(slots.open(0, 0).is_some() && slots.full());
        assert!(slots.open(2, 0).is_none());
    }

    #[test]
    fn the_slot_used_last_is_the_next() {
        let mut slots = Slots::new(3);
        assert!(slots.settle_allocator(Allocator::Ring));
        assert!(!slots.settle_allocator(Allocator::Kernel));
        for index in 0..3 {
            assert_eq!(slots.vacant(), Some(index));
            slots.open(index, 0).unwrap();
        }
        assert_eq!(slots.vacant(), None);
        slots.release(0);
        slots.release(2);
        assert_eq!(slots.vacant(), Some(2));
        slots.open(2, 0).unwrap();
        assert_eq!(slots.vacant(), Some(0));
    }
}
