//! The targets of a comparison: a running server, or a command that starts one, and that server's life.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rumpsp::url::Url;
use rustix::process::{Pid, Signal, kill_process};

use super::running::Running;
use crate::connection::greet;
use crate::counters::Teller;
use crate::measure::Books;

/// The time a server has to start.
const START: Duration = Duration::from_secs(30);

/// The time a server has to end once it is told to.
const END: Duration = Duration::from_secs(10);

/// The most bytes of a server's output that go into an error.
const MOST_OUTPUT: usize = 2000;

/// `NAME[+stats]=COMMAND`, where the command has `{url}` in it, `NAME=URL`, or `NAME=baseline WAY`.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub name: String,
    pub what: What,
    /// True if the server prints its counters at SIGUSR1.
    pub tells: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A server that runs already.
    Url(Url),
    /// A command for sh(1) that starts a server in the foreground.
    Command(String),
    /// A baseline server of this program, in the words of its command line.
    Baseline(String),
}

/// The suffix of the name of a target that prints its counters at SIGUSR1.
const TELLS: &str = "+stats";

/// The prefix of a target that is a baseline.
const BASELINE: &str = "baseline ";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (name, what) = text.split_once('=').ok_or_else(|| format!("{text:?} has no NAME="))?;
        let (name, tells) = match name.strip_suffix(TELLS) {
            Some(name) => (name, true),
            None => (name, false),
        };
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(is_good) {
            return Err(format!("{name:?} is no name of letters, digits and any of . _ -"));
        }
        let what = if what.contains("{url}") {
            What::Command(what.into())
        } else if what.starts_with(BASELINE) {
            What::Baseline(what.into())
        } else {
            let url = what.parse().map_err(|error| {
                format!(
                    "{what:?} has no {{url}} in it, so it should be a URL or a baseline: {error}"
                )
            })?;
            What::Url(url)
        };
        if tells && matches!(what, What::Url(_)) {
            return Err(format!("{name}{TELLS}: only a server that is started here can be asked"));
        }
        let tells = tells || matches!(what, What::Baseline(_));
        Ok(Target { name: name.into(), what, tells })
    }
}

impl Target {
    /// Returns the target's text without its name.
    pub fn command(&self) -> String {
        match &self.what {
            What::Url(url) => url.to_string(),
            What::Command(command) | What::Baseline(command) => command.clone(),
        }
    }

    /// Returns the server, started if need be. Its socket and its output are in `dir`.
    pub fn server(&self, dir: &Path) -> io::Result<Server> {
        self.server_at(&Url::Unix(dir.join("socket")), dir)
    }

    /// Returns the server as `server` does, but with its socket at `url`.
    pub fn server_at(&self, url: &Url, dir: &Path) -> io::Result<Server> {
        match &self.what {
            What::Url(url) => Ok(Server { url: url.clone(), process: None }),
            What::Command(command) => start(url, dir, self.tells, |url| {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("exec {}", command.replace("{url}", url))]);
                Ok(shell)
            }),
            What::Baseline(words) => start(url, dir, self.tells, |url| {
                let mut baseline = Command::new(std::env::current_exe()?);
                baseline.args(words.split_whitespace()).arg(url);
                Ok(baseline)
            }),
        }
    }
}

/// A server to be measured.
pub struct Server {
    pub url: Url,
    process: Option<Process>,
}

/// A server's process, which ends when this is dropped.
struct Process {
    child: Child,
    /// The file of its stdout and stderr.
    output: PathBuf,
    tells: bool,
    _running: Running,
}

impl Server {
    /// Returns the sources of the server's cost: none unless it was started here.
    pub fn books(&self) -> Books<'_> {
        let Some(process) = &self.process else {
            return Books::default();
        };
        let pid = Pid::from_child(&process.child);
        let teller = process.tells.then_some(Teller { pid, output: &process.output });
        Books { pid: Some(process.child.id()), teller }
    }

    /// Returns the server's exit status, if it has ended. A server that was not started here gives
    /// `None`.
    pub fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.as_mut().map_or(Ok(None), |process| process.child.try_wait())
    }

    /// Tells the server to end and waits for that; returns `None` if it does not end in time.
    pub fn end(&mut self, time: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        if process.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&process.child), Signal::TERM)?;
        }
        process.ends_within(time);
        process.child.try_wait()
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            // The server may have ended by now.
            drop(process.child.kill());
        }
    }

    /// Returns an error with the server's output.
    pub fn explain(&self, error: &io::Error) -> String {
        match &self.process {
            None => error.to_string(),
            Some(process) => process.explain(error),
        }
    }
}

/// Starts the server that `command` makes of a URL. Its output goes to a file in `dir`.
fn start(
    url: &Url,
    dir: &Path,
    tells: bool,
    command: impl FnOnce(&str) -> io::Result<Command>,
) -> io::Result<Server> {
    if let Some(socket) = url.path() {
        // A server that had to be killed leaves its socket file behind.
        drop(std::fs::remove_file(socket));
    }
    let output = dir.join("output");
    let file = File::create(&output)?;
    let child = command(&url.to_string())?
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let mut process = Process::new(child, output, tells)?;
    let start = Instant::now();
    loop {
        let error = match greet(url) {
            Ok(_) => return Ok(Server { url: url.clone(), process: Some(process) }),
            Err(error) => error,
        };
        if let Some(status) = process.child.try_wait()? {
            let error = io::Error::other(format!("the server ended with {status}"));
            return Err(io::Error::other(process.explain(&error)));
        }
        if start.elapsed() > START {
            let error = io::Error::new(error.kind(), format!("the server does not start: {error}"));
            return Err(io::Error::other(process.explain(&error)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Process {
    fn new(mut child: Child, output: PathBuf, tells: bool) -> io::Result<Process> {
        match Running::new(&child) {
            Ok(running) => Ok(Process { child, output, tells, _running: running }),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(error.into())
            }
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        let output = std::fs::read(&self.output).unwrap_or_default();
        let last = &output[output.len().saturating_sub(MOST_OUTPUT)..];
        match String::from_utf8_lossy(last).trim() {
            "" => error.to_string(),
            output => format!("{error}; the server wrote:\n{output}"),
        }
    }

    /// Returns `true` if the process has ended by now or does so in time.
    fn ends_within(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < time => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ends_within(Duration::ZERO) {
            return;
        }
        // A child that has not been waited for keeps its number, which no other process has and which
        // is over 0.
        if kill_process(Pid::from_child(&self.child), Signal::TERM).is_ok() && self.ends_within(END)
        {
            return;
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_command_or_a_url() {
        let target: Target = "a=x --opt=1 {url}".parse().unwrap();
        let what = What::Command("x --opt=1 {url}".into());
        assert_eq!(target, Target { name: "a".into(), what, tells: false });
        let target: Target = "b=tcp://127.0.0.1:5000".parse().unwrap();
        assert_eq!(target.command(), "tcp://127.0.0.1:5000");
        let target: Target = "c=baseline hop --spin 5".parse().unwrap();
        assert_eq!(target.what, What::Baseline("baseline hop --spin 5".into()));
        assert!(target.tells, "baselines do");
        let target: Target = "d+stats=x {url}".parse().unwrap();
        assert_eq!((target.name.as_str(), target.tells), ("d", true));
        let bad = ["x {url}", "=x {url}", "+stats=x {url}", "a=x", "a=baseline", "a|b=x {url}"];
        for text in bad.into_iter().chain(["a b=x {url}", "a+stats=tcp://127.0.0.1:5000"]) {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let target: Target = "a=sh -c 'echo no kernel here; exit 3' {url}".parse().unwrap();
        let error = target.server(dir.path()).err().unwrap().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("no kernel here"), "{error}");
    }

    #[test]
    fn a_server_is_told_to_end_and_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let script = "trap 'echo ended > \"$0\"; exit' TERM; echo up; while :; do sleep 0.02; done";
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(&said)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        drop(Process::new(child, dir.path().join("output"), false).unwrap());
        assert_eq!(std::fs::read_to_string(said).unwrap(), "ended\n");
    }
}
