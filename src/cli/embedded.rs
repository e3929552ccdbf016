//! The options of `serve` that bound the embedded kernel.

use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::options::size as bytes;
use embedded::{Config, Embedded, Limits};

/// The most processes that may be asked for: some pids have to be left over.
const MOST_PROCESSES: u64 = 10_000_000;

/// The limits of the embedded kernel. A family is a client and all that were forked from it.
#[derive(Args)]
#[command(next_help_heading = "Limits of the embedded kernel")]
pub struct KernelLimits {
    /// Descriptors a process may have open, the console's three among them; one more is EMFILE
    /// [default: 1024]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(3..=1 << 20))]
    files: Option<usize>,

    /// Files that all processes together may have open; one more is ENFILE [default: 1048576]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(3..))]
    files_in_all: Option<u64>,

    /// Open files of a family, those it was sent among them; one more is ENFILE. Half as many may be on
    /// their way to others or to it [default: a quarter of all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    files_of_family: Option<u64>,

    /// Processes that a client and all forked from it, a family, may have, those among them that wait
    /// for the forked client to connect; one more is EAGAIN, and the fork fails [default: 1024]
    #[arg(long, value_name = "N", value_parser = processes())]
    processes: Option<u64>,

    /// Processes of all families; one more is EAGAIN, and the fork or handshake fails
    /// [default: 200000]
    #[arg(long, value_name = "N", value_parser = processes())]
    processes_in_all: Option<u64>,

    /// Bytes a family's pipes and the files it made may hold, or with k, m or g behind. At the bound a
    /// write to a file is ENOSPC, a new pipe ENOMEM, and other pipes hold 1 KiB. Who made a file pays
    /// for it, whoever writes. A quarter of what all may hold, if that is less [default: 256m]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes: Option<u64>,

    /// Bytes of all files and pipes, with the same errors [default: 1g]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes_in_all: Option<u64>,

    /// Files, directories, devices and socket names of the file system; one more is ENOSPC
    /// [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    inodes: Option<u64>,

    /// Files, directories, devices and socket names that a family has made; one more is ENOSPC [default:
    /// a quarter of all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    inodes_of_family: Option<u64>,
}

fn processes() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=MOST_PROCESSES)
}

impl KernelLimits {
    /// Returns the kernel with these limits.
    pub fn kernel(&self) -> Embedded {
        Embedded::new(Config { limits: self.limits(), ..Config::default() })
    }

    fn limits(&self) -> Limits {
        let usual = Limits::default();
        let files = self.files_in_all.unwrap_or(usual.files);
        let inodes = self.inodes.unwrap_or(usual.inodes);
        let bytes = self.bytes_in_all.unwrap_or(usual.bytes);
        let quarter = |all: u64| all.div_ceil(4);
        Limits {
            files_per_process: self.files.unwrap_or(usual.files_per_process),
            files,
            files_per_family: self.files_of_family.unwrap_or(quarter(files)),
            inodes,
            inodes_per_family: self.inodes_of_family.unwrap_or(quarter(inodes)),
            bytes,
            bytes_per_family: self.bytes.unwrap_or(quarter(bytes).min(usual.bytes_per_family)),
            processes: self.processes_in_all.unwrap_or(usual.processes),
            processes_per_family: self.processes.unwrap_or(usual.processes_per_family),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        limits: KernelLimits,
    }

    fn limits(line: &str) -> Result<Limits, clap::Error> {
        let words = std::iter::once("only").chain(line.split_whitespace());
        Only::try_parse_from(words).map(|only| only.limits.limits())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let usual = Limits::default();
        assert_eq!(limits("").unwrap(), usual);
        let all = limits(
            "--files 3 --files-in-all 4 --files-of-family 2 --inodes-of-family 8 --processes 5 --processes-in-all 6 --bytes 7k \
             --bytes-in-all 8m --inodes 9",
        );
        let expected = Limits {
            files_per_process: 3,
            files: 4,
            files_per_family: 2,
            processes_per_family: 5,
            processes: 6,
            bytes_per_family: 7 << 10,
            bytes: 8 << 20,
            inodes: 9,
            inodes_per_family: 8,
        };
        assert_eq!(all.unwrap(), expected);
        let few = limits("--files-in-all 40 --inodes 10 --bytes-in-all 4k").unwrap();
        assert_eq!(
            (few.files_per_family, few.inodes_per_family, few.bytes_per_family),
            (10, 3, 1024)
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in ["--files 2", "--files x", "--processes 0", "--processes-in-all 10000001"] {
            assert!(limits(bad).is_err(), "{bad}");
        }
        for bad in ["--bytes 1x", "--bytes-in-all -1", "--inodes 0", "--files-in-all 0"] {
            assert!(limits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_help_tells_the_defaults() {
        let usual = Limits::default();
        let help = Only::command().render_long_help().to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let (family, all) = (usual.bytes_per_family >> 20, usual.bytes >> 30);
        for (option, default) in [
            ("--files <N>", usual.files_per_process.to_string()),
            ("--files-in-all <N>", usual.files.to_string()),
            ("--processes <N>", usual.processes_per_family.to_string()),
            ("--processes-in-all <N>", usual.processes.to_string()),
            ("--bytes <SIZE>", format!("{family}m")),
            ("--bytes-in-all <SIZE>", format!("{all}g")),
            ("--inodes <N>", usual.inodes.to_string()),
            ("--files-of-family <N>", "a quarter of all".into()),
            ("--inodes-of-family <N>", "a quarter of all".into()),
        ] {
            let (_, after) = words.split_once(option).expect(option);
            let told = after.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
            assert_eq!(told.map(|told| told.0), Some(default.as_str()), "{option}");
        }
    }
}
