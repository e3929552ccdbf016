//! The end of a soak: the load is gone, nothing of it may be left, and the server is told to end.

use std::io;
use std::time::{Duration, Instant};

use super::parts::becomes_true;
use super::run::Run;
use super::sample::Sample;
use super::verdict;
use crate::compare::Server;

/// The time the server has until nothing of the clients is left, and the time to end at SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(15);

/// The state of the server at the end.
#[derive(Default)]
pub struct Ending {
    /// The sample taken when the server had come to rest, or at the end of its time for that.
    pub after: Option<Sample>,
    /// The way the server ended when it was told to.
    pub words: Option<String>,
}

/// Waits until nothing of the clients is left, then ends the server. `before` was taken before any
/// client came.
pub fn end(run: &Run, server: &mut Server, before: &Sample) -> io::Result<Ending> {
    if server.has_ended()?.is_some() {
        return Ok(Ending::default());
    }
    let after = comes_to_rest(run, server, before);
    if after.is_none() {
        run.wrong("server", "nothing to be seen of it when the load had gone");
    }
    Ok(Ending { after, words: ends(run, server)? })
}

fn comes_to_rest(run: &Run, server: &Server, before: &Sample) -> Option<Sample> {
    let mut after = None;
    becomes_true(DRAIN, || {
        after = Sample::take(server.books(), &server.url, run.elapsed().as_secs_f64()).ok();
        after.is_some_and(|after| {
            let rest = verdict::at_rest(before, &after);
            rest.iter().all(|finding| finding.is_good == Some(true))
        })
    });
    after
}

fn ends(run: &Run, server: &mut Server) -> io::Result<Option<String>> {
    let start = Instant::now();
    let Some(status) = server.end(END)? else {
        run.wrong("server", format!("it does not end within {END:?} of SIGTERM"));
        return Ok(None);
    };
    let took = start.elapsed().as_secs_f64();
    if !status.success() {
        let how = io::Error::other(format!("at SIGTERM it ended with {status}"));
        run.wrong("server", server.explain(&how));
    }
    Ok(Some(format!("{status}, {took:.2} s after SIGTERM")))
}
