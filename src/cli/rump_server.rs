//! The program under its other name, `rump_server`: the command line of NetBSD's program, as its manual
//! has it, on this server.
//!
//! Source: rump_server(1).

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Parser;

use super::Failure;
use super::notify::Notifier;
use super::rump::Rump;
use crate::librump::{Drive, DriveKind, Extent, faults, load};
use crate::options::{self, Options};
use crate::output;
use rumpsp::url::Url;

/// Serve a rump kernel's system calls at URL.
#[derive(Parser)]
#[command(name = "rump_server", version)]
pub struct Cli {
    /// Stay in the foreground. Without it the server detaches once it is ready.
    #[arg(short)]
    s: bool,

    /// CPUs of the kernel.
    #[arg(short, value_name = "NCPU")]
    c: Option<NonZeroU64>,

    /// A file of the host as a drive:
    /// key=PATH,hostpath=FILE,size=BYTES|host[,offset=BYTES][,type=blk|chr|reg] or
    /// key=PATH,hostpath=FILE,disklabel=LETTER.
    #[arg(short, value_name = "DRIVE", value_parser = parse_drive)]
    d: Vec<Drive>,

    /// A component of the kernel, named as with the linker: -lrumpvfs.
    #[arg(short, value_name = "LIB")]
    l: Vec<String>,

    /// A kernel module to load.
    #[arg(short, value_name = "MODULE")]
    m: Vec<PathBuf>,

    /// Memory the kernel may use, in bytes, or with k, m or g behind.
    #[arg(short, value_name = "TOTALRAM")]
    r: Option<String>,

    /// Print the kernel's messages while it boots.
    #[arg(short)]
    v: bool,

    /// unix://PATH, tcp://A.B.C.D:PORT or tcp6://[ADDR]:PORT.
    url: Url,
}

impl Cli {
    /// Runs the program.
    pub fn run(self) -> Result<(), Failure> {
        output::queue_lines();
        let (options, mut config) = Options::from_env(self.url)?;
        faults::allow(options.allows_netbsd_faults());
        // The server is open, as that of the program whose name this is.
        config.access.anywhere = true;
        let mut environment = Vec::new();
        environment.extend(self.c.map(|ncpu| ("RUMP_NCPU", ncpu.to_string())));
        environment.extend(self.r.map(|bytes| ("RUMP_MEMLIMIT", bytes)));
        environment.extend(self.v.then(|| ("RUMP_VERBOSE", "1".to_string())));
        let rump = Rump {
            prefix: load::prefix_from_env(),
            libraries: self.l,
            modules: self.m,
            drives: self.d,
            environment,
            detach: !self.s,
            announce: false,
        };
        // If a service goes to the background, its starter waits for that instead.
        let notifier = if self.s { Notifier::from_env() } else { Notifier::default() };
        rump.serve(config, None, notifier)
    }
}

/// Parses the argument of `-d`.
fn parse_drive(text: &str) -> Result<Drive, String> {
    let (mut key, mut hostpath, mut size, mut offset, mut label, mut kind) =
        (None, None, None, None, None, None);
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` has no value"))?;
        let slot = match name {
            "key" => &mut key,
            "hostpath" => &mut hostpath,
            "size" => &mut size,
            "offset" => &mut offset,
            "disklabel" => &mut label,
            "type" => &mut kind,
            _ => {
                return Err(format!(
                    "`{name}` is none of key, hostpath, size, offset, disklabel, type"
                ));
            }
        };
        if slot.replace(value).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let kind = match kind {
        None | Some("blk") => DriveKind::Blk,
        Some("chr") => DriveKind::Chr,
        Some("reg") => DriveKind::Reg,
        Some(other) => return Err(format!("type={other} is none of blk, chr, reg")),
    };
    Ok(Drive {
        key: key.ok_or("key is missing")?.into(),
        hostpath: hostpath.ok_or("hostpath is missing")?.into(),
        extent: parse_extent(size, offset, label, kind)?,
        kind,
    })
}

fn parse_extent(
    size: Option<&str>,
    offset: Option<&str>,
    label: Option<&str>,
    kind: DriveKind,
) -> Result<Extent, String> {
    match (size, offset, label.map(str::as_bytes)) {
        (None, None, Some(&[letter @ b'a'..=b'z'])) => Ok(Extent::Partition(letter - b'a')),
        (None, None, Some(_)) => Err("disklabel is one letter from a to z".into()),
        (_, _, Some(_)) => Err("disklabel goes with neither size nor offset".into()),
        (Some("host"), Some(_), None) => Err("size=host goes without offset".into()),
        (Some("host"), None, None) => Ok(Extent::Host),
        (Some(size), offset, None) => Ok(Extent::Bytes {
            size: options::size(size)?,
            offset: offset.map_or(Ok(0), options::size)?,
        }),
        (None, None, None) if kind == DriveKind::Reg => Ok(Extent::Host),
        (None, _, None) => Err("size is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manuals_command_line_is_understood() {
        let words = [
            "rump_server",
            "-s",
            "-lrumpvfs",
            "-l",
            "rumpdev",
            "-c",
            "2",
            "-r",
            "16m",
            "-v",
            "-d",
            "key=/dk,hostpath=disk.img,size=1m",
            "unix://sock",
        ];
        let cli = Cli::try_parse_from(words).unwrap();
        assert!(cli.s && cli.v);
        assert_eq!(cli.l, ["rumpvfs", "rumpdev"]);
        assert_eq!(cli.d[0].extent, Extent::Bytes { offset: 0, size: 1 << 20 });
    }

    #[test]
    fn drives_are_understood_or_refused() {
        let extent =
            |rest: &str| parse_drive(&format!("key=/k,hostpath=h,{rest}")).map(|d| d.extent);
        assert_eq!(extent("size=host"), Ok(Extent::Host));
        assert_eq!(extent("size=2k,offset=512"), Ok(Extent::Bytes { offset: 512, size: 2048 }));
        assert_eq!(extent("disklabel=e"), Ok(Extent::Partition(4)));
        assert_eq!(extent("type=reg"), Ok(Extent::Host));
        for bad in [
            "size=host,offset=1",
            "disklabel=e,size=1",
            "disklabel=ee",
            "type=xyz,size=1",
            "size=x",
            "size=99999999999g",
            "type=blk",
            "size",
            "colour=red",
            "size=1,size=2",
        ] {
            assert!(extent(bad).is_err(), "{bad}");
        }
        assert!(parse_drive("hostpath=h,size=1").is_err(), "no key");
    }
}
