//! The request for a comparison: its checks, the turns it makes, and the description of the method.

use serde_json::{Value, json};

use super::Compare;
use super::load_spec::{LoadSpec, When};
use super::target::{Target, What};
use super::target_filter::TargetFilter;
use crate::load::{LoadArgs, Plan};
use crate::workload::Case as Wanted;

impl Compare {
    /// Returns the errors that are known before the first turn.
    pub fn check(&self) -> Result<(), String> {
        let names = self.names();
        if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            return Err(format!("two servers have the name {}", names[twice]));
        }
        let strangers =
            self.calls.iter().filter_map(|target_filter| target_filter.stranger(&names));
        let mut strangers = strangers
            .chain(self.idle.iter().filter_map(|target_filter| target_filter.stranger(&names)));
        if let Some(name) = strangers.next() {
            return Err(format!("no server has the name {name}"));
        }
        let running = self.targets.iter().find(|target| matches!(target.what, What::Url(_)));
        if let (Some(Target { name, .. }), false) = (running, self.idle.is_empty()) {
            return Err(format!("--idle: {name} is not started here, so its memory is unknown"));
        }
        self.check_demands()
    }

    fn names(&self) -> Vec<&str> {
        self.targets.iter().map(|target| target.name.as_str()).collect()
    }

    /// Returns the errors in the loads that are asked for.
    fn check_demands(&self) -> Result<(), String> {
        let demands = self.demands();
        for (number, (load_spec, who)) in demands.iter().enumerate() {
            let Plan { call, connections, .. } = load_spec.plan;
            call.check(connections)?;
            if load_spec.is_open() {
                call.check_rate()?;
            }
            let has_all = |(other, of_other): &(LoadSpec, Vec<bool>)| {
                *other == load_spec.closed()
                    && who.iter().zip(of_other).all(|(one, other)| one <= other)
            };
            if matches!(load_spec.when, When::Percent(_)) && !demands[..number].iter().any(has_all)
            {
                return Err(format!(
                    "{load_spec}: {} in a closed loop has to come before it, with the same servers",
                    load_spec.closed()
                ));
            }
        }
        Ok(())
    }

    /// Returns the targets that others are compared to.
    pub fn bases(&self) -> Result<Vec<usize>, String> {
        let names = self.names();
        let base = |name: &String| {
            let found = names.iter().position(|other| other == name);
            found.ok_or_else(|| format!("--ratio-to {name}: no server has that name"))
        };
        let bases: Vec<usize> = self.ratio_to.iter().map(base).collect::<Result<_, _>>()?;
        Ok(if bases.is_empty() { vec![0] } else { bases })
    }

    /// Returns the method, for programs.
    pub fn settings(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "seconds": self.seconds.as_secs_f64(),
            "warm_up": self.warm_up.as_secs_f64(),
            "kept_servers": self.keep,
            "load_threads": self.load.threads,
            "load_spin_us": self.load.spin,
            "calls_per_second": self.load.rate,
        })
    }

    /// Returns the method, in words.
    pub fn how(&self) -> String {
        let LoadArgs { rate, threads, spin } = self.load;
        format!(
            "{} turns each, in turn, of {} s after {} s of warm-up, {}; {}{}; {}",
            self.rounds,
            self.seconds.as_secs_f64(),
            self.warm_up.as_secs_f64(),
            if self.keep { "all on the same servers" } else { "a new server for each" },
            match threads {
                1 => "one load thread".into(),
                // There are at most as many threads as connections.
                threads => format!("up to {threads} load threads"),
            },
            match spin {
                0 => String::new(),
                spin => format!(", looking for answers for up to {spin} us before sleeping"),
            },
            match rate {
                None => "closed loops, except where a rate is given".into(),
                Some(rate) => format!("an open loop of {rate} calls/s, all connections together"),
            },
        )
    }

    /// Returns the loads, in the order of the command line, and which targets take part.
    pub fn demands(&self) -> Vec<(LoadSpec, Vec<bool>)> {
        let mut demands = Vec::new();
        for target_filter in &self.calls {
            let Wanted { call, connections, in_flight, percent } = target_filter.what;
            let takes_part = |target: &Target| {
                let has_files = !matches!(target.what, What::Baseline(_));
                target_filter.has(&target.name) && (has_files || call.is_getpid())
            };
            let who: Vec<bool> = self.targets.iter().map(takes_part).collect();
            let connections = connections.map_or(self.connections.clone(), |n| vec![n]);
            let in_flight = in_flight.unwrap_or(self.in_flight);
            let when = match (percent, self.load.rate) {
                (Some(percent), _) => When::Percent(percent),
                (None, Some(rate)) => When::Rate(rate),
                (None, None) => When::Answered,
            };
            let plan = |connections| Plan { call, connections, in_flight };
            let load_spec = |connections| LoadSpec { plan: plan(connections), when };
            demands.extend(connections.into_iter().map(|n| (load_spec(n), who.clone())));
        }
        demands
    }

    /// Returns the numbers of idle connections, and which targets take part.
    pub fn idle_plans(&self) -> Vec<(u32, Vec<bool>)> {
        let who = |target_filter: &TargetFilter<u32>| {
            self.targets.iter().map(|t| target_filter.has(&t.name)).collect()
        };
        self.idle.iter().map(|target_filter| (target_filter.what, who(target_filter))).collect()
    }

    /// Returns the number of turns.
    pub fn rounds(&self) -> u64 {
        let loads = self.demands().into_iter().map(|(_, who)| who);
        let idle = self.idle_plans().into_iter().map(|(_, who)| who);
        let a_round = loads.chain(idle).flatten().filter(|takes_part| *takes_part).count();
        a_round as u64 * u64::from(self.rounds)
    }
}
