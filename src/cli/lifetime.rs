//! The life of a server as others see it: when the server is ready, and which signals end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::Failure;
use super::notify::Notifier;
use crate::output;
use crate::server::Control;
use rumpsp::url::Url;

/// Takes charge of the signals. To be called before there is another thread, so that all threads leave
/// the signals to the one that handles them.
pub fn take_signals() -> Result<Signals, Failure> {
    // A log file that has reached the limit of a file's size is like a full disk: it does not end the
    // server.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(Signals::new([SIGTERM, SIGINT, SIGUSR1])?)
}

/// Handles signals from here on: SIGTERM and SIGINT stop the server, and SIGUSR1 makes it print its
/// counters. Also has the lines for stderr written. The returned flag becomes `true` when a signal has
/// stopped the server.
pub fn heed(
    signals: Signals,
    control: &Control,
    notifier: Arc<Notifier>,
) -> Result<Arc<AtomicBool>, Failure> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (its_control, by_signal) = (control.clone(), stopped.clone());
    control.run_for_good("log", output::write_lines)?;
    control
        .run_for_good("signals", move || handle(signals, &its_control, &notifier, &by_signal))?;
    Ok(stopped)
}

fn handle(mut signals: Signals, control: &Control, notifier: &Notifier, stopped: &AtomicBool) {
    for signal in signals.forever() {
        if signal == SIGUSR1 {
            match control.stats() {
                Some(stats) => output::say(stats),
                None => tracing::warn!("the server does not answer"),
            }
        } else if stopped.swap(true, Ordering::SeqCst) {
            output::exit(1);
        } else if control.has_ended() {
            // A client has halted the kernel for good, and nothing else ends the process.
            output::exit(0);
        } else {
            notifier.stopping();
            control.stop();
        }
    }
}

/// Prints that connections are accepted.
pub fn ready(url: &Url) {
    output::say(format_args!("listening on {url}"));
}
