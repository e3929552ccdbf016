//! Serving the real rump kernel: its loading, setup and end. `serve --kernel librump` and `rump_server`
//! share this.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::notify::Notifier;
use super::{Failure, lifetime};
use crate::librump::hypercall;
use crate::librump::{self, Drive, load};
use crate::output;
use crate::server::{Bound, Config};

/// The parts of the kernel to load and to set up.
#[derive(Clone, Debug, Default)]
pub struct Rump {
    /// The directory where rump was installed.
    pub prefix: Option<PathBuf>,
    /// Components, named as with the linker.
    pub libraries: Vec<String>,
    pub modules: Vec<PathBuf>,
    pub drives: Vec<Drive>,
    /// The kernel's settings, which are environment variables.
    pub environment: Vec<(&'static str, String)>,
    /// True if the process goes to the background once the server is ready.
    pub detach: bool,
    /// True if the process prints when the server is ready.
    pub announce: bool,
}

impl Rump {
    /// Loads, boots and serves, to the end. With `detach`, the process that was started ends when the
    /// server is ready, or with the error that prevented that. `bound` is the socket to listen on, if
    /// there is one already.
    pub fn serve(
        &self,
        config: Config,
        bound: Option<Bound>,
        notifier: Notifier,
    ) -> Result<(), Failure> {
        for (name, value) in &self.environment {
            load::set_environment(name, value);
        }
        load::load(self.prefix.as_deref(), &self.libraries)?;
        let parent = self.detach.then(load::detach).transpose()?;
        let started = self.start(config, bound, Arc::new(notifier));
        match (parent, &started) {
            (None, _) => {}
            (Some(parent), Ok(_)) => {
                // From here on, stderr leads nowhere.
                output::flush();
                parent.tell(true);
            }
            (Some(parent), Err(error)) => {
                // The failure is the parent's, and is printed once.
                output::say(format_args!("rumpring: {error}"));
                output::flush();
                parent.tell(false);
                std::process::exit(1);
            }
        }
        started?()
    }

    /// Starts the server, and returns a function that does the rest.
    fn start(
        &self,
        config: Config,
        bound: Option<Bound>,
        notifier: Arc<Notifier>,
    ) -> Result<impl FnOnce() -> Result<(), Failure> + use<>, Failure> {
        let url = config.url.clone();
        let signals = lifetime::take_signals()?;
        hypercall::prepare(config, bound);
        load::boot()?;
        self.modules.iter().try_for_each(|module| librump::load_module(module))?;
        self.drives.iter().try_for_each(Drive::register)?;
        load::init_server(&url.to_string())?;
        let server = hypercall::server().ok_or("the kernel asked for no server")?;
        let stopped = lifetime::heed(signals, &server.control, notifier.clone())?;
        if self.announce {
            lifetime::ready(&server.url);
        }
        notifier.ready();
        Ok(move || {
            server.control.wait_for_end()?;
            notifier.stopping();
            if stopped.load(Ordering::SeqCst) {
                load::halt()?;
            }
            // The thread that halted the kernel ends the process, unless the kernel was told to halt and
            // stay.
            loop {
                std::thread::park();
            }
        })
    }
}
