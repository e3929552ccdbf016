//! A kernel of one's own in fifty lines: one system call, which adds two numbers.
//!
//!     cargo run --example own_kernel

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use kernel::{Call, Errno, Identity, Kernel, Outcome, Process};
use rumpring::server::{Config, Running};
use rumpsp::url::Url;

const ADD: i32 = 1;

#[derive(Default)]
struct Adder {
    last_pid: Arc<AtomicI32>,
}

struct Adding {
    pid: i32,
    kernel: Adder,
}

impl Adder {
    fn process(&self) -> Arc<dyn Process> {
        let last_pid = self.last_pid.clone();
        let pid = last_pid.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Adding { pid, kernel: Adder { last_pid } })
    }
}

impl Kernel for Adder {
    fn identity(&self) -> Identity {
        let [ostype, osrelease, machine] = ["Adder", "1.0", "none"].map(String::from);
        Identity { ostype, osrelease, machine }
    }

    fn spawn(&self, _: Arc<dyn kernel::Client>, _: &[u8]) -> Result<Arc<dyn Process>, Errno> {
        Ok(self.process())
    }
}

impl Process for Adding {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        Outcome::Done(match call.number {
            ADD => Ok([call.args[0].wrapping_add(call.args[1]) as i64, 0]),
            _ => Err(Errno::ENOSYS),
        })
    }

    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        Ok(self.kernel.process())
    }

    fn adopt(&self, _: Arc<dyn kernel::Client>) -> Result<Arc<dyn Process>, Errno> {
        Ok(self.kernel.process())
    }

    fn exec(&self, _command: &[u8]) {}

    fn release(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let url = Url::Unix(dir.path().join("adder.sock"));
    let server = Running::start(Config::new(url), Arc::new(Adder::default()))?;
    let client = client::Client::builder().connect(server.url())?;
    assert_eq!(client.call(ADD, &[40, 2])?, [42, 0]);
    drop(client);
    server.stop()?;
    Ok(())
}
