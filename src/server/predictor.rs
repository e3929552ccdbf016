//! The prediction of which calls copy in what their arguments name, so that the client can be asked
//! ahead.
//!
//! A call whose copies wait on their thread gives its core away for each copy and takes one again: two
//! switches of threads, which cost more than the call. If a call's arguments name what it will copy in
//! (see [`kernel::Kernel::copies_in`]), the client can be asked when the call arrives, and the call
//! starts with the bytes at hand. But a call may fail before it looks at the bytes, and then their
//! address may be bad, which stock clients do not take well. So a client is asked ahead only if its last
//! call of the same number on the same descriptor did want the bytes.

/// The calls of one client that wanted what their arguments named: number and descriptor, latest first.
#[derive(Debug, Default)]
pub struct PrefetchPredictor([Option<(u16, u32)>; 3]);

impl PrefetchPredictor {
    /// Returns `true` if the last call of this number on this descriptor wanted the bytes.
    pub fn has(&self, number: i32, descriptor: u64) -> bool {
        entry(number, descriptor).is_some_and(|entry| self.0.contains(&Some(entry)))
    }

    /// Notes whether a call of this number on this descriptor wanted the bytes.
    pub fn note(&mut self, number: i32, descriptor: u64, predictor: bool) {
        let Some(entry) = entry(number, descriptor) else {
            return;
        };
        let at = self.0.iter().position(|noted| *noted == Some(entry));
        match (at, predictor) {
            (Some(at), false) => self.0[at] = None,
            (Some(_), true) | (None, false) => {}
            (None, true) => {
                self.0.rotate_right(1);
                self.0[0] = Some(entry);
            }
        }
    }
}

fn entry(number: i32, descriptor: u64) -> Option<(u16, u32)> {
    Some((u16::try_from(number).ok()?, descriptor as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_such_call_did_counts() {
        let mut predictor = PrefetchPredictor::default();
        assert!(!predictor.has(4, 3), "nothing is known of a first call");
        predictor.note(4, 3, true);
        assert!(predictor.has(4, 3));
        assert!(
            !predictor.has(4, 5) && !predictor.has(174, 3),
            "of this descriptor, and this number"
        );
        predictor.note(4, 3, false);
        assert!(!predictor.has(4, 3));
    }

    #[test]
    fn a_few_are_remembered() {
        let mut predictor = PrefetchPredictor::default();
        for descriptor in 0..4 {
            predictor.note(4, descriptor, true);
            predictor.note(4, descriptor, true);
        }
        assert!(!predictor.has(4, 0), "the oldest is forgotten");
        assert!((1..4).all(|descriptor| predictor.has(4, descriptor)));
        predictor.note(-1, 7, true);
        assert!(!predictor.has(-1, 7), "there is no such call");
    }
}
