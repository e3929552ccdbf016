//! The output of the programs on stdout and stderr. Printing never ends the program or changes what it
//! does.
//!
//! A command prints its result with [`print()`]: a full disk is an error, a reader that has closed its
//! end is not. Everything else is a line on stderr: [`say`]. A line that cannot be written is lost,
//! because there is nobody left to tell.
//!
//! A server must not wait for the reader of its stderr, either: after [`queue_lines`], lines go to a
//! bounded [`queue`], and a thread of its own, which runs [`write_lines`], writes them. The same is true
//! of stdout and of the [`console`] of NetBSD's kernel.
//!
//! The [`log`] consists of such lines, too.
//!
//! `println!` and similar macros panic when a line cannot be written, so no crate uses them.

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

/// The time that a server which ends waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The time that a thread which panics waits for its lines to be written. A panic may end the process a
/// moment later.
const PANICKED: Duration = Duration::from_millis(100);

/// The queued lines of a server. If this is not set, each thread writes its lines itself.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// The reason why a result could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}; the result is not complete")]
pub struct PrintError(#[from] io::Error);

/// Prints to stdout. A reader that has closed its end, as `head` may, is no error and changes nothing:
/// the command does the rest of its work, and its exit status tells how that went.
pub fn print(text: impl Display) -> Result<(), PrintError> {
    match write(io::stdout(), text.to_string().as_bytes()) {
        Ok(()) | Err((Errno::PIPE, _)) => Ok(()),
        Err((errno, _)) => Err(PrintError(errno.into())),
    }
}

/// Prints one or more lines on stderr.
pub fn say(text: impl Display) {
    say_bytes(format!("{text}\n").as_bytes());
}

fn say_bytes(lines: &[u8]) {
    match QUEUE.get() {
        Some(queue) => queue.push(lines),
        // A line that cannot be written is lost, because there is nobody to tell.
        None => drop(write(io::stderr(), lines)),
    }
}

/// Writes all bytes, and waits if necessary. On failure, returns the errno and the bytes that are left.
fn write(to: impl AsFd, mut bytes: &[u8]) -> Result<(), (Errno, &[u8])> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR) => {}
            // Another process that has the same file may have made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&to, PollFlags::OUT)], None)),
            Err(errno) => return Err((errno, bytes)),
        }
    }
    Ok(())
}

/// A writer of lines to stderr. Each write is one line or several, and none fails.
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

/// Queues lines from here on, including those of panics; for a server. The lines are written once a
/// thread runs [`write_lines`], and at the latest by [`flush`].
pub fn queue_lines() {
    QUEUE.get_or_init(|| {
        std::panic::set_hook(Box::new(panicked));
        Queue::new("stderr")
    });
}

/// Makes sure that descriptors 0 to 2 are open, if only on /dev/null: otherwise the next socket gets one
/// of these numbers, and whatever is printed goes there. Rust's programs begin with this, but others need
/// not.
pub fn open_standard_files() {
    let open = || rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty());
    while let Ok(file) = open()
        && file.as_raw_fd() <= 2
    {
        // The descriptor stays open.
        let _ = file.into_raw_fd();
    }
}

/// Writes queued lines, for ever.
pub fn write_lines() {
    block_signals();
    if let Some(queue) = QUEUE.get() {
        queue.write(|lines| write(io::stderr(), lines).map_err(|(_, left)| left));
    }
}

/// Blocks all signals on this thread. They are for other threads of the process, which may be another
/// program's. SIGPIPE, after the reader has gone, would end the process.
fn block_signals() {
    if let Err(error) = SigSet::all().thread_block() {
        tracing::warn!("cannot block signals: {error}");
    }
}

/// Waits until what is queued is written, but not for long. To be called before the process ends.
pub fn flush() {
    console::flush(LAST_LINES);
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_written_by("log", write_lines, LAST_LINES);
    }
}

/// Prints what Rust's own panic hook prints. Rust's hook would wait for the reader of stderr.
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

/// Ends the process early, instead of by [`end`]. Queued lines are written first.
pub fn exit(status: i32) -> ! {
    flush();
    std::process::exit(status)
}

/// Ends a program: prints what went wrong, if anything did, and returns the exit status.
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

/// Parses the command line. If it asks for help or cannot be understood, prints that and returns the exit
/// status.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    parse_with_matches(program).map(|(parsed, _)| parsed)
}

/// Parses the command line as [`parse`] does, and also returns the matches that it was parsed from.
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
