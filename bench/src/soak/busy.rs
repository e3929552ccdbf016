//! The mixed load of a soak: connections that stay, calls at a fixed rate, every answer checked.

use std::io;
use std::time::Duration;

use super::run::Run;
use crate::load::{Load, Measured, Plan, Settings, Watch};

/// The pause before the load connects anew after a failure.
const PAUSE: Duration = Duration::from_secs(1);

struct Onlooker<'a>(&'a Run);

impl Watch for Onlooker<'_> {
    fn is_interrupted(&self) -> bool {
        self.0.is_over()
    }
}

/// Keeps the load going until the end. A load that fails is counted as a wrong and started again.
pub fn keep_busy(run: &Run, plan: Plan, rate: u64) -> io::Result<Measured> {
    let settings = Settings { rate: Some(rate), ..Settings::default() };
    let mut all = Measured::nothing(plan.call.parts().len())?;
    while !run.is_over() {
        match once(run, plan, &settings) {
            Ok(measured) => {
                let elapsed = all.elapsed + measured.elapsed;
                all.add(&measured)?;
                all.elapsed = elapsed;
            }
            // The load may have been told to end before all clients had connected.
            Err(_) if run.is_over() => {}
            Err(error) => {
                run.wrong("load", error.to_string());
                run.sleep(PAUSE);
            }
        }
    }
    Ok(all)
}

fn once(run: &Run, plan: Plan, settings: &Settings) -> io::Result<Measured> {
    let mut onlooker = Onlooker(run);
    let load = Load::connect(&run.url, plan, settings, &onlooker)?;
    load.run(Duration::ZERO, run.left(), &mut onlooker)
}
