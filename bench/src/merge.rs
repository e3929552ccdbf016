//! `rumpring-bench merge`: adds up the latencies of many runs, on many machines, as if of one run.

use std::path::PathBuf;

use clap::Args;
use rumpring::output;

use crate::histogram::{self, About};

/// Add up HdrHistogram logs of nanoseconds, as --histogram and --histograms write them.
#[derive(Args)]
pub struct Merge {
    /// The logs.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Write the sum to this log, and to it with .hgrm behind the text that HdrHistogram's plotters
    /// read.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Merge {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut sum = None;
        let mut longest = std::time::Duration::ZERO;
        for file in &self.files {
            let (latencies, length) = histogram::read(file)?;
            longest = longest.max(length);
            histogram::add(&mut sum, latencies)
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let sum = sum.ok_or("no log")?;
        let (calls, logs) = (sum.len(), self.files.len());
        output::print(format_args!(
            "{calls} calls of {logs} logs\n{}\n",
            histogram::in_words(&sum)
        ))?;
        if let Some(file) = &self.output {
            let words = format!("the sum of {} logs", self.files.len());
            histogram::write(file, &sum, &About { words, length: longest })?;
        }
        Ok(())
    }
}
