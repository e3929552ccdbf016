//! Threads that take turns, so that calls which wait on their threads are part of a schedule.
//!
//! One thread has the turn: that of the schedule, or that of one call. A call's thread gives the turn
//! back when the call ends, and wherever the call would wait ([`wait_until`]). It gets the turn again
//! when the schedule says so, and keeps it if what the call waits for has come. So everything happens in
//! one order, which the seed decides.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};

thread_local! {
    /// The means by which a call's thread gives its turn back and gets it again.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// An order to a call's thread for its turn.
enum Order {
    /// Run this call.
    Run(Box<dyn FnOnce() + Send>),
    /// Look if what the call waits for has come.
    Look,
    /// Leave the call: the schedule is over.
    Leave,
}

/// The report of a call's thread at the end of its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Report {
    Ended,
    /// The call waits; before that, it did something in its turn.
    Waits,
    /// The call still waits for the same.
    StillWaits,
}

struct Turn {
    orders: Receiver<Order>,
    reports: Sender<Report>,
}

/// The panic that ends a call which was waiting when the schedule ended.
struct Left;

/// Waits for what others bring. On a thread that takes no turns, this does nothing: the code after it
/// waits.
pub fn wait_until(has_come: impl Fn() -> bool) {
    TURN.with_borrow(|turn| {
        let Some(turn) = turn else { return };
        let mut report = Report::Waits;
        while !has_come() {
            let _ = turn.reports.send(report);
            match turn.orders.recv() {
                Ok(Order::Look) => report = Report::StillWaits,
                _ => resume_unwind(Box::new(Left)),
            }
        }
    });
}

/// The threads of a schedule's calls. They are used again, by the next schedule, too.
#[derive(Default)]
pub struct Troupe {
    idle: Vec<Member>,
    waiting: Vec<Member>,
}

struct Member {
    orders: Sender<Order>,
    reports: Receiver<Report>,
}

impl Member {
    fn new() -> Member {
        let (orders, of_mine) = channel();
        let (to_me, reports) = channel();
        std::thread::spawn(move || {
            // The thread keeps its turn, and the code that runs on it borrows the turn.
            TURN.set(Some(Turn { orders: of_mine, reports: to_me }));
            while let Some(act) = next_act() {
                act();
                TURN.with_borrow(|turn| {
                    let _ = turn.as_ref().expect("set above").reports.send(Report::Ended);
                });
            }
        });
        Member { orders, reports }
    }

    fn take_turn(&self, order: Order) -> Report {
        self.orders.send(order).expect("its thread is there");
        self.reports.recv().expect("a call's panics are caught")
    }
}

/// Waits for an order, and returns the call that this thread is to run next, if there is one.
fn next_act() -> Option<Box<dyn FnOnce() + Send>> {
    TURN.with_borrow(|turn| match turn.as_ref()?.orders.recv() {
        Ok(Order::Run(act)) => Some(act),
        _ => None,
    })
}

impl Troupe {
    /// Runs `act` on a thread of its own until it ends or waits.
    pub fn run(&mut self, act: Box<dyn FnOnce() + Send>) {
        let member = self.idle.pop().unwrap_or_else(Member::new);
        match member.take_turn(Order::Run(act)) {
            Report::Ended => self.idle.push(member),
            Report::Waits | Report::StillWaits => self.waiting.push(member),
        }
    }

    /// Returns the number of calls that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets a call that waits go on. Returns `true` if what it waits for had come.
    pub fn go_on(&mut self, at: usize) -> bool {
        match self.waiting[at].take_turn(Order::Look) {
            Report::StillWaits => false,
            Report::Waits => true,
            Report::Ended => {
                self.idle.push(self.waiting.swap_remove(at));
                true
            }
        }
    }

    /// Ends all calls that wait.
    pub fn leave(&mut self) {
        while let Some(member) = self.waiting.pop() {
            match member.take_turn(Order::Leave) {
                Report::Ended => self.idle.push(member),
                // The call was ended and waits for something else: its thread ends with its channels.
                Report::Waits | Report::StillWaits => drop(member),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[test]
    fn who_waits_goes_on_when_it_is_told_to_and_what_it_waits_for_has_come() {
        let step = Arc::new(AtomicU32::new(0));
        let mut troupe = Troupe::default();
        let its = step.clone();
        troupe.run(Box::new(move || {
            wait_until(|| its.load(SeqCst) == 1);
            its.store(2, SeqCst);
            wait_until(|| its.load(SeqCst) == 3);
            its.store(4, SeqCst);
        }));
        assert_eq!(troupe.waiting(), 1);
        assert!(!troupe.go_on(0), "nothing has come");
        step.store(1, SeqCst);
        assert!(troupe.go_on(0));
        assert_eq!((step.load(SeqCst), troupe.waiting()), (2, 1), "it waits again");
        step.store(3, SeqCst);
        assert!(troupe.go_on(0));
        assert_eq!((step.load(SeqCst), troupe.waiting()), (4, 0));
    }

    #[test]
    fn who_waits_can_be_left() {
        let mut troupe = Troupe::default();
        let ran = Arc::new(AtomicU32::new(0));
        let its = ran.clone();
        troupe.run(Box::new(move || {
            let caught = std::panic::catch_unwind(|| wait_until(|| false));
            its.store(if caught.is_err() { 1 } else { 2 }, SeqCst);
        }));
        troupe.leave();
        assert_eq!((ran.load(SeqCst), troupe.waiting()), (1, 0));
    }
}
