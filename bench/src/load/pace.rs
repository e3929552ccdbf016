//! The schedule of calls at a fixed rate. Arithmetic only; times are nanoseconds since the start.

/// The schedule of one of several threads that share a rate.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Calls a second of all threads, times this thread's share.
    rate: u128,
    /// The sum of all shares, by which `rate` is divided.
    of: u128,
    /// The time at which the first call is due.
    first: u64,
    /// The number of the next call.
    next: u64,
}

const SECOND: u128 = 1_000_000_000;

/// The most steps in which calls that were never sent are counted.
const STEPS: u64 = 100_000;

impl Pace {
    /// Makes a schedule for `share` of `all` parts of `rate` calls a second. The calls of `before`
    /// other parts come first, so the calls of all parts are spread evenly. Only `before` may be 0.
    pub fn new(rate: u64, share: u64, all: u64, before: u64) -> Pace {
        let first = u128::from(before) * SECOND / (u128::from(rate) * u128::from(all));
        let (rate, of) = (u128::from(rate) * u128::from(share), u128::from(all));
        Pace { rate, of, first: first as u64, next: 0 }
    }

    /// Returns the time at which the next call is due.
    pub fn due(&self) -> u64 {
        self.due_of(self.next)
    }

    /// Goes on to the next call.
    pub fn advance(&mut self) {
        self.next += 1;
    }

    fn due_of(&self, number: u64) -> u64 {
        let after = u128::from(number) * SECOND * self.of / self.rate;
        self.first.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// Returns the number of calls due by this time, sent or not.
    pub fn due_by(&self, now: u64) -> u64 {
        let Some(since) = now.checked_sub(self.first) else { return 0 };
        let count = ((u128::from(since) + 1) * self.rate).div_ceil(SECOND * self.of);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Returns the calls that were due before this time and are not sent: a latency and a number of
    /// calls each. If there are very many, neighbouring calls are counted together.
    pub fn late(&self, now: u64) -> impl Iterator<Item = (u64, u64)> {
        let end = now.checked_sub(1).map_or(0, |before| self.due_by(before)).max(self.next);
        let step = (end - self.next).div_ceil(STEPS).max(1);
        (self.next..end).step_by(step as usize).map(move |number| {
            let count = step.min(end - number);
            (now.saturating_sub(self.due_of(number + count / 2)), count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(pace: &mut Pace, count: usize) -> Vec<u64> {
        let next = |pace: &mut Pace| (pace.due(), pace.advance()).0;
        (0..count).map(|_| next(pace)).collect()
    }

    #[test]
    fn calls_are_due_at_a_fixed_rate() {
        let mut pace = Pace::new(1000, 1, 1, 0);
        assert_eq!(dues(&mut pace, 3), [0, 1_000_000, 2_000_000]);
        // Rounding errors do not add up.
        let mut pace = Pace::new(3, 1, 1, 0);
        assert_eq!(dues(&mut pace, 4), [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn shares_make_the_whole() {
        let parts = [(3, 0), (3, 3), (4, 6)];
        let paces = parts.map(|(share, before)| Pace::new(1000, share, 10, before));
        let all: u64 = paces.iter().map(|pace| pace.due_by(10_000_000_000 - 1)).sum();
        assert_eq!(all, 10_000);
        let mut first: Vec<u64> = paces.iter().map(Pace::due).collect();
        first.dedup();
        assert_eq!(first.len(), 3, "they do not start at once");
        assert!(first.iter().all(|&due| due < 1_000_000));
    }

    #[test]
    fn what_is_due_is_counted() {
        for rate in [1, 3, 7, 1000, 999_999, 100_000_000] {
            let mut pace = Pace::new(rate, 2, 3, 1);
            let dues = dues(&mut pace, 1000);
            for (number, &due) in dues.iter().enumerate() {
                let count = dues.iter().filter(|&&other| other <= due).count() as u64;
                assert_eq!(pace.due_by(due), count, "rate {rate}, call {number}");
                if due > 0 && number > 0 && dues[number - 1] < due {
                    assert_eq!(pace.due_by(due - 1), number as u64, "rate {rate}, call {number}");
                }
            }
        }
        assert_eq!(Pace::new(1, 1, 2, 1).due_by(0), 0, "not before the first");
    }

    #[test]
    fn a_day_at_the_highest_rate_is_no_overflow() {
        let day = 86_400 * 1_000_000_000;
        let pace = Pace::new(100_000_000, 1_000_000, 1_000_000, 0);
        assert_eq!(pace.due_by(day - 1), 86_400 * 100_000_000);
        let late: Vec<_> = pace.late(day - 1).collect();
        assert!(late.len() as u64 <= STEPS);
        assert_eq!(late.iter().map(|&(_, count)| count).sum::<u64>(), 86_400 * 100_000_000);
        assert!(late.is_sorted_by(|a, b| a.0 > b.0));
    }

    #[test]
    fn what_is_late_is_late_since_it_was_due() {
        let mut pace = Pace::new(1000, 1, 1, 0);
        dues(&mut pace, 2);
        assert_eq!(pace.late(2_000_000).count(), 0, "this one is not late");
        assert_eq!(pace.late(2_000_001).count(), 1);
        let late: Vec<_> = pace.late(4_500_000).collect();
        assert_eq!(late, [(2_500_000, 1), (1_500_000, 1), (500_000, 1)]);
    }
}
