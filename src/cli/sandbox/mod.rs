//! `serve --sandbox`: a running server gives up what it does not need, so that an attacker who takes it
//! over by a bug has little.
//!
//! The server enters the sandbox in two steps. [`Wish::enter`] comes once the socket is bound and before
//! there is another thread, because Landlock holds for a thread and those it makes. [`Entered::seal`]
//! comes when everything is made and nobody has been served yet: it leaves all threads only the system
//! calls that a running server makes. Either step alone is worth having, and the log tells what the
//! system did not have. With neither, there is no sandbox, which is an error.

mod landlock;
mod seccomp;

use clap::Args;

use super::Failure;
use crate::server::Bound;

/// The option for a sandbox.
#[derive(Args)]
pub struct Wish {
    /// Once started, give up all that serving does not need: files (but removing the socket file),
    /// connections to elsewhere, signals to others, programs and most system calls, by Landlock and
    /// seccomp. For the embedded kernel; an error where the system has neither.
    #[arg(long)]
    sandbox: bool,
}

/// A sandbox that is not closed yet.
pub struct Entered {
    seccomp: bool,
}

impl Wish {
    /// Takes the first step, if a sandbox is wanted.
    pub fn enter(&self, bound: &Bound) -> Result<Option<Entered>, Failure> {
        self.sandbox.then(|| enter(bound)).transpose()
    }
}

fn enter(bound: &Bound) -> Result<Entered, Failure> {
    let seccomp = seccomp::begin();
    let landlock = landlock::confine(bound.url.path());
    match (&seccomp, &landlock) {
        (Err(seccomp), Err(landlock)) => return Err(nothing(seccomp, landlock)),
        (Err(error), Ok(_)) => {
            tracing::warn!("--sandbox: no seccomp, so all system calls stay: {error}");
        }
        (Ok(()), Err(error)) => tracing::warn!("--sandbox: no Landlock: {error}"),
        (Ok(()), Ok(())) => {}
    }
    Ok(Entered { seccomp: seccomp.is_ok() })
}

fn nothing(seccomp: &Failure, landlock: &Failure) -> Failure {
    format!(
        "--sandbox: this system has neither seccomp ({seccomp}) nor Landlock ({landlock}); allow \
         one of them (a container's own filter may hide both; Landlock is the boot parameter \
         lsm=landlock,...), or start without --sandbox"
    )
    .into()
}

impl Entered {
    /// Takes the second step, once all that starting needs is done.
    pub fn seal(&self) -> Result<(), Failure> {
        if self.seccomp {
            seccomp::seal().map_err(|error| format!("--sandbox: {error}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
