//! The first Ctrl-C ends what goes on and keeps what there is; the second ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What the program exits with at the second signal: as a shell says it of SIGINT.
const AT_ONCE: i32 = 130;

/// A flag that the first SIGINT or SIGTERM raises. The second ends the program, when `last` is done.
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
