//! The receive buffer of a socket: bytes of a stream, or messages with their sender and control messages;
//! and the bound on it.
//!
//! Source: NetBSD `sys/kern/uipc_socket2.c` (`struct sockbuf`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::rights::Rights;
use crate::limits::ResourceGroup;

/// The bytes of buffer that every socket has paid for when it is made, and can always hold.
pub(super) const SPARE: u64 = 1024;

/// The step, in bytes, in which more is paid for and given back.
const STEP: u64 = 4096;

/// The size of NetBSD's buffers (`MSIZE`, `MCLBYTES`), and the bytes that fit: into a first one, another
/// one, a large one at the head of a message. Messages are counted in these, as is the bound of a buffer of
/// messages.
const MBUF: usize = 512;
const CLUSTER: usize = 2048;
const FIRST: usize = 400;
const NEXT: usize = 456;
const FIRST_CLUSTER: usize = 1972;
/// Data of at least this size takes a cluster (`MINCLSIZE`).
const LARGE: usize = 857;

/// The bytes a record of a stream takes in addition to its data and control messages.
const RECORD: usize = size_of::<Record>() + 32;

/// The most bytes the mbufs of one buffer may take, however large its limit (`sb_max`).
const HELD_MAX: i64 = 262_144;

/// A control message or files that came with a message.
pub(super) enum Control {
    /// A control message: level, type, data.
    Data(i32, i32, Box<[u8]>),
    /// Open files (`SCM_RIGHTS`).
    Rights(Rights),
}

impl Control {
    /// Returns the bytes it counts for (`CMSG_SPACE`): an open file counts as a pointer.
    pub fn len(&self) -> usize {
        match self {
            Control::Data(_, _, data) => 16 + data.len().next_multiple_of(8),
            Control::Rights(rights) => 16 + 8 * rights.files().len(),
        }
    }

    fn held(&self) -> usize {
        match self {
            Control::Data(..) => MBUF,
            Control::Rights(_) => MBUF + self.len(),
        }
    }
}

/// A message; in a stream, the bytes up to the next control message or MSG_EOR.
#[derive(Default)]
pub(super) struct Record {
    /// The sender's name, where the protocol passes it.
    pub name: Option<Box<[u8]>>,
    pub control: Vec<Control>,
    pub data: VecDeque<u8>,
    /// True if the record ends with MSG_EOR.
    pub ends: bool,
    /// The bytes of mbufs; in a stream, for which mbufs are not counted, the bytes taken in addition to the
    /// data.
    held: usize,
}

impl Record {
    /// Returns a message.
    pub fn message(name: Option<Box<[u8]>>, control: Vec<Control>, data: Vec<u8>) -> Record {
        let named = name.as_ref().map_or(0, |_| MBUF);
        let held = named + buffers(data.len()) + control.iter().map(Control::held).sum::<usize>();
        Record { name, control, data: data.into(), ends: false, held }
    }

    /// Returns the bytes it counts for in a buffer (`sb_cc`).
    pub fn len(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.len());
        name + self.control_len() + self.data.len()
    }

    pub fn control_len(&self) -> usize {
        self.control.iter().map(Control::len).sum()
    }
}

/// Returns the bytes of mbufs that a message of `len` bytes takes. NetBSD: `sosend`.
pub(super) fn buffers(len: usize) -> usize {
    let (mut held, mut left, mut first) = (0, len, true);
    loop {
        let (cost, fits) = match (left >= LARGE, first) {
            (true, true) => (MBUF + CLUSTER, FIRST_CLUSTER),
            (true, false) => (MBUF + CLUSTER, CLUSTER),
            (false, true) => (MBUF, FIRST),
            (false, false) => (MBUF, NEXT),
        };
        held += cost;
        left = left.saturating_sub(fits);
        first = false;
        if left == 0 {
            return held;
        }
    }
}

/// Charges the open files in control messages to the receiving family. Returns `false` if it would have too
/// many in flight.
fn arrive(control: &mut [Control], at: &Arc<ResourceGroup>) -> bool {
    control.iter_mut().all(|control| match control {
        Control::Rights(rights) => rights.arrive(at),
        Control::Data(..) => true,
    })
}

/// Returns the bound on mbufs that belongs to a limit in bytes (`sb_mbmax`).
pub(super) fn held_limit(limit: i64) -> i64 {
    (2 * limit).min(HELD_MAX)
}

/// The receive buffer of a socket.
#[derive(Default)]
pub(super) struct Buffer {
    records: VecDeque<Record>,
    /// The bytes it counts for (`sb_cc`).
    count: usize,
    /// The bytes of mbufs, where these are counted (`sb_mbcnt`).
    held: usize,
    /// The bytes paid for beyond [`SPARE`].
    paid: u64,
    /// The number of messages dropped for lack of room.
    pub overflowed: i32,
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn held(&self) -> usize {
        self.held
    }

    pub fn front(&self) -> Option<&Record> {
        self.records.front()
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Returns `true` if there is a record after the first.
    pub fn has_next(&self) -> bool {
        self.records.len() > 1
    }

    /// Returns the bytes to pay for `count` bytes in the buffer, without the spare ones.
    fn price(count: usize) -> u64 {
        (count as u64).saturating_sub(SPARE).next_multiple_of(STEP)
    }

    /// Returns the bytes the buffer costs: the larger of the two counts.
    fn cost(&self) -> usize {
        self.count.max(self.held)
    }

    /// Pays for `more` bytes. Returns `false` if `resource_group` cannot.
    fn pay(&mut self, more: usize, resource_group: &Arc<ResourceGroup>) -> bool {
        let price = Buffer::price(self.cost() + more);
        if price <= self.paid {
            return true;
        }
        let taken = resource_group.take_bytes(price - self.paid);
        if taken {
            self.paid = price;
        }
        taken
    }

    /// Gives back what is no longer needed, and shrinks a deque that has become much too large.
    fn settle(&mut self, resource_group: &Arc<ResourceGroup>) {
        if let Some(record) = self.records.front_mut() {
            let (len, capacity) = (record.data.len(), record.data.capacity());
            if capacity as u64 > STEP && capacity / 2 > len {
                record.data.shrink_to(len);
            }
        } else if self.records.capacity() > 4 {
            self.records = VecDeque::new();
        }
        let price = Buffer::price(self.cost());
        if price < self.paid {
            resource_group.give_bytes(self.paid - price);
            self.paid = price;
        }
    }

    /// Adds a record. Returns it if `resource_group` cannot pay for it.
    pub fn push(
        &mut self,
        mut record: Record,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<(), Record> {
        if !arrive(&mut record.control, resource_group)
            || !self.pay(record.len().max(record.held), resource_group)
        {
            return Err(record);
        }
        self.count += record.len();
        self.held += record.held;
        self.records.push_back(record);
        Ok(())
    }

    /// Adds bytes of a stream, as many as can be paid for, and returns their number. `control` goes before
    /// the first byte; if it cannot be paid for, nothing is added.
    pub fn append(
        &mut self,
        data: &[u8],
        control: &mut Vec<Control>,
        resource_group: &Arc<ResourceGroup>,
    ) -> usize {
        if !arrive(control, resource_group) {
            return 0;
        }
        let extra: usize = control.iter().map(Control::len).sum();
        let count = if self.pay(data.len() + extra, resource_group) {
            data.len()
        } else {
            let free = SPARE + self.paid;
            let free = usize::try_from(free).unwrap_or(0).saturating_sub(self.cost());
            match free.checked_sub(extra) {
                Some(free) => free.min(data.len()),
                None => return 0,
            }
        };
        let joins = control.is_empty() && self.records.back().is_some_and(|last| !last.ends);
        if !joins && (count > 0 || !control.is_empty()) {
            let held = RECORD + control.iter().map(Control::held).sum::<usize>();
            self.held += held;
            let control = std::mem::take(control);
            self.records.push_back(Record { control, held, ..Record::default() });
        }
        if let Some(last) = self.records.back_mut() {
            last.data.extend(&data[..count]);
        }
        self.count += count + extra;
        count
    }

    /// Ends the last record (MSG_EOR).
    pub fn end_record(&mut self) {
        if let Some(last) = self.records.back_mut() {
            last.ends = true;
        }
    }

    /// Takes out the first record.
    pub fn pop(&mut self, resource_group: &Arc<ResourceGroup>) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.count -= record.len();
        self.held -= record.held;
        self.settle(resource_group);
        Some(record)
    }

    /// Takes the control messages of the first record.
    pub fn take_control(&mut self) -> Vec<Control> {
        let Some(record) = self.records.front_mut() else { return Vec::new() };
        self.count -= record.control_len();
        std::mem::take(&mut record.control)
    }

    /// Returns the first `count` bytes of the first record, without taking them.
    pub fn bytes(&mut self, count: usize) -> &[u8] {
        match self.records.front_mut() {
            Some(record) => &record.data.make_contiguous()[..count],
            None => &[],
        }
    }

    /// Takes out the first `count` bytes of the first record, and the record with its last byte. Returns
    /// `true` if it ended with MSG_EOR there.
    pub fn consume(&mut self, count: usize, resource_group: &Arc<ResourceGroup>) -> bool {
        let Some(record) = self.records.front_mut() else { return false };
        record.data.drain(..count);
        self.count -= count;
        let over = record.data.is_empty();
        let ends = over && record.ends;
        if over {
            self.count -= record.control_len();
            self.held -= record.held;
            self.records.pop_front();
        }
        self.settle(resource_group);
        ends
    }

    /// Takes out everything. The caller drops the result without a lock held.
    pub fn clear(&mut self, resource_group: &Arc<ResourceGroup>) -> VecDeque<Record> {
        let records = std::mem::take(&mut self.records);
        (self.count, self.held) = (0, 0);
        self.settle(resource_group);
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn messages_take_the_buffers_they_take() {
        for (len, held) in [(0, 512), (400, 512), (401, 1024), (856, 1024), (857, 2560)] {
            assert_eq!(buffers(len), held, "{len}");
        }
        for (len, held) in [(1972, 2560), (1973, 3072), (2428, 3072), (2429, 3584)] {
            assert_eq!(buffers(len), held, "{len}");
        }
    }

    #[test]
    fn what_is_paid_is_given_back() {
        let counters: Arc<crate::limits::Counters> = Arc::default();
        let mut counters = counters;
        Arc::get_mut(&mut counters).unwrap().limits.bytes = 10_000;
        let resource_group = ResourceGroup::new(&counters);
        let mut buffer = Buffer::default();
        assert_eq!(buffer.append(&[1; 1000], &mut Vec::new(), &resource_group), 1000);
        assert_eq!(counters.bytes.get(), 0);
        assert_eq!(buffer.append(&[2; 8000], &mut Vec::new(), &resource_group), 8000);
        assert_eq!(counters.bytes.get(), 8192);
        // No more can be paid for, but what is paid for already may be filled.
        assert_eq!(buffer.append(&[3; 8000], &mut Vec::new(), &resource_group), 216);
        assert!(buffer.push(Record::message(None, Vec::new(), vec![1]), &resource_group).is_err());
        assert!(!buffer.consume(9000, &resource_group));
        assert_eq!((buffer.len(), counters.bytes.get()), (216, 0));
        assert!(buffer.push(Record::message(None, Vec::new(), vec![1]), &resource_group).is_ok());
        assert_eq!(buffer.clear(&resource_group).len(), 2);
        assert_eq!((buffer.len(), counters.bytes.get()), (0, 0));
    }
}
