//! The stock client libraries of NetBSD, and the programs in this directory that are linked with them.
//!
//! They come from outside: RUMP_PREFIX names a directory with `lib/librumpclient.so`,
//! `lib/librumphijack.so` and `include/rump`, as buildrump.sh installs them.

// Each test crate has this module to itself and uses what it needs of it.
#![allow(dead_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{self, Server, output};

/// The longest a client may take; each has a shorter limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(110);

/// The stock libraries, and a directory for compiled programs.
pub struct Stock {
    pub prefix: PathBuf,
    pub dir: TempDir,
}

impl Stock {
    /// Finds the libraries. Prints that the test is skipped and returns `None` if there are none.
    pub fn find(test: &str) -> Option<Stock> {
        let Some(prefix) = std::env::var_os("RUMP_PREFIX").map(PathBuf::from) else {
            process::say(&format!("{test}: skipped: RUMP_PREFIX is not set"));
            return None;
        };
        let library = prefix.join("lib/librumpclient.so");
        assert!(library.exists(), "RUMP_PREFIX is set, but there is no {}", library.display());
        Some(Stock { prefix, dir: tempfile::tempdir().expect("a directory") })
    }

    pub fn lib(&self) -> PathBuf {
        self.prefix.join("lib")
    }

    /// Compiles `tests/stock/NAME.c`.
    pub fn compile(&self, name: &str, with_library: bool) -> PathBuf {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock");
        let program = self.dir.path().join(name);
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-g", "-Wall", "-Wextra", "-Wno-unused-result", "-Wno-pointer-arith"]);
        cc.arg("-Wno-missing-field-initializers").arg("-o").arg(&program);
        cc.arg(sources.join(name).with_extension("c"));
        if with_library {
            // rump_syscalls.h expects the C99 integer types to be there.
            cc.args(["-include", "stdint.h", "-I"]).arg(self.prefix.join("include"));
            cc.arg("-L").arg(self.lib());
            let mut rpath = OsString::from("-Wl,-z,now,-rpath,");
            rpath.push(self.lib());
            cc.arg(rpath).args(["-lrumpclient", "-lpthread"]);
        }
        let compiled = output(&mut cc, PATIENCE);
        let words = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{cc:?} failed:\n{words}");
        assert!(words.is_empty(), "{cc:?} has warnings:\n{words}");
        program
    }

    /// Returns a host program with librumphijack, which makes `/rump` the root of the server's files.
    pub fn hijack(&self, program: impl Into<OsString>, server: &Server) -> Command {
        let mut command = Command::new(program.into());
        command
            .env("LD_LIBRARY_PATH", self.lib())
            .env("LD_PRELOAD", self.lib().join("librumphijack.so"))
            .env("RUMPHIJACK", "path=/rump,socket=all")
            .env("RUMP_SERVER", server.url().to_string());
        command
    }
}

/// Runs one of the programs: it may skip what this kernel lacks, but nothing may fail. Returns the
/// lines that say what it skipped.
#[track_caller]
pub fn run(command: &mut Command, server: &mut Server) -> Vec<String> {
    let done = output(command, PATIENCE);
    let stdout = String::from_utf8_lossy(&done.stdout);
    let told = |kind: &str| {
        let lines: Vec<&str> = stdout.lines().filter(|line| line.starts_with(kind)).collect();
        lines.join("\n")
    };
    let url = server.url().clone();
    assert!(
        done.status.success() && told("FAIL").is_empty() && !told("DONE").is_empty(),
        "{command:?} at {url}: {}\n{}\n{}\nits last lines:\n{}\n{}\nthe server said {:?}",
        done.status,
        told("FAIL"),
        told("DONE"),
        stdout.lines().rev().take(3).collect::<Vec<_>>().join("\n"),
        String::from_utf8_lossy(&done.stderr),
        server.said(),
    );
    for kind in ["SKIP", "INFO", "DONE"] {
        told(kind).lines().for_each(|line| println!("{line} ({url})"));
    }
    told("SKIP").lines().map(String::from).collect()
}
