//! Serving the real rump kernel: loading it, setting it up, and its end. What `serve --kernel librump`
//! and `rump_server` have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::notify::Notifier;
use super::{Failure, lifetime};
use crate::librump::hypercall;
use crate::librump::{self, Drive, load};
use crate::output;
use crate::server::{Bound, Config};

/// What there is to load and to set up.
#[derive(Clone, Debug, Default)]
pub struct Rump {
    /// Where rump was installed.
    pub prefix: Option<PathBuf>,
    /// Components, named as with the linker.
    pub libraries: Vec<String>,
    pub modules: Vec<PathBuf>,
    pub drives: Vec<Drive>,
    /// For the kernel: its settings are environment variables.
    pub environment: Vec<(&'static str, String)>,
    /// Go to the background once the server is ready.
    pub detach: bool,
    /// Say when it is.
    pub announce: bool,
}

impl Rump {
    /// Loads, boots and serves, to the end. With `detach` the process that was started ends when the
    /// server is ready, or with the error that kept it from that. `bound` is where to listen, if that is
    /// settled already.
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
                // From there on stderr leads nowhere.
                output::flush();
                parent.tell(true);
            }
            (Some(parent), Err(error)) => {
                // It is the parent's failure, and said once.
                output::say(format_args!("rumpring: {error}"));
                output::flush();
                parent.tell(false);
                std::process::exit(1);
            }
        }
        started?()
    }

    /// Starts the server; returns what is left to do.
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
            // Who halted the kernel ends the process, unless it was told to halt and stay.
            loop {
                std::thread::park();
            }
        })
    }
}
