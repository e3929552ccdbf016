//! How a server is set up that a stock program asked for: by the environment.

use std::time::Duration;

use crate::server::Config;
use crate::url::Url;

/// A variable that says something it cannot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: not {wanted}")]
pub struct BadSetting {
    name: &'static str,
    value: String,
    wanted: &'static str,
}

/// The defaults, changed by the environment:
///
/// - `RUMPRING_CPUS`: the CPUs workers run on, as in `0,2-3`;
/// - `RUMPRING_SPIN`: microseconds a worker looks for work before it sleeps;
/// - `RUMPRING_CONNECTIONS`: most clients at once;
/// - `RUMPRING_MAX_ASLEEP`: most calls that may sleep at once, each on a thread;
/// - `RUMPRING_DRAIN`: seconds that calls in flight have when the server is to stop.
pub fn from_env(url: Url) -> Result<Config, BadSetting> {
    from(url, |name| std::env::var(name).ok())
}

fn from(url: Url, variable: impl Fn(&str) -> Option<String>) -> Result<Config, BadSetting> {
    let mut config = Config::new(url);
    let get = |name, wanted| {
        let value = variable(name)?;
        Some((value.clone(), BadSetting { name, value, wanted }))
    };
    if let Some((value, bad)) = get("RUMPRING_CPUS", "a list of CPUs such as 0,2-3") {
        config.pool.cpus = crate::pool::parse_cpus(&value).map_err(|_| bad)?;
    }
    if let Some((value, bad)) = get("RUMPRING_SPIN", "a number of microseconds") {
        let spin = Duration::from_micros(value.parse().map_err(|_| bad)?);
        (config.ring.spin, config.pool.spin) = (spin, spin);
    }
    if let Some((value, bad)) = get("RUMPRING_CONNECTIONS", "a number of clients over 0") {
        config.ring.sockets = value.parse::<std::num::NonZeroU32>().map_err(|_| bad)?.get();
    }
    if let Some((value, bad)) = get("RUMPRING_MAX_ASLEEP", "a number of calls over 0") {
        config.pool.max_asleep = value.parse().map_err(|_| bad)?;
    }
    if let Some((value, bad)) = get("RUMPRING_DRAIN", "a number of seconds") {
        config.limits.drain = Duration::from_secs(value.parse().map_err(|_| bad)?);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_done_and_what_cannot_be_is_refused() {
        let url: Url = "unix://s".parse().unwrap();
        let set = |name: &'static str, value: &'static str| {
            from(url.clone(), move |asked| (asked == name).then(|| value.to_string()))
        };
        assert_eq!(set("RUMPRING_CONNECTIONS", "7").unwrap().ring.sockets, 7);
        assert_eq!(set("RUMPRING_MAX_ASLEEP", "9").unwrap().pool.max_asleep.get(), 9);
        let spin = Duration::from_micros(30);
        let spinning = set("RUMPRING_SPIN", "30").unwrap();
        assert_eq!((spinning.pool.spin, spinning.ring.spin), (spin, spin));
        for (name, value) in [
            ("RUMPRING_CONNECTIONS", "0"),
            ("RUMPRING_MAX_ASLEEP", "many"),
            ("RUMPRING_SPIN", "-1"),
            ("RUMPRING_CPUS", "x"),
            ("RUMPRING_DRAIN", "1.5"),
        ] {
            let error = set(name, value).map(drop).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
