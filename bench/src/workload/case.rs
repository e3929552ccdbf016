//! A load of a comparison: a call, and the settings for it that differ from the command's.

use std::str::FromStr;

use super::{Call, connections_from, in_flight_from, number};

/// The highest percentage of a rate.
const MAX_PERCENT: u32 = 200;

/// `CALL[@CONNECTIONS[xIN_FLIGHT]][%PERCENT]`, as in `getpid`, `pwrite:64k@16` and `getpid@64x16%50`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub call: Call,
    pub connections: Option<u32>,
    pub in_flight: Option<u32>,
    /// The percentage of the rate that the same server had in a closed loop, at which calls are made.
    pub percent: Option<u32>,
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let (text, percent) = match text.split_once('%') {
            Some((text, percent)) => (text, Some(number(percent, MAX_PERCENT)?)),
            None => (text, None),
        };
        let Some((call, with)) = text.split_once('@') else {
            return Ok(Case { call: text.parse()?, connections: None, in_flight: None, percent });
        };
        let (connections, in_flight) = match with.split_once('x') {
            Some((connections, in_flight)) => (connections, Some(in_flight)),
            None => (with, None),
        };
        Ok(Case {
            call: call.parse()?,
            connections: Some(connections_from(connections)?),
            in_flight: in_flight.map(in_flight_from).transpose()?,
            percent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_may_say_with_what() {
        let case = |connections, in_flight| Case {
            call: Call::Getpid,
            connections,
            in_flight,
            percent: None,
        };
        assert_eq!("getpid".parse(), Ok(case(None, None)));
        assert_eq!("getpid@64".parse(), Ok(case(Some(64), None)));
        assert_eq!("getpid@64x16".parse(), Ok(case(Some(64), Some(16))));
        assert_eq!("getpid%50".parse(), Ok(Case { percent: Some(50), ..case(None, None) }));
        let half = Case { percent: Some(50), ..case(Some(64), Some(16)) };
        assert_eq!("getpid@64x16%50".parse(), Ok(half));
        for text in ["getpid%0", "getpid%201", "getpid%50@64", "getpid%", "getpid%50%"] {
            assert!(text.parse::<Case>().is_err(), "{text:?}");
        }
        for text in ["getpid@", "getpid@0", "getpid@x16", "getpid@1x", "getpid@1x0", "@1"] {
            assert!(text.parse::<Case>().is_err(), "{text:?}");
        }
    }
}
