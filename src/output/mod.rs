//! What the programs say on stdout and stderr, such that saying it never ends or changes anything else.
//!
//! A command prints its result with [`print()`]: a disk that is full is an error, a reader that has had enough
//! is not. Everything else is a line on stderr: [`say`]. A line that cannot be written is lost, for there is
//! nobody left to tell.
//!
//! A server must not wait for whoever reads its stderr, either: after [`queue_lines`] lines go to a bounded
//! [`queue`], and a thread of its own, which runs [`write_lines`], writes them. The same is true of stdout and
//! of the [`console`] of NetBSD's kernel.
//!
//! The [`log`] is made of such lines, too.
//!
//! `println!` and its kin panic when a line cannot be written, so no crate uses them.

mod console;
pub mod log;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{ArgMatches, Parser};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use console::print_byte;
use queue::Queue;

/// How long a server that ends waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long a thread that panics does so. A panic may end the process a moment later.
const PANICKED: Duration = Duration::from_millis(100);

/// The lines of a server. Not there: lines are written by whoever has something to say.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Why a result could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}; the result is not complete")]
pub struct PrintError(#[from] io::Error);

/// Prints to stdout. A reader that has had enough, as `head` may, is no error and changes nothing: what
/// else the command has to do is done, and its exit status says how that went.
pub fn print(text: impl Display) -> Result<(), PrintError> {
    match write(io::stdout(), text.to_string().as_bytes()) {
        Ok(()) | Err((Errno::PIPE, _)) => Ok(()),
        Err((errno, _)) => Err(PrintError(errno.into())),
    }
}

/// Says something on stderr: a line, or several.
pub fn say(text: impl Display) {
    say_bytes(format!("{text}\n").as_bytes());
}

fn say_bytes(lines: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(lines),
        // What cannot be written is lost: there is nobody to tell.
        None => drop(write(io::stderr(), lines)),
    }
}

/// Writes all, and waits where that takes waiting. In vain: why, and what is left.
fn write(to: impl AsFd, mut bytes: &[u8]) -> Result<(), (Errno, &[u8])> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR) => {}
            // Somebody else who has the same file may have made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)),
            Err(errno) => return Err((errno, bytes)),
        }
    }
    Ok(())
}

/// A way to stderr for what writes lines: each write is one, and none fails.
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say_bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From here on lines are queued, those of panics among them: for a server. They are written once there
/// is a thread that runs [`write_lines`], and at the latest by [`flush`].
pub fn queue_lines() {
    QUEUE.get_or_init(|| {
        std::panic::set_hook(Box::new(panicked));
        Queue::new("stderr")
    });
}

/// Sees to it that descriptors 0 to 2 are open, if only on /dev/null: else the next socket is one of them,
/// and who prints something prints it there. Rust's programs begin with that, and others need not.
pub fn open_standard_files() {
    let open = || rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty());
    while let Ok(file) = open()
        && file.as_raw_fd() <= 2
    {
        // It stays.
        let _ = file.into_raw_fd();
    }
}

/// Writes queued lines for ever.
pub fn write_lines() {
    block_signals();
    if let Some(queue) = QUEUE.get() {
        queue.write(|lines| write(io::stderr(), lines).map_err(|(_, left)| left));
    }
}

/// Blocks all signals on this thread. They are for others of the process, which may be somebody else's program;
/// SIGPIPE, of a reader that has gone, would end it.
fn block_signals() {
    if let Err(error) = SigSet::all().thread_block() {
        tracing::warn!("cannot block signals: {error}");
    }
}

/// Waits for what is queued to be written, but not for long: to be called before the process ends.
pub fn flush() {
    console::flush(LAST_LINES);
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_written_by("log", write_lines, LAST_LINES);
    }
}

/// Says what Rust's own hook does, which would wait for whoever reads stderr.
fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let trace = Backtrace::capture();
    match trace.status() {
        BacktraceStatus::Captured => say(format_args!("thread `{name}` {info}\n{trace}")),
        _ => say(format_args!("thread `{name}` {info}")),
    }
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_written(PANICKED);
    }
}

/// The end of the process before [`end`]: queued lines are written first.
pub fn exit(status: i32) -> ! {
    flush();
    std::process::exit(status)
}

/// How a program ends: says what went wrong, if anything did.
pub fn end(program: &str, result: Result<(), impl Display>) -> ExitCode {
    let status = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{program}: {error}"));
            ExitCode::FAILURE
        }
    };
    flush();
    status
}

/// The command line; or, when it asks for help or cannot be understood, the status to end with once that
/// is said.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    parse_with_matches(program).map(|(parsed, _)| parsed)
}

/// The same, with what it was parsed from.
pub fn parse_with_matches<C: Parser>(program: &str) -> Result<(C, ArgMatches), ExitCode> {
    let parse = || {
        let matches = C::command().try_get_matches()?;
        Ok((C::from_arg_matches(&matches)?, matches))
    };
    parse().map_err(|error: clap::Error| {
        let printed = error.print().and_then(|()| io::stdout().flush());
        match printed {
            Err(why) if !error.use_stderr() && why.kind() != io::ErrorKind::BrokenPipe => {
                end(program, Err(PrintError(why)))
            }
            _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX)),
        }
    })
}
