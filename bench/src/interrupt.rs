//! The first Ctrl-C ends what goes on and keeps what there is; the second ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What the program exits with at the second signal: as a shell says it of SIGINT.
const AT_ONCE: i32 = 130;

/// A flag that the first SIGINT or SIGTERM raises.
pub fn flag() -> io::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the exit looks at the flag before it is raised.
        flag::register_conditional_shutdown(signal, AT_ONCE, Arc::clone(&raised))?;
        flag::register(signal, Arc::clone(&raised))?;
    }
    Ok(raised)
}
