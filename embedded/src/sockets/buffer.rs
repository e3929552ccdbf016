//! What waits in a socket to be received: bytes of a stream, or messages with their sender and what
//! else came along; and how much of it there may be.
//!
//! Source: NetBSD `sys/kern/uipc_socket2.c` (`struct sockbuf`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::rights::Rights;
use crate::limits::ResourceGroup;

/// What every socket has paid for: itself and this much that waits in it. So much it can always hold.
pub(super) const SPARE: u64 = 1024;

/// More is paid for, and given back, in steps of this many bytes.
const STEP: u64 = 4096;

/// Bytes of buffers (`MSIZE`, `MCLBYTES`), and what fits: a first one, another one, a large one at the
/// head of a message. Messages are counted in these, as the bound of a buffer of messages is.
const MBUF: usize = 512;
const CLUSTER: usize = 2048;
const FIRST: usize = 400;
const NEXT: usize = 456;
const FIRST_CLUSTER: usize = 1972;
/// From here on a cluster is taken (`MINCLSIZE`).
const LARGE: usize = 857;

/// What a record of a stream takes beside its bytes and control messages.
const RECORD: usize = size_of::<Record>() + 32;

/// The most buffers may take, however large a socket's buffer is (`sb_max`).
const HELD_MAX: i64 = 262_144;

/// What came with a message.
pub(super) enum Control {
    /// A control message: level, type, data.
    Data(i32, i32, Box<[u8]>),
    /// Open files (`SCM_RIGHTS`).
    Rights(Rights),
}

impl Control {
    /// What it counts for (`CMSG_SPACE`): open files as large as pointers.
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

/// A message; or of a stream, the bytes up to where the next control message or MSG_EOR lies.
#[derive(Default)]
pub(super) struct Record {
    /// Who sent it, where it says so.
    pub name: Option<Box<[u8]>>,
    pub control: Vec<Control>,
    pub data: VecDeque<u8>,
    /// It ends with MSG_EOR.
    pub ends: bool,
    /// Bytes of buffers; of a stream, where these do not count, what it takes beside its bytes.
    held: usize,
}

impl Record {
    /// A message of its own.
    pub fn message(name: Option<Box<[u8]>>, control: Vec<Control>, data: Vec<u8>) -> Record {
        let named = name.as_ref().map_or(0, |_| MBUF);
        let held = named + buffers(data.len()) + control.iter().map(Control::held).sum::<usize>();
        Record { name, control, data: data.into(), ends: false, held }
    }

    /// What it counts for in a buffer (`sb_cc`).
    pub fn len(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.len());
        name + self.control_len() + self.data.len()
    }

    pub fn control_len(&self) -> usize {
        self.control.iter().map(Control::len).sum()
    }
}

/// The buffers a message of `len` bytes takes. NetBSD: `sosend`.
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

/// Has open files that came along wait in a socket of this family; false if it has too many of them.
fn arrive(control: &mut [Control], at: &Arc<ResourceGroup>) -> bool {
    control.iter_mut().all(|control| match control {
        Control::Rights(rights) => rights.arrive(at),
        Control::Data(..) => true,
    })
}

/// How much a limit in bytes leaves for buffers (`sb_mbmax`).
pub(super) fn held_limit(limit: i64) -> i64 {
    (2 * limit).min(HELD_MAX)
}

/// What waits in a socket.
#[derive(Default)]
pub(super) struct Buffer {
    records: VecDeque<Record>,
    /// What it counts for (`sb_cc`).
    count: usize,
    /// Bytes of buffers, where these are counted (`sb_mbcnt`).
    held: usize,
    /// What is paid for beyond [`SPARE`].
    paid: u64,
    /// Messages for which there was no room.
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

    /// Whether there is a record after the first.
    pub fn has_next(&self) -> bool {
        self.records.len() > 1
    }

    /// What has to be paid for this much beyond the spare bytes.
    fn price(count: usize) -> u64 {
        (count as u64).saturating_sub(SPARE).next_multiple_of(STEP)
    }

    /// What it costs: the larger of what is counted.
    fn cost(&self) -> usize {
        self.count.max(self.held)
    }

    /// Pays for `more` bytes; false if `resource_group` cannot.
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

    /// Gives back what is no longer needed. A deque that has become much too large is made smaller.
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

    /// Adds a record; gives it back if `resource_group` cannot pay for it.
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

    /// Adds bytes of a stream, as many as can be paid for, and says how many. `control` goes before
    /// the first; if it cannot be paid for, nothing goes.
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

    /// What was sent so far ends here (MSG_EOR).
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

    /// Takes what came with the first record.
    pub fn take_control(&mut self) -> Vec<Control> {
        let Some(record) = self.records.front_mut() else { return Vec::new() };
        self.count -= record.control_len();
        std::mem::take(&mut record.control)
    }

    /// The first `count` bytes of the first record, for a look at them.
    pub fn bytes(&mut self, count: usize) -> &[u8] {
        match self.records.front_mut() {
            Some(record) => &record.data.make_contiguous()[..count],
            None => &[],
        }
    }

    /// Takes out the first `count` bytes of the first record, and the record with its last one. Says
    /// whether it ended with MSG_EOR there.
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

    /// Takes out everything. What is in it is to be dropped without a lock held.
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
        // No more can be paid for: what is paid for already may be filled.
        assert_eq!(buffer.append(&[3; 8000], &mut Vec::new(), &resource_group), 216);
        assert!(buffer.push(Record::message(None, Vec::new(), vec![1]), &resource_group).is_err());
        assert!(!buffer.consume(9000, &resource_group));
        assert_eq!((buffer.len(), counters.bytes.get()), (216, 0));
        assert!(buffer.push(Record::message(None, Vec::new(), vec![1]), &resource_group).is_ok());
        assert_eq!(buffer.clear(&resource_group).len(), 2);
        assert_eq!((buffer.len(), counters.bytes.get()), (0, 0));
    }
}
