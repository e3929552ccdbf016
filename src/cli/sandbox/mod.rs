//! `serve --sandbox`: a running server gives up what it does not need, so that whoever takes it over
//! by a bug has little.
//!
//! It goes in two steps. [`Wish::enter`] comes once the socket is bound and before there is another
//! thread, for Landlock holds for a thread and those it makes. [`Entered::seal`] comes when all is
//! made and nobody has been served yet: it leaves the system calls that a running server makes, to all
//! threads. Either alone is worth having, and the log says what the system did not have; with neither
//! there is no sandbox, which is an error.

mod landlock;
mod seccomp;

use clap::Args;

use super::Failure;
use crate::server::Bound;

/// Whether to have one.
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
    /// The first step, if a sandbox is wanted.
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
    /// The second step: all that starting took is done.
    pub fn seal(&self) -> Result<(), Failure> {
        if self.seccomp {
            seccomp::seal().map_err(|error| format!("--sandbox: {error}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
