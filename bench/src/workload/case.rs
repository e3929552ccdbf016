//! A load of a comparison: a call, and what it is called with if that is not left to the lists.

use std::str::FromStr;

use super::{Call, connections_from, in_flight_from};

/// `CALL[@CONNECTIONS[xIN_FLIGHT]]`, as in `getpid`, `pwrite:64k@16` and `getpid@64x16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub call: Call,
    pub connections: Option<u32>,
    pub in_flight: Option<u32>,
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let Some((call, with)) = text.split_once('@') else {
            return Ok(Case { call: text.parse()?, connections: None, in_flight: None });
        };
        let (connections, in_flight) = match with.split_once('x') {
            Some((connections, in_flight)) => (connections, Some(in_flight)),
            None => (with, None),
        };
        Ok(Case {
            call: call.parse()?,
            connections: Some(connections_from(connections)?),
            in_flight: in_flight.map(in_flight_from).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_may_say_with_what() {
        let case = |connections, in_flight| Case { call: Call::Getpid, connections, in_flight };
        assert_eq!("getpid".parse(), Ok(case(None, None)));
        assert_eq!("getpid@64".parse(), Ok(case(Some(64), None)));
        assert_eq!("getpid@64x16".parse(), Ok(case(Some(64), Some(16))));
        for text in ["getpid@", "getpid@0", "getpid@x16", "getpid@1x", "getpid@1x0", "@1"] {
            assert!(text.parse::<Case>().is_err(), "{text:?}");
        }
    }
}
