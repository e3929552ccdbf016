//! The first Ctrl-C ends the run and keeps the results so far; the second ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit status at the second signal: the one a shell reports for SIGINT.
const AT_ONCE: i32 = 130;

/// Returns a flag that the first SIGINT or SIGTERM sets. The second ends the program, after `last` is
/// called.
pub fn flag(last: fn()) -> io::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let flag = Arc::clone(&raised);
    let heed = move || {
        for _ in signals.forever() {
            if flag.swap(true, Ordering::Relaxed) {
                last();
                std::process::exit(AT_ONCE);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(heed)?;
    Ok(raised)
}
