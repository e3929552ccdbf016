//! The server of a rump kernel: started by the kernel's `rumpuser_sp_init`, ended by its
//! `rumpuser_sp_fini`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::librump::{Librump, cpus, current, faults, fifos, load, timers};
use crate::options::Options;
use crate::output;
use crate::output::log::{self, LogOptions};
use crate::server::{Bound, Config, Control, Error, ListenError, Running};
use kernel::{Errno, Identity};
use rumpsp::url::Url;

/// The configuration of the next server. The command line sets it before the kernel asks for a server.
static PREPARED: OnceLock<Config> = OnceLock::new();

/// The socket to listen on, if there is one already.
static BOUND: Mutex<Option<Bound>> = Mutex::new(None);

static SERVER: OnceLock<Serving> = OnceLock::new();

/// Held while the server starts. Its first client may halt the kernel before [`SERVER`] is set.
static STARTING: Mutex<()> = Mutex::new(());

/// The server of this process's kernel.
#[derive(Clone)]
pub struct Serving {
    pub control: Control,
    /// The URL where the server listens.
    pub url: Url,
}

/// Returns the server, once the kernel has asked for it.
pub fn server() -> Option<Serving> {
    SERVER.get().cloned()
}

/// Sets the configuration of the server (its URL is ignored), and its socket, if there is one already.
pub fn prepare(config: Config, bound: Option<Bound>) {
    *BOUND.lock().unwrap_or_else(PoisonError::into_inner) = bound;
    // A second configuration would come too late anyway.
    let _ = PREPARED.set(config);
}

/// Returns the number of CPUs of the kernel, which is more than the number of cores of the scheduler.
pub fn cpus() -> usize {
    let cores = match PREPARED.get() {
        Some(config) if !config.scheduler.cpus.is_empty() => config.scheduler.cpus.len(),
        _ => std::thread::available_parallelism().map_or(1, usize::from),
    };
    cpus::wanted(cores)
}

/// Starts the server that the kernel asks for.
pub fn serve(url: &str, identity: Identity) -> Result<(), Errno> {
    output::queue_lines();
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if SERVER.get().is_some() {
        return Err(Errno::EBUSY);
    }
    let url: Url = url.parse().map_err(|error| failed(&error, Errno::EINVAL))?;
    load::allow_files();
    fifos::give();
    timers::end_with_process();
    let kernel = Librump::new(identity).ok_or(Errno::ENXIO)?;
    let config = match PREPARED.get() {
        Some(config) => Config { url, ..config.clone() },
        None => from_env(url).map_err(|error| failed(&error, Errno::EINVAL))?,
    };
    let bound = BOUND.lock().unwrap_or_else(PoisonError::into_inner).take();
    let running = match bound {
        Some(bound) => Running::start_on(bound, config, Arc::new(kernel)),
        None => Running::start(config, Arc::new(kernel)),
    };
    let running = running.map_err(|error| failed(&error, errno_of(&error)))?;
    let serving = Serving { control: running.control().clone(), url: running.url().clone() };
    if PREPARED.get().is_some() {
        // The command line waits for the server's end.
        running.detach();
    } else {
        look_after(running).map_err(|error| failed(&error, Errno::EAGAIN))?;
    }
    SERVER.set(serving).map_err(|_| Errno::EBUSY)
}

/// Looks after a server in another program, which does not wait for it. The lines of the log are written
/// and, if the server ends although nobody has stopped it, the program ends with SIGABRT. Otherwise
/// clients would wait for ever for a server that is gone, and whoever started the program would not know.
fn look_after(running: Running) -> std::io::Result<()> {
    running.control().run_for_good("log", output::write_lines)?;
    let wait = move || {
        if let Err(error) = running.wait() {
            output::say(format_args!("rumpring: {error}"));
            output::flush();
            std::process::abort();
        }
    };
    std::thread::Builder::new().name("server's end".into()).spawn(wait).map(drop)
}

/// Returns the configuration for a program without rumpring's command line. As in rump_server, whose
/// place this takes, whoever can reach the server may connect, unless the environment says otherwise.
fn from_env(url: Url) -> Result<Config, String> {
    log::start(0, &LogOptions::from_env().map_err(|error| error.to_string())?);
    let (options, mut config) = Options::from_env(url)?;
    faults::allow(options.allows_netbsd_faults());
    config.access.anywhere = true;
    Ok(config)
}

/// Waits until the client that halted the kernel has its answer. The kernel ends the process when this
/// returns. If no client's call halted it, there is nothing to wait for: no call enters the kernel any
/// more, and none ends.
pub fn halted() {
    drop(STARTING.lock().unwrap_or_else(PoisonError::into_inner));
    let Some(serving) = server() else {
        return;
    };
    if current::memory(|memory| memory.halted()).is_none() {
        serving.control.abandon();
    }
    // The process ends anyway.
    drop(serving.control.wait_for_end());
    output::flush();
}

/// Prints on stderr what the kernel's caller only gets as a number.
fn failed(error: &dyn std::fmt::Display, errno: Errno) -> Errno {
    output::say(format_args!("rumpring: {error}"));
    output::flush();
    errno
}

/// Returns NetBSD's errno for a server that did not start, as librumpuser translates the host's errno.
fn errno_of(error: &Error) -> Errno {
    let Error::Listen(error) = error else {
        return Errno::ENXIO;
    };
    let ListenError::System { source, .. } = error else {
        return Errno::EADDRINUSE;
    };
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => Errno::EADDRINUSE,
        Some(libc::EADDRNOTAVAIL) => Errno::EADDRNOTAVAIL,
        Some(libc::EAFNOSUPPORT) => Errno::EAFNOSUPPORT,
        Some(libc::ENAMETOOLONG) => Errno::ENAMETOOLONG,
        // Up to 34 the two systems agree, except for 11.
        Some(number @ (1..=10 | 12..=34)) => Errno(number),
        _ => Errno::EIO,
    }
}
