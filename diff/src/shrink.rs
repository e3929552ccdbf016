//! Makes short sequences out of long ones: leaves out steps while the same difference remains.

/// The most tries for one difference.
pub const MOST_TRIES: usize = 150;

/// Leaves out as many steps as possible; `differs` returns whether a shorter sequence still shows the
/// difference. Larger pieces are tried first. Ends early if `differs` fails.
pub fn shrink<T: Clone, E>(
    steps: &[T],
    mut differs: impl FnMut(&[T]) -> Result<bool, E>,
) -> Result<Vec<T>, E> {
    let mut kept = steps.to_vec();
    let mut tries = 0;
    let mut piece = (kept.len() / 2).max(1);
    loop {
        let before = kept.len();
        // Steps are left out from the end: later steps need earlier ones, not the other way round.
        let mut end = kept.len();
        while end > 0 && kept.len() > 1 {
            let start = end.saturating_sub(piece);
            if tries == MOST_TRIES {
                return Ok(kept);
            }
            tries += 1;
            let shorter = [&kept[..start], &kept[end..]].concat();
            if !shorter.is_empty() && differs(&shorter)? {
                kept = shorter;
            }
            end = start;
        }
        if piece == 1 && kept.len() == before {
            return Ok(kept);
        }
        piece = (piece / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn shrunk(steps: &[i32], needed: &[i32]) -> (Vec<i32>, usize) {
        let mut tries = 0;
        let kept = shrink(steps, |steps| {
            tries += 1;
            Ok::<_, Infallible>(needed.iter().all(|step| steps.contains(step)))
        });
        (kept.unwrap(), tries)
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let steps: Vec<i32> = (0..40).collect();
        for needed in [&[39][..], &[0], &[3, 17, 39], &[38, 39]] {
            assert_eq!(shrunk(&steps, needed).0, needed);
        }
        assert_eq!(shrunk(&[5], &[5]).0, [5]);
        assert_eq!(shrunk(&[], &[]).0, []);
    }

    #[test]
    fn tries_are_bounded() {
        let steps: Vec<i32> = (0..500).collect();
        let (kept, tries) = shrunk(&steps, &steps);
        assert_eq!((kept.len(), tries), (500, MOST_TRIES));
    }

    #[test]
    fn an_error_ends_it() {
        assert_eq!(shrink(&[1, 2, 3], |_| Err::<bool, _>("gone")), Err("gone"));
    }
}
