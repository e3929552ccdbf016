//! A thing to be measured with some of the servers only: `WHAT=NAME+NAME`.

/// A thing to be measured, and the servers to measure it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFilter<T> {
    pub what: T,
    /// The names of the servers that take part; all servers do if this is empty.
    names: Vec<String>,
}

impl<T> TargetFilter<T> {
    /// Parses a filter; `parse` parses the text before the names. That text may contain a `=` itself:
    /// names are behind the last one, and only if the whole text does not parse without them.
    pub fn parse(
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<TargetFilter<T>, String> {
        let error = match parse(text) {
            Ok(what) => return Ok(TargetFilter { what, names: Vec::new() }),
            Err(error) => error,
        };
        let (what, names) = text.rsplit_once('=').ok_or(&error)?;
        let what = parse(what).map_err(|_| error)?;
        Ok(TargetFilter { what, names: names.split('+').map(String::from).collect() })
    }

    /// Returns `true` if a server takes part.
    pub fn has(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|other| other == name)
    }

    /// Returns a name that none of the servers has.
    pub fn stranger(&self, servers: &[&str]) -> Option<&str> {
        self.names.iter().map(String::as_str).find(|name| !servers.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Case, connections_from};

    #[test]
    fn names_stand_behind() {
        let all = TargetFilter::parse("16", connections_from).unwrap();
        assert_eq!(all.what, 16);
        assert!(all.has("a") && all.has("b"));
        let some = TargetFilter::parse("16=a+b", connections_from).unwrap();
        assert_eq!(some.what, 16);
        assert_eq!(["a", "b", "c"].map(|name| some.has(name)), [true, true, false]);
        assert_eq!((some.stranger(&["b", "a"]), some.stranger(&["a"])), (None, Some("b")));
        assert!(TargetFilter::parse("x=a", connections_from).is_err());
    }

    #[test]
    fn a_mix_has_its_own_equals_signs() {
        let mix = |text| TargetFilter::parse(text, str::parse::<Case>);
        let all = mix("mixed:getpid=3+read:4k=1").unwrap();
        assert_eq!(
            (all.what.call.to_string().as_str(), all.names.len()),
            ("mixed:getpid=3+read:4k=1", 0)
        );
        let some = mix("mixed:getpid=3+read:4k=1@2=a+b").unwrap();
        assert_eq!((some.what.connections, some.names), (Some(2), vec!["a".into(), "b".into()]));
        let error = mix("mixed:getpid=x").unwrap_err();
        assert!(error.contains("\"x\" is no number"), "{error}");
    }
}
